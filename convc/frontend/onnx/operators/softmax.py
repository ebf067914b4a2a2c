"""Softmax and LogSoftmax: over one axis since opset 13, over all axes from `axis` on before."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.ir.ops.linear import AxisAttributes
from convc.ir.ops.shape import ReshapeAttributes

__all__ = ["ROWS"]


def _along_axis(op: str) -> Callable[[OperatorNode], str]:
    def convert(node: OperatorNode) -> str:
        return node.emit(op, [node.value()], AxisAttributes(node.attributes.integer("axis", -1)))

    return convert


def _flattened(op: str) -> Callable[[OperatorNode], str]:
    """Return the converter of versions 1 and 11: the data as a matrix (axes before `axis`) x (the others), along its rows."""

    def convert(node: OperatorNode) -> str:
        axis, shape = node.attributes.integer("axis", 1), node.type().shape
        rank = len(shape)
        if not -rank <= axis <= rank:
            raise InvalidModelError(
                f"{node.op_type} axis must be in [{-rank}, {rank}]; got {axis} for {node.type()}."
            )
        axis = axis + rank if axis < 0 else axis
        if axis == rank - 1:
            return node.emit(op, [node.value()], AxisAttributes(-1))
        matrix = (math.prod(shape[:axis]), math.prod(shape[axis:]))
        flat = node.step("reshape", [node.value()], ReshapeAttributes(matrix))
        return node.emit(
            "reshape", [node.step(op, [flat], AxisAttributes(-1))], ReshapeAttributes(shape)
        )

    return convert


ROWS: Final = (
    Converter("Softmax", (1, 11), _flattened("softmax")),
    Converter("Softmax", (13,), _along_axis("softmax")),
    Converter("LogSoftmax", (1, 11), _flattened("log_softmax")),
    Converter("LogSoftmax", (13,), _along_axis("log_softmax")),
)
