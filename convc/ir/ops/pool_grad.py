"""Gradients of pools. Ties: every point that equals its window's maximum gets that window's whole gradient.

    max_pool_grad(x, y, dy)[i]     = sum over windows p that hold i and have x[i] = y[p] of dy[p]      (y = max_pool(x))
    max_pool_select(x, y, g)[p]    = sum over points i of window p with x[i] = y[p] of g[i]
    sum_pool_grad(dy)[i]           = sum over windows p that hold i of dy[p]

The first two are each other's adjoints, the third is the adjoint of the sum under each window, so gradients of gradients are
these ops again. The rule for ties is Theano's; PyTorch and TensorFlow give the gradient to the first maximum alone. Both are
subgradients wherever a window has one maximum, and with ties this one is symmetric under reflection of the data.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import ShapeError
from convc.ir.ops.definition import Array, Attributes, OpDef
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes, infer_pool
from convc.ir.types import Shape, TensorType

__all__ = ["ROWS", "SumPoolGradAttributes"]


@dataclass(frozen=True, slots=True)
class SumPoolGradAttributes(Attributes):
    """The pool's geometry, and the spatial extents of its data, which the gradient does not tell."""

    extents: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False

    @property
    def pool(self) -> AveragePoolAttributes:
        """The pool whose windows these are."""
        return AveragePoolAttributes(
            self.kernel, self.strides, self.pads, self.dilations, self.ceil_mode
        )


def _check_result(op: str, types: Sequence[TensorType], a: MaxPoolAttributes) -> TensorType:
    data, result = types[:2]
    wanted = infer_pool([data], a)
    if result != wanted:
        raise ShapeError(f"{op} result must be the pool's {wanted} of data {data}; got {result}.")
    return wanted


def _infer_max_pool_grad(types: Sequence[TensorType], a: MaxPoolAttributes) -> TensorType:
    result = _check_result("max_pool_grad", types, a)
    if types[2] != result:
        raise ShapeError(
            f"max_pool_grad gradient must be like the result, {result}; got {types[2]}."
        )
    return types[0]


def _infer_max_pool_select(types: Sequence[TensorType], a: MaxPoolAttributes) -> TensorType:
    result = _check_result("max_pool_select", types, a)
    if types[2] != types[0]:
        raise ShapeError(
            f"max_pool_select values must be like the data, {types[0]}; got {types[2]}."
        )
    return result


def _infer_sum_pool_grad(types: Sequence[TensorType], a: SumPoolGradAttributes) -> TensorType:
    gradient = types[0]
    data = TensorType((*gradient.shape[:2], *a.extents), gradient.dtype)
    wanted = infer_pool([data], a.pool)
    if gradient != wanted:
        raise ShapeError(
            f"sum_pool_grad gradient must be the pool's {wanted} of data {data}; got {gradient}."
        )
    return data


_Pool = MaxPoolAttributes | AveragePoolAttributes


def _padded(extents: Shape, windows: Shape, a: _Pool) -> list[tuple[int, int]]:
    """Return the border that the windows reach, ends included that hang over."""
    n = len(a.kernel)
    strides, pads, dilations = a.strides or (1,) * n, a.pads or (0,) * (2 * n), a.dilations or (1,) * n  # fmt: skip
    border = []
    for axis in range(n):
        reach = (windows[axis] - 1) * strides[axis] + dilations[axis] * (a.kernel[axis] - 1) + 1
        border.append((pads[axis], max(0, reach - extents[axis] - pads[axis])))
    return border


def _boxes(windows: Shape, a: _Pool) -> Iterator[tuple[slice, ...]]:
    """Yield, tap by tap, where the windows touch the padded data."""
    n = len(a.kernel)
    strides, dilations = a.strides or (1,) * n, a.dilations or (1,) * n
    for tap in itertools.product(*map(range, a.kernel)):
        yield tuple(
            slice(t * d, t * d + (e - 1) * s + 1, s)
            for t, d, e, s in zip(tap, dilations, windows, strides, strict=True)
        )


def _scatter(dy: Array, extents: Shape, a: _Pool, keep: Sequence[Array] | None = None) -> Array:
    """Return the data's gradient: each tap of each window adds its `dy`, where `keep` of that tap says so."""
    windows = dy.shape[2:]
    border = _padded(extents, windows, a)
    full = [e + b + c for e, (b, c) in zip(extents, border, strict=True)]
    dx = np.zeros((*dy.shape[:2], *full), dy.dtype)
    for index, box in enumerate(_boxes(windows, a)):
        dx[(..., *box)] += dy if keep is None else np.where(keep[index], dy, 0)
    inner = tuple(slice(b, b + e) for e, (b, _) in zip(extents, border, strict=True))
    return dx[(..., *inner)]


def _taps(x: Array, windows: Shape, a: _Pool, fill: float) -> list[Array]:
    border = [(0, 0), (0, 0), *_padded(x.shape[2:], windows, a)]
    padded = np.pad(x, border, constant_values=fill)
    return [padded[(..., *box)] for box in _boxes(windows, a)]


def _max_pool_grad(arrays: Sequence[Array], a: MaxPoolAttributes) -> Array:
    x, y, dy = arrays
    winners = [tap == y for tap in _taps(x, y.shape[2:], a, -np.inf)]
    return _scatter(dy, x.shape[2:], a, winners)


def _max_pool_select(arrays: Sequence[Array], a: MaxPoolAttributes) -> Array:
    x, y, g = arrays
    points = zip(_taps(x, y.shape[2:], a, -np.inf), _taps(g, y.shape[2:], a, 0.0), strict=True)
    return np.sum([np.where(tap == y, value, 0) for tap, value in points], axis=0)


def _sum_pool_grad(arrays: Sequence[Array], a: SumPoolGradAttributes) -> Array:
    return _scatter(arrays[0], a.extents, a.pool)


ROWS: Final = (
    OpDef("max_pool_grad", MaxPoolAttributes, (3, 3), _infer_max_pool_grad, _max_pool_grad),
    OpDef("max_pool_select", MaxPoolAttributes, (3, 3), _infer_max_pool_select, _max_pool_select),
    OpDef("sum_pool_grad", SumPoolGradAttributes, (1, 1), _infer_sum_pool_grad, _sum_pool_grad),
)
