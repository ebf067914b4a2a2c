"""GridSample by points: where a point lies is found once for all channels, which are read as vectors.

THE ALGORITHM   x_t[s, c] = x[c, s], s a place of the plane;  of point p, tap t: place s(p, t) and share w(p, t)
                y[c, p] = sum over t of x_t[s(p, t), c] w(p, t)
WHEN            float32, channels in vectors of 8 or 16, points in tiles of 8 to 16, linear or nearest; a plane that is read about whole
COST            one copy of the data; a vector load and an FMA for 16 channels of a tap, where each channel's own loop finds place and
                share again and loads one element at a time
ACCURACY        that of the op's own: a product of shares, then products and sums of `taps` terms
"""

from __future__ import annotations

import math
from typing import Any, Final

from tvm import te

from convc.ir.ops.sample import GridAttributes
from convc.ir.types import Shape, TensorType
from convc.schedules.divisors import greatest_divisor
from convc.schedules.interpolation import grid_taps
from convc.schedules.plan import Unsupported

__all__ = ["compute", "points_of", "refusal", "vector_of"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27

_MOST, _LEAST = 16, 8
# Points of the data for one that is read: the copy takes about as long as four channels' loops did.
_READ: Final = 4


def vector_of(channels: int) -> int:
    """Return the channels of a vector."""
    return greatest_divisor(channels, _MOST)


def points_of(area: Shape) -> int:
    """Return the points of a tile: of one row of the result, or of whole rows.

    Example:
        >>> points_of((12, 20)), points_of((300, 4)), points_of((7, 7))
        (10, 16, 7)
    """
    last = area[-1]
    most = greatest_divisor(last, _MOST)
    rows = greatest_divisor(area[-2], _MOST // last) if most == last else 1
    return most * rows


def refusal(data: TensorType, result: TensorType, a: GridAttributes) -> Unsupported | None:
    """Return why the result is not computed so, or None."""
    (_, channels, *area), (_, _, *out) = data.shape, result.shape
    if data.dtype == "float64":
        return Unsupported("its vectors are of float32")
    if a.mode not in ("linear", "nearest"):
        return Unsupported(f"mode must be linear or nearest; got {a.mode}")
    if not result.size or vector_of(channels) < _LEAST:
        return Unsupported(f"channels must be a multiple of a number from {_LEAST} to {_MOST}; got {channels}")  # fmt: skip
    if points_of(tuple(out)) < _LEAST:
        return Unsupported(f"rows of points must be of a multiple of {_LEAST} to {_MOST}, or some together so many; got {out}")  # fmt: skip
    if math.prod(area) > _READ * math.prod(out):
        return Unsupported(f"the plane must have at most {_READ} x the points that are read; got {math.prod(area)} and {math.prod(out)}")  # fmt: skip
    return None


def _unravelled(flat: Expr, extents: Shape) -> tuple[Expr, ...]:
    found = []
    for extent in reversed(extents[1:]):
        found.append(flat % extent)
        flat = flat // extent
    return (flat, *reversed(found))


def _flat(at: tuple[Expr, ...], extents: Shape) -> Expr:
    total: Expr = 0
    for i, extent in zip(at, extents, strict=True):
        total = total * extent + i
    return total


def compute(x: te.Tensor, grid: te.Tensor, shape: Shape, a: GridAttributes) -> te.Tensor:
    """Return what `grid` (N, ..., axes) reads of `x` (N, C, ...): (N, C, ...)."""
    (N, C, *out), extents = shape, tuple(int(e) for e in x.shape[2:])
    points = math.prod(out)
    columns = te.compute((N, math.prod(extents), C), lambda n, s, c: x(n, c, *_unravelled(s, extents)), name="columns")  # fmt: skip

    def taps_of(n: Expr, p: Expr) -> list[tuple[tuple[Expr, Expr], ...]]:
        return list(grid_taps(grid, (n, *_unravelled(p, tuple(out))), extents, a))

    def place(t: int) -> te.Tensor:
        def value(n: Expr, p: Expr) -> Expr:
            return _flat(tuple(i for i, _ in taps_of(n, p)[t]), extents)

        return te.compute((N, points), value, name=f"place{t}")

    def share(t: int) -> te.Tensor:
        return te.compute((N, points), lambda n, p: math.prod(w for _, w in taps_of(n, p)[t]), name=f"share{t}")  # fmt: skip

    count = (2 if a.mode == "linear" else 1) ** len(extents)
    taps = [(place(t), share(t)) for t in range(count)]

    def value(n: Expr, p: Expr, c: Expr) -> Expr:
        parts = [columns(n, s(n, p), c) * w(n, p) for s, w in taps]
        return sum(parts[1:], parts[0])

    read = te.compute((N, points, C), value, name="read")
    return te.compute(shape, lambda n, c, *at: read(n, _flat(at, tuple(out)), c), name="grid_sample")  # fmt: skip
