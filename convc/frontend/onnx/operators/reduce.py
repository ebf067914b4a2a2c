"""ReduceMean, ReduceSum, ReduceMax, ReduceMin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.reshape import axes_operand, normalized_axes
from convc.ir.ops.linear import ReduceAttributes

__all__ = ["ROWS"]


def _reduce(op: str, axes_input_since: int) -> Callable[[OperatorNode], str]:
    """Return the converter of a reduction whose axes are an input from version `axes_input_since` on."""

    def convert(node: OperatorNode) -> str:
        node.require_float(0)
        rank, keepdims = node.type().rank, node.attributes.flag("keepdims", True)
        axes = axes_operand(node, axes_input_since)
        does_nothing = node.attributes.flag("noop_with_empty_axes", False)
        if not axes:
            if does_nothing:
                return node.value()
            axes = tuple(range(rank))
        attributes = ReduceAttributes(tuple(sorted(normalized_axes(node, axes, rank))), keepdims)
        return node.emit(op, [node.value()], attributes)

    return convert


NOTE: Final = "constant axes; floats, any type if constant"

ROWS: Final = (
    Converter("ReduceMean", (1, 11, 13, 18), _reduce("reduce_mean", 18), NOTE, folds=True),
    Converter("ReduceSum", (1, 11, 13), _reduce("reduce_sum", 13), NOTE, folds=True),
    Converter("ReduceMax", (1, 11, 12, 13, 18, 20), _reduce("reduce_max", 18), NOTE, folds=True),
    Converter("ReduceMin", (1, 11, 12, 13, 18, 20), _reduce("reduce_min", 18), NOTE, folds=True),
)
