"""What a model may come as, and how it becomes a graph. Imports no compiler, so that `convc check` is quick."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from convc.errors import InvalidModelError
from convc.ir import text
from convc.ir.graph import Graph
from convc.ir.passes.quantize_layers import quantize_layers

if TYPE_CHECKING:
    import onnx

__all__ = ["Source", "load_graph"]

Source: TypeAlias = "str | os.PathLike[str] | Graph | onnx.ModelProto"


def load_graph(
    source: Source,
    *,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    values: Mapping[str, np.ndarray] | None = None,
    dequantize: bool = False,
    is_open: bool = False,
) -> Graph:
    """Return the graph of a model. Layers of an ONNX model between dequantize and quantize are layers of integers.

    Args:
        source: a path to an `.onnx` model or a `.cvc` graph, a graph, or an ONNX model in memory.
        shapes: input name -> shape, for inputs whose shape the ONNX model leaves open; a name as the leading extent is a symbolic batch.
        values: input name -> array, for inputs of the ONNX model that become constants.
        dequantize: compute the layers of quantised ONNX models in floats, as the model is written.
        is_open: the graph is one size of several: keep what its extents follow from, see `frontend.onnx.origins`.

    Raises:
        FrontendError: if the model cannot be read or uses what convc does not take, or `shapes` or `values` are given for what is no ONNX
            model.
        TextError: if a `.cvc` file does not parse.
    """
    if isinstance(source, Graph):
        _check_is_free(shapes, values, f"graph '{source.name}'")
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.exists():
            raise InvalidModelError(f"model must be a file; got '{path}', which does not exist.")
        if path.suffix == ".cvc":
            _check_is_free(shapes, values, f"'{path}'")
            return text.load(path)
    from convc.frontend.onnx import from_onnx

    graph = from_onnx(source, shapes=shapes, values=values, is_open=is_open)
    return graph if dequantize else quantize_layers(graph)


def _check_is_free(
    shapes: Mapping[str, Sequence[int | str]] | None,
    values: Mapping[str, np.ndarray] | None,
    what: str,
) -> None:
    if shapes:
        raise InvalidModelError(
            f"shapes must be given for ONNX models alone; got {dict(shapes)} for {what}, whose shapes are fixed."
        )
    if values:
        raise InvalidModelError(
            f"values must be given for ONNX models alone; got {', '.join(values)} for {what}."
        )
