"""TopK, ArgMax, ArgMin, Hardmax, CumSum and CumProd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.gather import take
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.ir.ops.linear import AxisAttributes
from convc.ir.ops.order import ArgAttributes, RunningAttributes, TopKAttributes
from convc.ir.ops.shape import ReshapeAttributes

__all__ = ["ROWS"]


def top_k(node: OperatorNode) -> tuple[str, str]:
    """Write TopK: the places first, then the values that lie there. They are always sorted, which `sorted=0` allows."""
    a = node.attributes
    a.ignore("sorted")
    (axis,) = normalized_axes(node, (a.integer("axis", -1),), node.type().rank)
    k = int(node.constant_scalar(1)) if node.version >= 10 else a.integer("k")
    largest = a.flag("largest", True)
    extent = node.type().shape[axis]
    if not 0 <= k <= extent:
        raise InvalidModelError(f"TopK k must be in [0, {extent}]; got {k} for {node.type()}.")
    places = node.emit("topk", [node.value()], TopKAttributes(axis, k, largest), 1)
    values = node.emit("gather_elements", [node.value(), places], AxisAttributes(axis))
    return values, places


def _arg(largest: bool) -> Callable[[OperatorNode], str]:
    def convert(node: OperatorNode) -> str:
        a = node.attributes
        (axis,) = normalized_axes(node, (a.integer("axis", 0),), node.type().rank)
        last = a.flag("select_last_index", False)
        attributes = ArgAttributes(axis, a.flag("keepdims", True), largest, last)
        return node.emit("argmax", [node.value()], attributes)

    return convert


def hardmax(node: OperatorNode) -> str:
    """Write Hardmax: 1 at the first greatest element along an axis (before version 13: over all axes from `axis` on)."""
    shape, dtype = node.type().shape, node.type().dtype
    rank = len(shape)
    (axis,) = normalized_axes(
        node, (node.attributes.integer("axis", -1 if node.version >= 13 else 1),), rank
    )
    x = node.value()
    if node.version < 13:
        x = node.step(
            "reshape", [x], ReshapeAttributes((math.prod(shape[:axis]), math.prod(shape[axis:])))
        )
        axis = 1
    data = node.step_type(x).shape
    along = [1] * len(data)
    along[axis] = data[axis]
    places = node.literal(np.arange(data[axis]).reshape(along), "int64", "places")
    first = node.step("argmax", [x], ArgAttributes(axis))
    ones = node.cast(node.step("equal", [first, places]), dtype)
    return node.emit("reshape", [ones], ReshapeAttributes(shape))


def _running(function: str) -> Callable[[OperatorNode], str]:
    def convert(node: OperatorNode) -> str:
        a = node.attributes
        (axis,) = normalized_axes(node, (int(node.constant_scalar(1)),), node.type().rank)
        attributes = RunningAttributes(axis, function, a.flag("exclusive", False))
        if not a.flag("reverse", False):
            return node.emit("running", [node.value()], attributes)
        backwards = np.arange(node.type().shape[axis])[::-1]
        turned = take(node, node.value(), backwards, axis)
        return take(node, node.step("running", [turned], attributes), backwards, axis)

    return convert


ROWS: Final = (
    Converter("TopK", (1, 10, 11, 24), top_k, "constant k"),
    Converter("ArgMax", (1, 11, 12, 13), _arg(True), folds=True),
    Converter("ArgMin", (1, 11, 12, 13), _arg(False), folds=True),
    Converter("Hardmax", (1, 11, 13), hardmax),
    Converter("CumSum", (11, 14), _running("sum"), "constant axis", folds=True),
    Converter("CumProd", (26,), _running("prod"), "constant axis", folds=True),
)
