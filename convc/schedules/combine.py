"""A small matrix of known numbers times a vector, as an expression: what transforms are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from convc.schedules.cook_toom import Matrix

__all__ = ["combine"]


def combine(matrix: Matrix, row: Any, read: Callable[[int], Any]) -> Any:
    """Return row `row` of `matrix` times the vector that `read` gives; `row` is a loop variable that is unrolled later.

    Unrolling turns each Select into one of its branches, so only one row's sum is left of this chain.
    """
    sums = [_sum(coefficients, read) for coefficients in matrix]
    result = sums[-1]
    for index in range(len(sums) - 2, -1, -1):
        result = tirx.Select(row == index, sums[index], result)
    return result


def _sum(coefficients: tuple, read: Callable[[int], Any]) -> Any:
    total = None
    for position, coefficient in enumerate(coefficients):
        if not coefficient:
            continue
        value = read(position)
        if abs(coefficient) != 1:
            value = value * tirx.const(abs(float(coefficient)), "float32")
        if total is None:
            total = value if coefficient > 0 else -value
        else:
            total = total + value if coefficient > 0 else total - value
    return tirx.const(0, "float32") if total is None else total
