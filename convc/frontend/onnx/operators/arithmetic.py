"""Add, Sub, Mul, Div, Pow, and the operators of any number of operands: Max, Min, Sum, Mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.ir.types import FLOATS

__all__ = ["ROWS"]


def _binary(op: str) -> Callable[[OperatorNode], str]:
    def convert(node: OperatorNode) -> str:
        return node.emit(op, [node.value(0), node.value(1)])

    return convert


def power(node: OperatorNode) -> str:
    """Write Pow; the exponent may have another element type (Pow-12 on), whose value is kept: integers go through float64."""
    base, exponent = node.type(0).dtype, node.type(1).dtype
    if base == exponent:
        return node.emit("pow", [node.value(0), node.value(1)])
    is_whole = node.is_constant(1) and np.all(node.constant(1) == np.trunc(node.constant(1)))
    if is_whole or base in FLOATS:
        return node.emit("pow", [node.value(0), node.cast(node.value(1), base)])
    wide = [node.cast(node.value(i), "float64") for i in (0, 1)]
    return node.cast(node.step("pow", wide), base)


def _variadic(op: str, *, mean: bool = False) -> Callable[[OperatorNode], str]:
    """Return the converter that applies `op` from left to right, and divides by the count for a mean."""

    def convert(node: OperatorNode) -> str:
        count = len(node.inputs)
        total = node.value(0)
        for index in range(1, count):
            is_last = index == count - 1 and not mean
            write = node.emit if is_last else node.step
            total = write(op, [total, node.value(index)])
        if not mean or count == 1:
            return total
        return node.emit("div", [total, node.literal(float(count), node.type().dtype, "count")])

    return convert


ROWS: Final = (
    *(
        Converter(name, (7, 13, 14), _binary(name.lower()), folds=True)
        for name in ("Add", "Sub", "Mul", "Div")
    ),
    Converter("Pow", (7, 12, 13, 15), power, folds=True),
    Converter("Max", (6, 8, 12, 13), _variadic("maximum"), folds=True),
    Converter("Min", (6, 8, 12, 13), _variadic("minimum"), folds=True),
    Converter("Sum", (6, 8, 13), _variadic("add"), folds=True),
    Converter("Mean", (6, 8, 13), _variadic("add", mean=True), folds=True),
)
