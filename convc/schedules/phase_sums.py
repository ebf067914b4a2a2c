"""The sums of a transposed convolution's phases, on blocks of channels: `subpixel`, whatever is multiplied and whatever follows.

acc[n, k, f, i, lane] = sum over c, t of x[n, c, i + first(f) - t step] w[k, f, c, t, lane]       f: phase, i: result of a phase
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from tvm import te

from convc.ir.spec import ConvSpec
from convc.schedules.layout import Halo
from convc.schedules.phases import is_even, phases_of
from convc.schedules.plan import Knobs
from convc.schedules.span import Span

__all__ = ["PhaseSums", "phase_sums"]

Expr: TypeAlias = Any  # TVM's scalar expressions have no common public class in 0.27


@dataclass(frozen=True, slots=True)
class PhaseSums:
    """What a kernel of phases reads and adds up.

    Attributes:
        data, weight: what it reads.
        shape: of the result, (N, K/b, P/sh, sh, Q/sw, sw, b), which is NCHW[b]c with H and W split; where the phases have not all as
            many results, (N, K/b, P, Q, b).
        at: the sum at an index of the result.
        phase: the phase of an index of the result behind its channels, an index on each axis.
    """

    data: te.Tensor
    weight: te.Tensor
    shape: tuple[int, ...]
    at: Callable[..., Expr]
    phase: Callable[..., tuple[Expr, ...]]


def phase_sums(
    spec: ConvSpec,
    span: Span,
    border: Halo,
    knobs: Knobs,
    kinds: tuple[str, str],
    steps: int,
    multiply: Callable[[Expr, Expr], Expr] = lambda x, w: x * w,
) -> PhaseSums:
    """Return the sums; blocks `acc` and, where the phases have not all as many results, `phases`: they are written apart.

    Args:
        spec: of `phased`.
        span: the blocks of data that results read.
        border: around the data.
        knobs: `block`, `vectors`.
        kinds: element types of data and weight, as the kernel sees them.
        steps: elements of a block of data, as the kernel sees them.
        multiply: the product of two elements, in the type of the sums.
    """
    b, v, rank, phases = knobs["block"], knobs["vectors"], spec.rank, phases_of(spec)
    N, K, *points = spec.output
    blocks, even = -(-K // b), is_even(spec)
    vectors = -(-blocks // v)
    extents = border.around(spec.data[2:])
    x = te.placeholder((N, span.all_blocks, *extents, steps), kinds[0], name="data")
    taps, counts = [p.taps for p in phases], [p.count for p in phases]
    w = te.placeholder(
        (vectors, *spec.strides, span.blocks, *taps, steps, v * b), kinds[1], name="weight"
    )
    if even:
        points = [extent for pair in zip(counts, spec.strides, strict=True) for extent in pair]
    co, ci = te.reduce_axis((0, span.blocks), "co"), te.reduce_axis((0, steps), "ci")
    r = [te.reduce_axis((0, p.taps), f"r{i}") for i, p in enumerate(phases)]

    def product(n: Expr, k: Expr, *at: Expr) -> Expr:
        f, i, lane = at[:rank], at[rank : 2 * rank], at[-1]
        axes = zip(phases, i, f, r, strict=True)
        position = [own.point(at, phase, tap) for own, at, phase, tap in axes]
        value = multiply(x(n, span.first(k) + co, *position, ci), w(k, *f, co, *r, ci, lane))
        return te.sum(value, axis=[co, *r, ci])

    acc = te.compute((N, vectors, *spec.strides, *counts, v * b), product, name="acc")
    if not even:
        acc = te.compute(acc.shape, lambda *i: acc(*i), name="phases")

    def phase(at: tuple[Expr, ...]) -> tuple[Expr, ...]:
        if even:
            return at[1::2]
        return tuple(p % s for p, s in zip(at, spec.strides, strict=True))

    def place(at: tuple[Expr, ...]) -> tuple[Expr, ...]:
        if even:
            return at[::2]
        return tuple(p // s for p, s in zip(at, spec.strides, strict=True))

    def result(n: Expr, k: Expr, *at: Expr) -> Expr:
        own = at[:-1]
        return acc(n, k // v, *phase(own), *place(own), k % v * b + at[-1])

    return PhaseSums(x, w, (N, blocks, *points, b), result, phase)
