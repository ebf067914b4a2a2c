"""Softmax and its logarithm on CPUs, a row at a time, in L1 from its greatest element to its result.

THE ALGORITHM   row: greatest element m in lanes, then over them; e[j] = exp(x[j] - m) by a polynomial, summed in lanes; y = e / sum, as one
                division and a product for each element, or  y = x - m - log(sum)
WHEN            along the last axis, of any length: the row is copied with -inf up to whole vectors, which exp makes 0; along any other:
                as many neighbouring rows as a vector has lanes, side by side, long sums in parts
COST            20 instructions a vector; 1 cycle an element. TOPI's stages of their own call the C library for each exponential, 12 ns.
                Across lanes 0.5 to 2.1 ns an element where columns have 300 to 4096 (Zen 4; TOPI 4.9 to 8.5)
ACCURACY        the polynomial's 2e-9, roundings of one product, and a sum of n / lanes and log2(lanes) additions; across lanes of n,
                from 257 terms on of 2 sqrt(n); exponentials below 1.2e-38 are 0
SOURCE          Blanchard, Higham & Higham, "Accurately computing the log-sum-exp and softmax functions" (IMA J. Numer. Anal. 2021), eq. 1.6
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from tvm import te, tirx

from convc.schedules.extreme import greatest, lowest
from convc.schedules.lanes import tree
from convc.schedules.logistic import exp_of_minus

__all__ = ["compute"]

# Terms of a lane's sum in one chain: 3137 in one were wrong by 1.3e-5, in parts of 56 by 1.9e-7.
_LONG_SUM: Final = 256

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def compute(x: te.Tensor, axis: int, lanes: int, *, log: bool) -> te.Tensor:
    """Return the softmax of float32 data along an axis, or its logarithm; `lanes` as `schedules.llvm.rows` splits the last axis.

    Blocks: `padded` (where the last axis is no whole vectors), `greatest`, `top`, `exp`, `sum`, `total` and `softmax`; of long sums across
    lanes `parts`, `rest` and `both`, too.
    """
    if axis == len(x.shape) - 1:
        return _along_lanes(x, lanes, log)
    return _across_lanes(x, axis, log)


def _result(x: Expr, e: Expr, top: Expr, factor: Expr, log: bool) -> Expr:
    return x - top - factor if log else e * factor


def _factor(total: Expr, log: bool) -> Expr:
    return tirx.log(total) if log else tirx.const(1, "float32") / total


def _along_lanes(x: te.Tensor, lanes: int, log: bool) -> te.Tensor:
    *kept, count = (int(n) for n in x.shape)
    steps = -(-count // lanes)
    row = x
    if count % lanes:

        def padded(*i: Expr) -> Expr:
            return tirx.if_then_else(i[-1] < count, x(*i), lowest("float32"))

        row = te.compute((*kept, steps * lanes), padded, name="padded")
    step = te.reduce_axis((0, steps), "step")
    parts = te.compute(
        (*kept, lanes),
        lambda *i: greatest(row(*i[:-1], step * lanes + i[-1]), axis=step),
        name="greatest",
    )
    top = te.compute(kept, lambda *at: tree(tirx.max, parts, at, lanes), name="top")
    e = te.compute(row.shape, lambda *i: exp_of_minus(top(*i[:-1]) - row(*i)), name="exp")
    along = te.reduce_axis((0, steps), "step")
    sums = te.compute(
        (*kept, lanes),
        lambda *i: te.sum(e(*i[:-1], along * lanes + i[-1]), axis=along),
        name="sum",
    )
    total = te.compute(
        kept, lambda *at: _factor(tree(lambda a, b: a + b, sums, at, lanes), log), name="total"
    )
    return te.compute(
        x.shape,
        lambda *i: _result(row(*i), e(*i), top(*i[:-1]), total(*i[:-1]), log),
        name="softmax",
    )


def _sums(e: te.Tensor, axis: int, at: Callable[[tuple[Expr, ...], Expr], tuple[Expr, ...]]) -> te.Tensor:  # fmt: skip
    """Return the sums along an axis; of a long one those of about as many parts as each has terms, and of what is left."""
    count = int(e.shape[axis])
    kept = [int(n) for i, n in enumerate(e.shape) if i != axis]

    def along(x: te.Tensor, steps: int, name: str, begin: int = 0) -> te.Tensor:
        k = te.reduce_axis((0, steps), "k")
        return te.compute(kept, lambda *i: te.sum(x(*at(i, begin + k)), axis=k), name=name)

    if count <= _LONG_SUM:
        return along(e, count, "sum")
    parts = math.isqrt(count)
    steps, rest = divmod(count, parts)
    step = te.reduce_axis((0, steps), "step")

    def part(*i: Expr) -> Expr:
        return te.sum(e(*at((*i[:axis], *i[axis + 1 :]), step * parts + i[axis])), axis=step)

    whole = along(te.compute((*kept[:axis], parts, *kept[axis:]), part, name="parts"), parts, "sum")
    if not rest:
        return whole
    left = along(e, rest, "rest", steps * parts)
    return te.compute(kept, lambda *i: whole(*i) + left(*i), name="both")


def _across_lanes(x: te.Tensor, axis: int, log: bool) -> te.Tensor:
    kept = [int(n) for i, n in enumerate(x.shape) if i != axis]

    def at(i: tuple[Expr, ...], k: Expr) -> tuple[Expr, ...]:
        return (*i[:axis], k, *i[axis:])

    def rest(i: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return (*i[:axis], *i[axis + 1 :])

    k = te.reduce_axis((0, x.shape[axis]), "k")
    top = te.compute(kept, lambda *i: greatest(x(*at(i, k)), axis=k), name="greatest")
    e = te.compute(x.shape, lambda *i: exp_of_minus(top(*rest(i)) - x(*i)), name="exp")
    sums = _sums(e, axis, at)
    total = te.compute(kept, lambda *i: _factor(sums(*i), log), name="total")
    return te.compute(
        x.shape,
        lambda *i: _result(x(*i), e(*i), top(*rest(i)), total(*rest(i)), log),
        name="softmax",
    )
