"""Add, Sub, Mul, Div, Pow, and the operators of any number of operands: Max, Min, Sum, Mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode

__all__ = ["ROWS"]


def _binary(op: str) -> Callable[[OperatorNode], str]:
    def convert(node: OperatorNode) -> str:
        node.require_float(0, 1)
        return node.emit(op, [node.value(0), node.value(1)])

    return convert


def power(node: OperatorNode) -> str:
    """Write Pow; a constant exponent may have another element type (Pow-12 on)."""
    node.require_float(0)
    exponent, dtype = node.type(1), node.type(0).dtype
    if exponent.dtype != dtype and node.is_constant(1):
        return node.emit("pow", [node.value(0), node.literal(node.constant(1), dtype, "exponent")])
    node.require_float(1)
    return node.emit("pow", [node.value(0), node.value(1)])


def _variadic(op: str, *, mean: bool = False) -> Callable[[OperatorNode], str]:
    """Return the converter that applies `op` from left to right, and divides by the count for a mean."""

    def convert(node: OperatorNode) -> str:
        count = len(node.inputs)
        node.require_float(*range(count))
        total = node.value(0)
        for index in range(1, count):
            is_last = index == count - 1 and not mean
            write = node.emit if is_last else node.step
            total = write(op, [total, node.value(index)])
        if not mean or count == 1:
            return total
        return node.emit("div", [total, node.literal(float(count), node.type().dtype, "count")])

    return convert


NOTE: Final = "floats; any type if constant"

ROWS: Final = (
    *(
        Converter(name, (7, 13, 14), _binary(name.lower()), NOTE, folds=True)
        for name in ("Add", "Sub", "Mul", "Div")
    ),
    Converter("Pow", (7, 12, 13, 15), power, NOTE, folds=True),
    Converter("Max", (6, 8, 12, 13), _variadic("maximum"), NOTE, folds=True),
    Converter("Min", (6, 8, 12, 13), _variadic("minimum"), NOTE, folds=True),
    Converter("Sum", (6, 8, 13), _variadic("add"), folds=True),
    Converter("Mean", (6, 8, 13), _variadic("add", mean=True), folds=True),
)
