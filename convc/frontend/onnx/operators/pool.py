"""Pools -> max_pool, average_pool, and reductions over all pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from convc.frontend.onnx.auto_pad import read_window, same_pads
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes
from convc.ir.types import Shape

__all__ = ["ROWS"]


def _read(node: OperatorNode) -> tuple[Shape, Shape, Shape, Shape, bool]:
    """Return kernel, strides, pads, dilations, ceil_mode."""
    node.require_float(0)
    window = read_window(node)
    ceil_mode = node.attributes.flag("ceil_mode", False)
    if window.is_same:
        # These pads make every window fit: ceil_mode changes nothing.
        pads = same_pads(node.type().shape[2:], window)
        return window.kernel, window.strides, pads, window.dilations, False
    return window.kernel, window.strides, window.pads, window.dilations, ceil_mode


def max_pool(node: OperatorNode) -> str:
    """Write MaxPool; its second output, Indices, is not there."""
    node.attributes.ignore("storage_order")  # only orders Indices
    return node.emit("max_pool", [node.value()], MaxPoolAttributes(*_read(node)))


def average_pool(node: OperatorNode) -> str:
    """Write AveragePool."""
    include = node.attributes.flag("count_include_pad", False)
    return node.emit("average_pool", [node.value()], AveragePoolAttributes(*_read(node), include))


def _global(op: str) -> Callable[[OperatorNode], str]:
    def convert(node: OperatorNode) -> str:
        node.require_float(0)
        axes = tuple(range(2, node.type().rank))
        return node.emit(op, [node.value()], ReduceAttributes(axes))

    return convert


ROWS: Final = (
    Converter("MaxPool", (1, 8, 10, 11, 12, 22), max_pool, "without Indices; floats"),
    Converter("AveragePool", (7, 10, 11, 19, 22), average_pool),
    Converter("GlobalAveragePool", (1, 22), _global("reduce_mean")),
    Converter("GlobalMaxPool", (1, 22), _global("reduce_max")),
)
