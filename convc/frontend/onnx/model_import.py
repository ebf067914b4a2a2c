"""from_onnx: a model in memory or a file, its shapes bound, as a graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto

from convc.errors import InvalidModelError
from convc.frontend.onnx.importer import Import
from convc.frontend.onnx.input_shapes import Dimension, batch_of, bind_values
from convc.frontend.onnx.model_file import read_model
from convc.frontend.onnx.symbolic_batch import with_symbolic_batch
from convc.ir import Graph

__all__ = ["from_onnx"]


def from_onnx(
    model: str | os.PathLike[str] | ModelProto,
    *,
    shapes: Mapping[str, Sequence[Dimension]] | None = None,
    values: Mapping[str, np.ndarray] | None = None,
    name: str | None = None,
    is_open: bool = False,
) -> Graph:
    """Return the graph of an ONNX model, opsets 7 to the newest that the installed onnx knows.

    Inputs, outputs and values keep their ONNX names. What only depends on constants is computed here.

    Args:
        model: path of a file, or a model in memory, which is not changed.
        shapes: input name -> shape; every symbolic dimension needs an extent, a fixed one cannot be changed. A name as the leading
            extent, ("N", 3, 224, 224), is a symbolic batch; where nothing but leading extents is open, they are one by themselves.
        values: input name -> array; such an input is a constant of the graph, as operands that decide a shape must be.
        name: the graph's name; the file's stem by default.
        is_open: keep by which rule a Resize gets its extents, for `ir.area.open_area`.

    Raises:
        InvalidModelError: if the model cannot be read, contradicts the specification, or keeps a symbolic dimension that is no batch.
        UnsupportedModelError: listing every operator and attribute that convc does not take.
        ShapeError: if the operands of a node do not fit each other; with a symbolic batch, if a node mixes samples or has a number of
            samples written into it; names the node.

    Source:
        github.com/onnx/onnx, docs/IR.md and docs/Operators.md.

    Example:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }'
        >>> from_onnx(onnx.parser.parse_model(text)).compute_nodes[0].op
        'relu'
    """
    try:
        source = bind_values(read_model(model), values)
        batch, symbolic = batch_of(source.proto.graph, shapes)

        def graph_of(samples: int) -> Graph:
            bound = {k: (samples, *s[1:]) for k, s in symbolic.items()}
            return Import(source, {**(shapes or {}), **bound}, name, dict.fromkeys(bound, batch) if samples == 1 else {}, is_open=is_open).run()  # type: ignore[arg-type, dict-item]  # fmt: skip

        return with_symbolic_batch(graph_of, batch, symbolic) if batch else graph_of(0)
    except UnicodeDecodeError as error:
        # Protobuf takes any bytes for a name; whoever reads the name first finds out.
        raise InvalidModelError(
            f"names in a model must be UTF-8 text; got {error.object!r}."
        ) from error
