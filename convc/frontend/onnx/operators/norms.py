"""LayerNormalization, GroupNormalization and LpNormalization."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.ir.ops.layer_norm import LayerNormAttributes
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.shape import ReshapeAttributes

__all__ = ["ROWS", "along_last"]


def _normalized(
    node: OperatorNode, x: str, axes: tuple[int, ...], epsilon: float
) -> tuple[str, str, str]:
    """Return (x - mean) / sqrt(var + epsilon) over the axes, the mean, and the factor."""
    reduce = ReduceAttributes(axes)
    mean = node.step("reduce_mean", [x], reduce)
    centred = node.step("sub", [x, mean])
    var = node.step("reduce_mean", [node.step("mul", [centred, centred])], reduce)
    stable = node.step("add", [var, node.literal(epsilon, node.step_type(x).dtype, "epsilon")])
    factor = node.step("reciprocal", [node.step("sqrt", [stable])])
    return node.step("mul", [centred, factor]), mean, factor


def layer_normalization(node: OperatorNode) -> str | tuple[str, ...]:
    """Write LayerNormalization; mean and variance in float32 at least, as stash_type asks."""
    a, data = node.attributes, node.type()
    a.only("stash_type", 1)
    (axis,) = normalized_axes(node, (a.integer("axis", -1),), data.rank)
    epsilon = a.real("epsilon", 1e-5)
    wide = data.dtype if data.dtype == "float64" else "float32"
    one_axis = axis == data.rank - 1 and node.type(1).size == data.shape[axis] > 0
    if one_axis and data.dtype == wide and not any(node.outputs[1:]):
        return along_last(node, node.value(), node.value(1), node.value(2) if node.has(2) else None, epsilon)  # fmt: skip
    axes = tuple(range(axis, data.rank))
    y, mean, factor = _normalized(node, node.cast(node.value(), wide), axes, epsilon)
    y = node.step("mul", [node.cast(y, data.dtype), node.value(1)])
    if node.has(2):
        y = node.step("add", [y, node.value(2)])
    return y, mean, factor


def along_last(node: OperatorNode, x: str, scale: str, bias: str | None, epsilon: float) -> str:
    """Write one op over x's last axis: the mean and the factor have no reader."""
    data = node.step_type(x)
    axis = data.rank - 1
    row = ReshapeAttributes((*[1] * axis, data.shape[axis]))
    scale = node.step("reshape", [scale], row)
    if bias is not None:
        bias = node.step("reshape", [bias], row)
    else:
        bias = node.literal(np.zeros(row.shape), data.dtype, "bias")
    return node.emit("layer_norm", [x, scale, bias], LayerNormAttributes(axis, epsilon))


def group_normalization(node: OperatorNode) -> str:
    """Write GroupNormalization: scale and bias per channel."""
    a, data = node.attributes, node.type()
    groups, (n, c, *rest) = a.integer("num_groups"), data.shape
    a.only("stash_type", 1)
    if groups < 1 or c % groups:
        raise InvalidModelError(
            f"GroupNormalization num_groups must divide the channels; got {groups} for {data}."
        )
    wide = data.dtype if data.dtype == "float64" else "float32"
    x = node.step(
        "reshape",
        [node.cast(node.value(), wide)],
        ReshapeAttributes((n, groups, -(-c // groups) * math.prod(rest))),
    )
    y, _, _ = _normalized(node, x, (2,), a.real("epsilon", 1e-5))
    y = node.cast(node.step("reshape", [y], ReshapeAttributes(data.shape)), data.dtype)
    column = ReshapeAttributes((1, c, *[1] * len(rest)))
    scale, bias = (node.step("reshape", [node.value(i)], column) for i in (1, 2))
    return node.emit("add", [node.step("mul", [y, scale]), bias])


def lp_normalization(node: OperatorNode) -> str:
    """Write LpNormalization: x over its norm along an axis, 0 where that is 0."""
    a, x, dtype = node.attributes, node.value(), node.type().dtype
    (axis,) = normalized_axes(node, (a.integer("axis", -1),), node.type().rank)
    p = a.integer("p", 2)
    reduce = ReduceAttributes((axis,))
    if p == 1:
        norm = node.step("reduce_sum", [node.step("abs", [x])], reduce)
    else:
        norm = node.step("sqrt", [node.step("reduce_sum", [node.step("mul", [x, x])], reduce)])
    zero = node.literal(0.0, dtype, "zero")
    is_zero = node.step("equal", [norm, zero])
    safe = node.step("where", [is_zero, node.literal(1.0, dtype, "one"), norm])
    return node.emit("div", [x, safe])


ROWS: Final = (
    Converter("LayerNormalization", (17,), layer_normalization),
    Converter("GroupNormalization", (21,), group_normalization),
    Converter("LpNormalization", (1, 22), lp_normalization),
)
