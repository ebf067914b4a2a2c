"""ONNX Runtime: CPU provider, all graph optimisations (its default), one inter-op thread."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.onnx_file import OnnxFile
from benchmarks.peers.peer import Array, Infer, Peer
from convc.onnxruntime_peer import OnnxRuntimePeer

__all__ = ["ROW"]


def _load(model: OnnxFile, threads: int) -> Infer:
    session = OnnxRuntimePeer(model.path, threads).session
    names = [t.name for t in model.inputs]

    def infer(inputs: Sequence[Array]) -> Sequence[Array]:
        return session.run(None, dict(zip(names, inputs, strict=True)))

    return infer


ROW = Peer("onnxruntime", ("onnxruntime",), _load)
