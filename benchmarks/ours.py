"""convc as a row like its peers: compiled for as many threads as it then runs with, called through its public API."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.onnx_file import OnnxFile
from benchmarks.peers import Array, Infer, Peer
from convc.compiler import compile as compile_model

__all__ = ["CONVC"]


def _load(model: OnnxFile, threads: int) -> Infer:
    module = compile_model(model.path, threads=threads).load(threads=threads)
    names = [t.name for t in model.inputs]

    def infer(inputs: Sequence[Array]) -> Sequence[Array]:
        results = module.run(dict(zip(names, inputs, strict=True)))
        return [results[name] for name in model.outputs]

    return infer


CONVC = Peer("convc", (), _load)
