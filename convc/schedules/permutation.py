"""Transposes of plain values: axes that stay neighbours are one axis, and axes of one element none.

THE ALGORITHM   y[i at perm] = x[i]
EXAMPLE         (64, 8, 8, 8, 60) by (0, 2, 1, 3, 4) is (64, 8, 8, 480) by (0, 2, 1, 3)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm import te

from convc.ir.types import Shape

__all__ = ["compute", "shortest"]


def shortest(shape: Shape, perm: Sequence[int]) -> tuple[Shape, Shape]:
    """Return the shape and permutation of fewest axes that move the same elements; no axes at all where nothing moves.

    Example:
        >>> shortest((1, 4096, 1, 32), (0, 2, 1, 3))
        ((), ())
        >>> shortest((64, 49, 3, 3, 4), (2, 0, 3, 1, 4))
        ((64, 49, 3, 3, 4), (2, 0, 3, 1, 4))
        >>> shortest((5, 8, 8, 60), (0, 2, 3, 1))
        ((5, 8, 480), (0, 2, 1))
    """
    groups: list[list[int]] = []
    for axis in perm:
        if shape[axis] == 1:
            continue
        if groups and _neighbours(shape, groups[-1][-1], axis):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    order = sorted(groups)
    if len(groups) < 2 or order == groups:
        return (), ()
    extents = tuple(math.prod(shape[i] for i in group) for group in order)
    return extents, tuple(order.index(group) for group in groups)


def _neighbours(shape: Shape, first: int, second: int) -> bool:
    """Whether one axis follows the other but for axes of one element."""
    return first < second and all(shape[i] == 1 for i in range(first + 1, second))


def compute(shape: Shape, perm: Shape, dtype: str) -> list[te.Tensor]:
    """Return data and result, block `permutation`."""
    x = te.placeholder(shape, dtype, name="x")

    def value(*i):
        at = sorted(zip(perm, i, strict=True), key=lambda pair: pair[0])
        return x(*(index for _, index in at))

    return [x, te.compute(tuple(shape[p] for p in perm), value, name="permutation")]
