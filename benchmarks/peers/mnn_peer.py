"""MNN: the model converted as `mnnconvert` does it, CPU backend, high precision (float32 throughout).

The converter's C++ entry is called directly. The console script `mnnconvert` and the package `MNN.tools` in front of it try to
install a telemetry client with whatever `pip` comes first in PATH, and report the machine to a server; merely importing
`MNN.tools` does it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.cache import cache_folder, made_once
from benchmarks.onnx_file import OnnxFile
from benchmarks.peers.peer import Array, Infer, Peer, PeerError, run_tool

__all__ = ["ROW"]

_CONVERT: Final = (
    "import sys, _tools; _tools.mnnconvert(['mnnconvert', '-f', 'ONNX', *sys.argv[1:]])"
)


def _convert(model: OnnxFile, folder: Path) -> None:
    source = str(model.path.absolute())
    arguments = ("--modelFile", source, "--MNNModel", "model.mnn")
    run_tool((sys.executable, "-c", _CONVERT, *arguments), folder, "model.mnn")


def _load(model: OnnxFile, threads: int) -> Infer:
    import MNN  # pyright: ignore[reportMissingImports]

    folder = cache_folder() / f"mnn-{ROW.versions()['MNN']}" / model.sha256
    file = made_once(folder, lambda made: _convert(model, made)) / "model.mnn"
    interpreter = MNN.Interpreter(str(file))
    session = interpreter.createSession(
        {"backend": "CPU", "precision": "high", "numThread": threads}
    )
    kinds = {"float32": MNN.Halide_Type_Float, "int32": MNN.Halide_Type_Int, "uint8": MNN.Halide_Type_Uint8}  # fmt: skip
    ports = []
    for tensor in model.inputs:
        if tensor.dtype not in kinds:
            raise PeerError(
                f"mnn inputs must be {', '.join(kinds)}; got {tensor.dtype} for '{tensor.name}'."
            )
        port = interpreter.getSessionInput(session, tensor.name)
        interpreter.resizeTensor(port, tensor.shape)
        ports.append((port, tensor.shape, kinds[tensor.dtype]))
    interpreter.resizeSession(session)
    order = MNN.Tensor_DimensionType_Caffe  # NCHW on the host

    def infer(inputs: Sequence[Array]) -> Sequence[Array]:
        for (port, shape, kind), array in zip(ports, inputs, strict=True):
            port.copyFrom(MNN.Tensor(shape, kind, array, order))
        interpreter.runSession(session)
        results = []
        for name in model.outputs:
            output = interpreter.getSessionOutput(session, name)
            shape = tuple(output.getShape())
            host = MNN.Tensor(shape, MNN.Halide_Type_Float, np.empty(shape, np.float32), order)
            output.copyToHostTensor(host)
            # The array is a view of `host`, which ends here.
            results.append(host.getNumpyData().copy())
        return results

    return infer


ROW = Peer("mnn", ("MNN",), _load)
