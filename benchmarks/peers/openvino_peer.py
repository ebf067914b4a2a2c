"""OpenVINO: CPU plugin held to float32 (it would take bfloat16 where the CPU has it), one stream, tuned for latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.onnx_file import OnnxFile
from benchmarks.peers.peer import Array, Infer, Peer

__all__ = ["ROW"]

_PROPERTIES: Final = {
    "INFERENCE_PRECISION_HINT": "f32",
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
}


def _load(model: OnnxFile, threads: int) -> Infer:
    import openvino  # pyright: ignore[reportMissingImports]

    properties = {**_PROPERTIES, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(str(model.path), "CPU", properties)
    request = compiled.create_infer_request()
    count = len(model.outputs)

    def infer(inputs: Sequence[Array]) -> Sequence[Array]:
        # Shared memory on both sides is the cheapest way in and out that the Python API has.
        results = request.infer(list(inputs), share_inputs=True, share_outputs=True)
        return [results[i] for i in range(count)]

    return infer


ROW = Peer("openvino", ("openvino",), _load)
