"""Group normalisation of images in blocks of channels or in plain order, read once from memory for its statistics and once for its result.

THE ALGORITHM   x' = x - p, p a group's first element; chunk of rows, by channel: sum s of x' and, about its own mean, squares
                q = sum (x' - s / n)^2, while the chunk is in a cache
                group: mean m = sum s / N;  variance = (sum q + n sum (s / n - m)^2) / N, over chunks, then lanes, then channels
                y = (x - p - m) (scale / sqrt(variance + epsilon)) + bias, and the epilogue
WHEN            any number of groups that divides the channels, 1 to 3 axes of space; vectors are blocks of channels, or run along rows
COST            two passes over the data and one over the result
ACCURACY        sums of differences from p, whatever the mean is: an image of one value is 0 exactly before the bias; chains as long as a
                chunk, as chunks are many, as a group has channels
SOURCE          Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979), eq. 2.1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from tvm import te, tirx

from convc.ir.epilogue import Step
from convc.ir.types import Shape
from convc.schedules.divisors import greatest_divisor
from convc.schedules.scalar import apply_steps, once

__all__ = ["STAGES", "compute"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27

# The stages that a schedule keeps, in order.
STAGES: Final = (
    "sum", "squares", "plane_sum", "channel_sum", "group_sum", "plane_squares", "channel_squares", "group_squares",
    "shift", "origin", "factor",
)  # fmt: skip

_LANES: Final = 16
# Chains side by side hide the latency of an addition.
_SIDE: Final = 4
# Elements of a chunk of one block: half of an L1 cache of 32 KiB.
_CHUNK: Final = 4096


def compute(
    x: te.Tensor,
    scale: te.Tensor,
    bias: te.Tensor,
    shape: Shape,
    groups: int,
    epsilon: float,
    epilogue: Sequence[Step],
    block: int,
) -> te.Tensor:
    """Return the normalised image of `shape` (N, C, ...): (N, C/block, ..., block) where there is a block, scale and bias likewise."""
    (N, C, *area), dtype = shape, x.dtype
    planes, per, count = int(x.shape[1]), C // groups, C // groups * math.prod(area)
    lanes = block or greatest_divisor(area[-1], _LANES)
    # Steps along each axis of space: of the last one, `side` chains of `lanes` elements each, or of points of a block.
    extents = [*area[:-1], area[-1] if block else area[-1] // lanes]
    side = greatest_divisor(extents[-1], _SIDE)
    extents[-1] //= side
    most = max(1, _CHUNK // (math.prod(extents[1:]) * side * lanes))
    rows = greatest_divisor(extents[0], min(most, extents[0]))
    chunks, points = extents[0] // rows, rows * math.prod(extents[1:]) * side

    def group(c: Expr, lane: Expr) -> Expr:
        # Lanes beyond the last channel have a group, too; their scale and bias are zeros.
        return tirx.min(c * block + lane, C - 1) // per if block else c // per

    def element(place: tuple[Expr, ...], steps: Sequence[Expr]) -> Expr:
        n, c, chunk, j, lane = place
        at = [chunk * rows + steps[0], *steps[1:]]
        last = at[-1] * side + j
        return x(n, c, *at[:-1], last, lane) if block else x(n, c, *at[:-1], last * lanes + lane)

    def steps_of() -> list[Any]:
        return [te.reduce_axis((0, e), f"s{i}") for i, e in enumerate([rows, *extents[1:]])]

    def over(value: Expr, divisor: int) -> Expr:
        return value * tirx.const(1.0 / divisor, dtype)

    def pivot(n: Expr, c: Expr, lane: Expr) -> Expr:
        first, zeros = group(c, lane) * per, [0] * len(area)
        return x(n, first // block, *zeros, first % block) if block else x(n, first, *zeros)

    each = points // side  # terms of one part
    columns = (N, planes, block or 1)
    parts, s, t = (N, planes, chunks, side, lanes), steps_of(), steps_of()

    def about(place: tuple[Expr, ...]) -> Expr:
        return pivot(place[0], place[1], place[4])

    total = te.compute(parts, lambda *i: te.sum(element(i, s) - about(i), axis=s), name="sum")

    def square(*i: Expr) -> Expr:
        centred = element(i, t) - about(i) - over(total(*i), each)
        return te.sum(centred * centred, axis=t)

    squares = te.compute(parts, square, name="squares")

    def over_group(name: str, term: Callable[[tuple[Expr, ...], Expr], Expr]) -> te.Tensor:
        """Return the sum over a group's parts of `term(place of a part, group)`: over chunks, what lies side by side, channels."""
        chunk = te.reduce_axis((0, chunks), "chunk")

        def plane(n: Expr, c: Expr, j: Expr, lane: Expr) -> Expr:
            return te.sum(term((n, c, chunk, j, lane), group(c, lane)), axis=chunk)

        by_plane = te.compute((N, planes, side, lanes), plane, name=f"plane_{name}")
        inner = [te.reduce_axis((0, m)) for m in ((side,) if block else (side, lanes))]

        def channel(n: Expr, c: Expr) -> Expr:
            place = (c // block, inner[0], c % block) if block else (c, *inner)
            return te.sum(by_plane(n, *place), axis=inner)

        by_channel = te.compute((N, C), channel, name=f"channel_{name}")
        k = te.reduce_axis((0, per), "k")
        return te.compute(
            (N, groups),
            lambda n, g: te.sum(by_channel(n, g * per + k), axis=k),
            name=f"group_{name}",
        )

    group_sum = over_group("sum", lambda place, g: total(*place))

    def spread(place: tuple[Expr, ...], g: Expr) -> Expr:
        apart = over(total(*place), each) - over(group_sum(place[0], g), count)
        return squares(*place) + apart * apart * tirx.const(float(each), dtype)

    group_squares = over_group("squares", spread)

    def column(values: te.Tensor, c: Expr, lane: Expr) -> Expr:
        zeros = [0] * len(area)
        return values(0, c, *zeros, lane) if block else values(0, c, *zeros)

    shift = once(
        columns,
        lambda n, c, lane: over(group_sum(n, group(c, lane)), count),
        "shift",
    )

    origin = once(columns, pivot, "origin")

    def by_channel(n: Expr, c: Expr, lane: Expr) -> Expr:
        variance = over(group_squares(n, group(c, lane)), count) + tirx.const(epsilon, dtype)
        return column(scale, c, lane) / tirx.sqrt(variance)

    factor = once(columns, by_channel, "factor")

    def value(*i: Expr) -> Expr:
        n, c, lane = i[0], i[1], i[-1] if block else 0
        return (x(*i) - origin(n, c, lane) - shift(n, c, lane)) * factor(n, c, lane) + column(
            bias, c, lane
        )

    y = te.compute(x.shape, value, name="group_norm")
    return apply_steps(y, epilogue, (), lambda y, b: y)
