"""The axes of a stack of matrix products: which of them its kernel runs as one, and each operand's memory along what is left.

x (64, 4, 49, 15), w (64, 4, 15, 49), y (64, 4, 49, 49), a mask (64, 1, 49, 49)
-->
batch (64, 4), rows 49; the mask's stride along 4 is 0
x (2, 10, 64), w (64, 32)
-->
no batch, rows 20
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from convc.ir.types import Shape
from convc.schedules.layout import View

__all__ = ["ProductAxes"]


@dataclass(frozen=True, slots=True)
class ProductAxes:
    """The result's axes in front of its channels, in groups that run as one loop; the last group are the rows.

    Attributes:
        extents: of the result without its channels.
        groups: of axes longer than 1, and of the rows; empty for rows of 1 that stand alone.
    """

    extents: Shape
    groups: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(result: Shape, weight: Shape, others: Sequence[View]) -> ProductAxes:
        """Return the axes of a product.

        Args:
            result: (..., M, K).
            weight: extents of the weights in front of their matrices.
            others: everything else that is read or written, its axes aligned as arrays broadcast.

        Example:
            >>> ProductAxes.of((2, 10, 64), (), [View((2, 10, 32), (320, 32, 1), 0, "float32")]).groups
            ((0, 1),)
        """
        extents = result[:-1]
        rows = len(extents) - 1
        weights = (*_spread(weight, _compact(weight), extents[:-1]), 0)
        strides = [_spread(v.shape[:-1], v.strides[:-1], extents) for v in others]
        groups: list[list[int]] = []
        for axis in [i for i, n in enumerate(extents) if n > 1 or i == rows]:
            before = groups[-1][-1] if groups else None
            if before is not None and _follow(before, axis, extents, weights, strides):
                groups[-1].append(axis)
            else:
                groups.append([axis])
        # The kernel's rows share their weights.
        if any(weights[axis] for axis in groups[-1]):
            groups.append([])
        return ProductAxes(extents, tuple(map(tuple, groups)))

    @property
    def batch(self) -> Shape:
        return tuple(math.prod(self.extents[i] for i in group) for group in self.groups[:-1])

    @property
    def rows(self) -> int:
        return math.prod(self.extents[i] for i in self.groups[-1])

    def seen(self, view: View, last: int) -> View:
        """Return an operand, or the result, as (batch..., rows, `last`)."""
        *strides, inner = _spread(view.shape, view.strides, (*self.extents, last))
        steps = tuple(self._step(strides, group, last) for group in self.groups)
        return replace(view, shape=(*self.batch, self.rows, last), strides=(*steps, inner))

    def weights(self, view: View, own: Shape) -> View:
        """Return packed weights (a matrix each of `own`, ...) as (batch..., a matrix)."""
        matrix = view.strides[1 if own else 0 :]
        shape = view.shape[1 if own else 0 :]
        size = math.prod(shape)
        strides = _spread(own, tuple(s * size for s in _compact(own)), self.extents[:-1])
        steps = tuple(self._step((*strides, 0), group, size) for group in self.groups[:-1])
        return replace(view, shape=(*self.batch, *shape), strides=(*steps, *matrix))

    def _step(self, strides: Sequence[int], group: Sequence[int], alone: int) -> int:
        long = [i for i in group if self.extents[i] > 1]
        return strides[long[-1]] if long else alone


def _follow(
    outer: int, inner: int, extents: Shape, weights: Shape, strides: Sequence[Shape]
) -> bool:
    """Whether two axes are one, of all operands."""
    if extents[inner] == 1:  # a single row, that of neighbouring products with the same weights
        return not weights[outer]
    return all(s[outer] == s[inner] * extents[inner] for s in (weights, *strides))


def _spread(shape: Shape, strides: Shape, extents: Shape) -> Shape:
    """Return an operand's strides along the axes that it broadcasts to."""
    missing = (0,) * (len(extents) - len(shape))
    own = [0 if n == 1 else s for n, s in zip(shape, strides, strict=True)]
    return (*missing, *own)


def _compact(shape: Shape) -> Shape:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
