"""REFERENCES: what modules are compared with, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from convc.errors import InputError
from convc.ir.graph import Graph
from convc.ir.reference import interpret

__all__ = ["REFERENCES"]

Arrays = Mapping[str, np.ndarray]


def _float64(graph: Graph, model_path: str | os.PathLike[str] | None) -> Callable[[Arrays], Arrays]:
    return lambda inputs: interpret(graph, inputs)


def _onnxruntime(
    graph: Graph, model_path: str | os.PathLike[str] | None
) -> Callable[[Arrays], Arrays]:
    if model_path is None or Path(model_path).suffix != ".onnx":
        raise InputError(
            f"reference onnxruntime must have an .onnx model; got {model_path or 'a graph without a file'}."
        )
    # An optional package: only this reference needs it.
    from convc.onnxruntime_peer import OnnxRuntimePeer

    return OnnxRuntimePeer(model_path).run


# name -> (graph, model path) -> inputs -> outputs. "auto" is the first: exact to double precision, and it needs nothing.
REFERENCES: Final = {"float64": _float64, "onnxruntime": _onnxruntime}
