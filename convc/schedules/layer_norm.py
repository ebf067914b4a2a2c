"""Layer normalisation along the last axis on CPUs, a row at a time, in L1 from its sum to its result.

THE ALGORITHM   row: mean = sum x / n in lanes;  squares = sum (x - mean)^2 in lanes
                y = (x - mean) / sqrt(squares / n + epsilon) scale + bias
WHEN            the last axis, of any length: the row is copied with zeros up to whole vectors, which the squares leave out
COST            three passes over a row in L1: 8 instructions a vector. In vectors of a divisor's length, 15 of 60, as the plain
                computation splits it, 3.4 ns an element
ACCURACY        two sums of n / lanes and log2(lanes) additions; the variance is that of differences from the mean, in two passes
SOURCE          Chan, Golub & LeVeque, "Algorithms for computing the sample variance" (The American Statistician 1983), two passes
"""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from convc.schedules.lanes import tree

__all__ = ["compute"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def compute(
    x: te.Tensor, scale: te.Tensor, bias: te.Tensor, lanes: int, epsilon: float
) -> te.Tensor:
    """Return float32 data normalised along the last axis; `lanes` as `schedules.llvm.rows` splits it.

    Blocks: `padded` (where the last axis is no whole vectors), `sum`, `mean`, `squares`, `factor` and `layer_norm`.
    """
    *kept, count = (int(n) for n in x.shape)
    steps = -(-count // lanes)
    over = tirx.const(1.0 / count, "float32")
    zero = tirx.const(0, "float32")
    row = x
    if count % lanes:

        def padded(*i: Expr) -> Expr:
            return tirx.if_then_else(i[-1] < count, x(*i), zero)

        row = te.compute((*kept, steps * lanes), padded, name="padded")
    step = te.reduce_axis((0, steps), "step")
    sums = te.compute(
        (*kept, lanes),
        lambda *i: te.sum(row(*i[:-1], step * lanes + i[-1]), axis=step),
        name="sum",
    )
    mean = te.compute(kept, lambda *at: tree(_add, sums, at, lanes) * over, name="mean")
    along = te.reduce_axis((0, steps), "step")

    def square(*i: Expr) -> Expr:
        place = along * lanes + i[-1]
        centred = row(*i[:-1], place) - mean(*i[:-1])
        if count % lanes:
            centred = tirx.Select(place < count, centred, zero)
        return te.sum(centred * centred, axis=along)

    squares = te.compute((*kept, lanes), square, name="squares")

    def deviation(*at: Expr) -> Expr:
        variance = tree(_add, squares, at, lanes) * over
        return tirx.const(1, "float32") / tirx.sqrt(variance + tirx.const(epsilon, "float32"))

    factor = te.compute(kept, deviation, name="factor")
    ones = (0,) * len(kept)

    def value(*i: Expr) -> Expr:
        at, j = i[:-1], i[-1]
        return (row(*i) - mean(*at)) * factor(*at) * scale(*ones, j) + bias(*ones, j)

    return te.compute(x.shape, value, name="layer_norm")


def _add(a: Expr, b: Expr) -> Expr:
    return a + b
