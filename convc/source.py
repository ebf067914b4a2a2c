"""What a model may come as, and how it becomes a graph. Imports no compiler, so that `convc check` is quick."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from convc.errors import InvalidModelError
from convc.ir import text
from convc.ir.graph import Graph
from convc.ir.types import Shape

if TYPE_CHECKING:
    import onnx

__all__ = ["Source", "load_graph"]

Source: TypeAlias = "str | os.PathLike[str] | Graph | onnx.ModelProto"


def load_graph(source: Source, *, shapes: Mapping[str, Shape] | None = None) -> Graph:
    """Return the graph of a model.

    Args:
        source: a path to an `.onnx` model or a `.cvc` graph, a graph, or an ONNX model in memory.
        shapes: input name -> shape, for inputs whose shape the ONNX model leaves open.

    Raises:
        FrontendError: if the model cannot be read or uses what convc does not take, or `shapes` are given for what is no ONNX
            model.
        TextError: if a `.cvc` file does not parse.
    """
    if isinstance(source, Graph):
        _check_no_shapes(shapes, f"graph '{source.name}'")
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.exists():
            raise InvalidModelError(f"model must be a file; got '{path}', which does not exist.")
        if path.suffix == ".cvc":
            _check_no_shapes(shapes, f"'{path}'")
            return text.load(path)
    from convc.frontend.onnx import from_onnx

    return from_onnx(source, shapes=shapes)


def _check_no_shapes(shapes: Mapping[str, Shape] | None, what: str) -> None:
    if shapes:
        raise InvalidModelError(
            f"shapes must be given for ONNX models alone; got {dict(shapes)} for {what}, whose shapes are fixed."
        )
