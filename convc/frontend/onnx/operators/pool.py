"""Pools -> max_pool, average_pool, and reductions over all pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from convc.frontend.onnx.auto_pad import read_window, same_pads
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes, MaxPoolIndicesAttributes
from convc.ir.ops.shape import PadAttributes
from convc.ir.spec import pooled_extent
from convc.ir.types import Shape

__all__ = ["ROWS"]


def _read(node: OperatorNode) -> tuple[Shape, Shape, Shape, Shape, bool]:
    """Return kernel, strides, pads, dilations, ceil_mode."""
    window = read_window(node)
    ceil_mode = node.attributes.flag("ceil_mode", False)
    if window.is_same:
        # These pads make every window fit: ceil_mode changes nothing.
        pads = same_pads(node.type().shape[2:], window)
        return window.kernel, window.strides, pads, window.dilations, False
    return window.kernel, window.strides, window.pads, window.dilations, ceil_mode


def max_pool(node: OperatorNode) -> tuple[str, ...]:
    """Write MaxPool, and its second output, Indices, if it is there: places in the whole tensor."""
    column_major = node.attributes.flag("storage_order", False)
    window = _read(node)
    y = node.emit("max_pool", [node.value()], MaxPoolAttributes(*window))
    if len(node.outputs) < 2 or not node.outputs[1]:
        return (y,)
    attributes = MaxPoolIndicesAttributes(*window, column_major)
    return y, node.emit("max_pool_indices", [node.value()], attributes, 1)


def average_pool(node: OperatorNode) -> str:
    """Write AveragePool."""
    include = node.attributes.flag("count_include_pad", False)
    return node.emit("average_pool", [node.value()], AveragePoolAttributes(*_read(node), include))


def lp_pool(node: OperatorNode) -> str:
    """Write LpPool: (sum |x|^p)^(1/p) over each window, as the mean of a pool that counts all points, times their number.

    Zeros are padded first, as far as the last window reaches, so that every window has all its points.
    """
    p = node.attributes.integer("p", 2)
    kernel, strides, pads, dilations, ceil_mode = _read(node)
    data, n = node.type(), len(kernel)
    dtype = data.dtype
    power = node.literal(float(p), dtype, "p")
    x = node.step("pow", [node.step("abs", [node.value()]), power])
    after = []
    for i, extent in enumerate(data.shape[2:]):
        count = pooled_extent(
            extent, kernel[i], strides[i], (pads[i], pads[n + i]), dilations[i], ceil_mode=ceil_mode
        )
        reach = (count - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1
        after.append(max(0, reach - extent - pads[i]))
    if any((*pads[:n], *after)):
        x = node.step("pad", [x], PadAttributes((0, 0, *pads[:n], 0, 0, *after)))
    attributes = AveragePoolAttributes(kernel, strides, (), dilations)
    mean = node.step("average_pool", [x], attributes)
    total = node.step("mul", [mean, node.literal(float(math.prod(kernel)), dtype, "points")])
    return node.emit("pow", [total, node.literal(1.0 / p, dtype, "root")])


def global_lp_pool(node: OperatorNode) -> str:
    """Write GlobalLpPool."""
    p, dtype = node.attributes.integer("p", 2), node.type().dtype
    x = node.step("pow", [node.step("abs", [node.value()]), node.literal(float(p), dtype, "p")])
    total = node.step("reduce_sum", [x], ReduceAttributes(tuple(range(2, node.type().rank))))
    return node.emit("pow", [total, node.literal(1.0 / p, dtype, "root")])


def _global(op: str) -> Callable[[OperatorNode], str]:
    def convert(node: OperatorNode) -> str:
        axes = tuple(range(2, node.type().rank))
        return node.emit(op, [node.value()], ReduceAttributes(axes))

    return convert


ROWS: Final = (
    Converter("MaxPool", (1, 8, 10, 11, 12, 22), max_pool),
    Converter("AveragePool", (7, 10, 11, 19, 22), average_pool),
    Converter("LpPool", (2, 11, 18, 22), lp_pool),
    Converter("GlobalLpPool", (2, 22), global_lp_pool),
    Converter("GlobalAveragePool", (1, 22), _global("reduce_mean")),
    Converter("GlobalMaxPool", (1, 22), _global("reduce_max")),
)
