"""Sums along the last axis on CPUs, a row at a time: in lanes, then over the lanes.

THE ALGORITHM   row: s[lane] = sum over steps of x[step lanes + lane];  y = (s half by half + what is behind the whole vectors) factor
WHEN            the last axis alone, from 8 to 16384 elements
COST            a load and an addition a vector, log2(lanes) shuffles and additions a row; vectors of neighbouring rows, as the plain
                computation has it, are put together from single elements, at 2 to 4 cycles each
ACCURACY        sums of n / lanes and log2(lanes) additions, and of up to `lanes` - 1 behind them
"""

from __future__ import annotations

from typing import Any, Final

from tvm import te, tirx

from convc.ir.types import Shape

__all__ = ["LONGEST", "compute", "lanes_of"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27

# Longer rows are summed in more parts than a vector has lanes, else their chains round too often.
LONGEST: Final = 16384


def lanes_of(count: int, widest: int) -> int:
    """Return the lanes of a row's vectors: half as many as the widest have where a row is whole vectors then, and only then.

    Example:
        >>> lanes_of(100, 16), lanes_of(24, 16), lanes_of(9, 16)
        (16, 8, 8)
    """
    half = widest // 2
    return half if count < widest or (count % widest and not count % half) else widest


def compute(x: te.Tensor, shape: Shape, lanes: int, factor: float) -> te.Tensor:
    """Return `factor` times the sums along the last axis, of `shape`: with an axis of one element for it, or without.

    Blocks: `sum` and the result.
    """
    *kept, count = (int(n) for n in x.shape)
    steps, behind = divmod(count, lanes)
    step = te.reduce_axis((0, steps), "step")
    sums = te.compute(
        (*kept, lanes),
        lambda *i: te.sum(x(*i[:-1], step * lanes + i[-1]), axis=step),
        name="sum",
    )

    def value(*i: Expr) -> Expr:
        at = i[: len(kept)]
        # In halves, which LLVM adds as vectors: neighbours in pairs took 1.2 times as long.
        terms = [sums(*at, lane) for lane in range(lanes)]
        while len(terms) > 1:
            half = len(terms) // 2
            terms = [p + q for p, q in zip(terms[:half], terms[half:], strict=True)]
        total = terms[0]
        for k in range(count - behind, count):
            total = total + x(*at, k)
        return total if factor == 1 else total * tirx.const(factor, x.dtype)

    return te.compute(shape, value, name="row_sum")
