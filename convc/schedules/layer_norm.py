"""Layer normalisation along the last axis on CPUs, a row at a time, in L1 from its sum to its result.

THE ALGORITHM   row: mean = sum x / n in lanes, rounded;  rest = sum (x - mean) / n,  squares = sum (x - mean)^2 in lanes
                factor = 1 / sqrt(squares / n - rest^2 + epsilon);  y = ((x - mean) factor - rest factor) scale + bias
WHEN            the last axis, of any length: the row is copied with zeros up to whole vectors, which the squares leave out
COST            four passes over a row in L1: 11 instructions a vector. In vectors of a divisor's length, 15 of 60, as the plain
                computation splits it, 3.4 ns an element
ACCURACY        sums of n / lanes and log2(lanes) additions, of differences from the mean but for the mean's own, whose rounding is what
                `rest` takes back: rows about 1000 with a deviation of 1 are within 2e-6, without it 9e-5
SOURCE          Chan, Golub & LeVeque, "Algorithms for computing the sample variance" (The American Statistician 1983), eq. 1.7
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te, tirx

from convc.schedules.lanes import tree

__all__ = ["compute"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def compute(
    x: te.Tensor, scale: te.Tensor, bias: te.Tensor, lanes: int, epsilon: float
) -> te.Tensor:
    """Return float32 data normalised along the last axis; `lanes` as `schedules.llvm.rows` splits it.

    Blocks: `padded` (where the last axis is no whole vectors), `sum`, `mean`, `differences`, `squares`, `rest`, `factor`, `shift` and
    `layer_norm`.
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

    def over_row(name: str, term: Callable[[Expr], Expr]) -> te.Tensor:
        """Return the sum in lanes of a function of the differences from the mean."""
        along = te.reduce_axis((0, steps), "step")

        def element(*i: Expr) -> Expr:
            place = along * lanes + i[-1]
            centred = row(*i[:-1], place) - mean(*i[:-1])
            if count % lanes:
                centred = tirx.Select(place < count, centred, zero)
            return te.sum(term(centred), axis=along)

        return te.compute((*kept, lanes), element, name=name)

    differences = over_row("differences", lambda centred: centred)
    squares = over_row("squares", lambda centred: centred * centred)
    rest = te.compute(kept, lambda *at: tree(_add, differences, at, lanes) * over, name="rest")

    def deviation(*at: Expr) -> Expr:
        variance = tree(_add, squares, at, lanes) * over - rest(*at) * rest(*at)
        # Equal elements leave the difference of two roundings.
        stable = tirx.max(variance, zero) + tirx.const(epsilon, "float32")
        return tirx.const(1, "float32") / tirx.sqrt(stable)

    factor = te.compute(kept, deviation, name="factor")
    shift = te.compute(kept, lambda *at: rest(*at) * factor(*at), name="shift")
    ones = (0,) * len(kept)

    def value(*i: Expr) -> Expr:
        at, j = i[:-1], i[-1]
        normed = (row(*i) - mean(*at)) * factor(*at) - shift(*at)
        return normed * scale(*ones, j) + bias(*ones, j)

    return te.compute(x.shape, value, name="layer_norm")


def _add(a: Expr, b: Expr) -> Expr:
    return a + b
