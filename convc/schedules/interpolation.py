"""Where an image is read between its points: which of them, and with what weight."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from tvm import te, tirx

from convc.ir.ops.sample import CUBIC, GridAttributes

__all__ = ["clamped", "grid_taps", "taps"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def taps(position: Expr, mode: str, dtype: str) -> list[tuple[Expr, Expr]]:
    """Return (place, weight) of the points that one coordinate is interpolated from, places as whole floats."""

    def c(value: float) -> Expr:
        return tirx.const(value, dtype)

    if mode == "nearest":
        return [(tirx.nearbyint(position), c(1))]
    first = tirx.floor(position)
    f = position - first
    if mode == "linear":
        return [(first, c(1) - f), (first + c(1), f)]

    def near(d: Expr) -> Expr:
        return (c(CUBIC + 2) * d - c(CUBIC + 3)) * d * d + c(1)

    def far(d: Expr) -> Expr:
        return ((c(CUBIC) * d - c(5 * CUBIC)) * d + c(8 * CUBIC)) * d - c(4 * CUBIC)

    weights = (far(c(1) + f), near(f), near(c(1) - f), far(c(2) - f))
    return [(first + c(i - 1), w) for i, w in enumerate(weights)]


def _reflected(place: Expr, extent: int, align_corners: bool, dtype: str) -> Expr:
    period = 2 * (extent - 1) if align_corners else 2 * extent
    if period == 0:
        return tirx.const(0, dtype)
    whole = tirx.const(period, dtype)
    p = place - tirx.floor(place / whole) * whole
    return tirx.min(p, tirx.const(period if align_corners else period - 1, dtype) - p)


def clamped(place: Expr, extent: int, dtype: str) -> Expr:
    """Return a whole float as an index inside the data; a NaN becomes 0."""
    low = tirx.Select(place >= tirx.const(0, dtype), place, tirx.const(0, dtype))
    return tirx.min(low, tirx.const(extent - 1, dtype)).astype("int32")


def grid_taps(
    grid: te.Tensor, at: Sequence[Expr], extents: Sequence[int], a: GridAttributes
) -> Iterator[tuple[tuple[Expr, Expr], ...]]:
    """Yield the points that `GridSample` reads for place `at` (batch, then the grid's axes) as one (index, weight) an axis."""
    n, dtype = len(extents), grid.dtype

    def c(value: float) -> Expr:
        return tirx.const(value, dtype)

    axes = []
    for axis, extent in enumerate(extents):
        g = grid(*at, n - 1 - axis)
        if a.align_corners:
            position = (g + c(1)) * c((extent - 1) / 2)
        else:
            position = ((g + c(1)) * c(extent) - c(1)) * c(0.5)
        found = []
        for place, weight in taps(position, a.mode, dtype):
            where, share = place, weight
            if a.padding == "reflection":
                where = _reflected(place, extent, a.align_corners, dtype)
            if a.padding == "zeros":
                inside = tirx.all(place >= c(0), place < c(extent))
                share = tirx.Select(inside, weight, c(0))
            found.append((clamped(where, extent, dtype), share))
        axes.append(found)
    return itertools.product(*axes)
