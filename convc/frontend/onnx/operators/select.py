"""NonMaxSuppression, NonZero and Compress of data: as many rows as the data says, see `counted`."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from convc.errors import InvalidModelError, ShapeError
from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.counted import Counted, CountedValue
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.gather import take
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.ir.ops.linear import AxisAttributes, ReduceAttributes
from convc.ir.ops.order import TopKAttributes
from convc.ir.ops.select import NmsAttributes
from convc.ir.ops.shape import ReshapeAttributes

__all__ = ["ROWS"]


def _count(node: OperatorNode, places: str, axis: int) -> str:
    """Return how many rows are there: those that are not filled with -1."""
    first = take(node, places, np.array([0]), 1 - axis)
    there = node.step("greater_equal", [first, node.literal(0, "int64", "zero")])
    return node.step("reduce_sum", [node.cast(there, "int64")], ReduceAttributes((0, 1), False))


def non_max_suppression(node: OperatorNode) -> Result:
    """Write NonMaxSuppression: the order of the scores, then the boxes kept."""
    boxes, scores = node.type(0), node.type(1)
    if boxes.rank != 3 or scores.rank != 3:
        raise ShapeError(
            f"NonMaxSuppression must take boxes (B, N, 4) and scores (B, C, N); got {boxes} and {scores}."
        )
    count = scores.shape[2]
    most = min(max(int(node.constant_scalar(2)), 0), count) if node.has(2) else 0
    centred = node.attributes.integer("center_point_box", 0)
    if centred not in (0, 1):
        raise InvalidModelError(
            f"NonMaxSuppression center_point_box must be 0 or 1; got {centred}."
        )
    attributes = NmsAttributes(
        most,
        float(node.constant_scalar(3)) if node.has(3) else 0.0,
        float(node.constant_scalar(4)) if node.has(4) else float("-inf"),
        bool(centred),
    )
    if not most * scores.size:
        return np.zeros((0, 3), np.int64)
    order = node.step("topk", [node.value(1)], TopKAttributes(2, count))
    kept = node.emit("nms", [node.value(0), node.value(1), order], attributes)
    return CountedValue(kept, Counted(0, _count(node, kept, 0)))


def non_zero(node: OperatorNode) -> Result:
    """Write NonZero; a scalar is one element."""
    x, shape = node.value(), node.type().shape
    if not math.prod(shape):
        return np.zeros((len(shape), 0), np.int64)
    if not shape:
        x = node.step("reshape", [x], ReshapeAttributes((1,)))
    places = node.emit("nonzero", [x])
    return CountedValue(places, Counted(1, _count(node, places, 1)))


def compress(node: OperatorNode) -> Result:
    """Write Compress: a gather of the places where the condition holds."""
    x, shape = node.value(), node.type().shape
    if "axis" in node.attributes:
        (axis,) = normalized_axes(node, (node.attributes.integer("axis"),), len(shape))
    else:
        axis, x = 0, node.step("reshape", [x], ReshapeAttributes((math.prod(shape),)))
    extent = node.step_type(x).shape[axis]
    if node.is_constant(1):
        condition = np.flatnonzero(node.constant(1))
        if condition.size and condition[-1] >= extent:
            raise ShapeError(
                f"Compress condition must not reach beyond the data; got place {condition[-1]} for {node.type()}."
            )
        index = node.literal(condition, "int64", "places")
        return node.emit("gather", [x, index], AxisAttributes(axis))
    length = node.type(1).shape
    if len(length) != 1 or not 0 < length[0] <= extent:
        raise ShapeError(
            f"Compress condition must have one axis of 1 to {extent}; got {node.type(1)} for {node.type()}."
        )
    places = node.step("nonzero", [node.value(1)])
    index = node.step("reshape", [places], ReshapeAttributes(length))
    kept = node.emit("gather", [x, index], AxisAttributes(axis))
    return CountedValue(kept, Counted(axis, _count(node, places, 1)))


ROWS: Final = (
    Converter("NonMaxSuppression", (10, 11), non_max_suppression, "constant limits", folds=True),
    Converter("NonZero", (9, 13), non_zero, folds=True),
    Converter("Compress", (9, 11, 28), compress, folds=True),
)
