"""The oracle: run a graph with NumPy, floats in float64. Short, slow, and it knows nothing of the compiler."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from convc.errors import InputError
from convc.ir.batch import with_batch
from convc.ir.graph import CONSTANT, INPUT, Graph
from convc.ir.ops import OPS
from convc.ir.ops.definition import Array
from convc.ir.types import FLOATS, numpy_dtype

__all__ = ["interpret"]


def _widen(array: Array, dtype: str) -> Array:
    """Return the array as the oracle computes with it: by the node's element type, whatever type the caller's array has."""
    return array.astype(np.float64 if dtype in FLOATS else numpy_dtype(dtype))


def _samples(graph: Graph, inputs: Mapping[str, Array]) -> int:
    """Return how many samples the first input of the symbolic batch holds; the others are compared with it afterwards."""
    shapes = (
        np.shape(inputs[n.name])
        for n in graph.inputs
        if n.attributes.batch and n.name in inputs  # type: ignore[attr-defined]
    )
    return next((shape[0] for shape in shapes if shape), 1)


def interpret(
    graph: Graph,
    inputs: Mapping[str, Array],
    *,
    keep: bool = False,
    rounded: Collection[str] = (),
) -> dict[str, Array]:
    """Return the graph's outputs by name, floats as float64; with `keep`, every value by its value name instead.

    Each value of a float type in `rounded` is rounded to it: what these types alone cost, computed without another error.

    Raises:
        InputError: if an input is missing or has another shape than the graph says; a symbolic batch may have any number of samples.

    Example:
        >>> from convc.ir.text import parse
        >>> graph = parse("graph @g { %x = input : f32[2]  %y = relu(%x) : f32[2]  return %y }")
        >>> interpret(graph, {"x": np.array([-1.0, 2.0])})["y"]
        array([0., 2.])
    """
    if graph.batch:
        graph = with_batch(graph, _samples(graph, inputs))
    values: dict[str, Array] = {}
    last_use = {operand: node.name for node in graph.nodes for operand in node.inputs}
    for node in graph.nodes:
        if node.op == INPUT:
            if node.name not in inputs:
                raise InputError(f"input '{node.name}' must be given; got {', '.join(inputs)}.")
            array = np.asarray(inputs[node.name])
            if array.shape != node.type.shape:
                raise InputError(
                    f"input '{node.name}' must have shape {node.type.shape}; got {array.shape}."
                )
            values[node.name] = _widen(array, node.type.dtype)
        elif node.op == CONSTANT:
            values[node.name] = _widen(node.value, node.type.dtype)
        else:
            operands = [values[i] for i in node.inputs]
            values[node.name] = OPS[node.op].reference(operands, node.attributes)
            if node.type.dtype in rounded:
                with np.errstate(over="ignore"):
                    narrow = values[node.name].astype(numpy_dtype(node.type.dtype))
                values[node.name] = narrow.astype(np.float64)
            if not keep:
                for operand in set(node.inputs):
                    if last_use[operand] == node.name and operand not in graph.output_values:
                        del values[operand]
    return values if keep else _outputs(graph, values)


def _outputs(graph: Graph, values: Mapping[str, Array]) -> dict[str, Array]:
    """Return what is there of each output; those that only count others are not outputs of the model."""
    counting = {o.count for o in graph.outputs}
    counts = {o.name: int(values[o.value]) for o in graph.outputs if o.name in counting}
    shown = {}
    for output in graph.outputs:
        if output.name not in counting:
            array = values[output.value]
            if output.count:
                array = array[(slice(None),) * output.axis + (slice(counts[output.count]),)]
            shown[output.name] = array
    return shown
