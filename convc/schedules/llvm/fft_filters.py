"""Filters of `fft` that are known only at run time: the transforms of its `pack` on a CPU, on vectors of filters.

THE ALGORITHM   d[i, j] = w[k, c, i, j] / (t_h t_w / 2)                               of a part of the filter, zero beyond it
                S[i, h] = sum over j of d[i, j] exp(-2 pi i (2h + 1/2) j / t_w)       rows
                U[h, e] = conj(sum over i of S[i, h] exp(-2 pi i e i / t_h))          columns; planes as in `pack` of `schedules.fft`
COST            a transform of each filter, without what zeros beyond it would add, and of zeros between groups; U is written once
ACCURACY        float32, where `pack` has float64
"""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from convc.ir.types import Shape
from convc.schedules.algorithm import Problem
from convc.schedules.fft_stages import planes_of, three_filter, wave
from convc.schedules.overlap_save import Tiling
from convc.schedules.packing import Read, within
from convc.schedules.plan import Knobs
from convc.schedules.rank import raised
from convc.schedules.span import Span
from convc.schedules.spectrum import is_depthwise

__all__ = ["shape", "transformed"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def shape(problem: Problem, knobs: Knobs) -> Shape:
    """Return the shape of U: [vectors][t_w/2][t_h][planes][parts C][lanes], depthwise without channels."""
    spec = raised(problem.spec)
    tiling = Tiling.of(spec, knobs["t_h"], knobs["t_w"])
    bins, a, b = (tiling.bins, tiling.high.t), knobs["data_block"], knobs["block"]
    if is_depthwise(spec):
        return (-(-spec.out_channels // b), *bins, 2, b)
    wide = knobs["vectors"] * b
    channels = Span.of(spec, a, wide).blocks * a
    vectors = -(-spec.out_channels // wide)
    return (vectors, *bins, planes_of(knobs), tiling.parts * channels, wide)


def transformed(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    """Return U; blocks `d`, `S`, `U`, and `packed`, which is a copy of it."""
    spec = raised(problem.spec)
    tiling = Tiling.of(spec, knobs["t_h"], knobs["t_w"])
    high, wide, alone = tiling.high, tiling.wide, is_depthwise(spec)
    vectors, bins, t_h, planes, *channels, lanes = shape(problem, knobs)
    group_k, group_c = spec.out_channels // spec.group, spec.weight[1]
    padded = 1 if alone else channels[0] // tiling.parts
    span = None if spec.group == 1 or alone else Span.of(spec, knobs["data_block"], lanes)
    scale = tirx.const(1 / (t_h * bins), "float32")

    def tap(o: Expr, *at: Expr) -> Expr:
        *c, i, j, lane = at
        k, c = o * lanes + lane, c[0] if c else 0
        part, c = (c // padded, c % padded) if tiling.parts > 1 else (0, c)
        if span is not None:
            # Of the blocks that a vector reads, those of another group are multiplied by zeros.
            c = span.first(o) * span.block + c - k // group_k * group_c
        row, col = part // wide.parts * high.taps + i, part % wide.parts * wide.taps + j
        bounds = [
            (k, spec.out_channels, vectors * lanes),
            (c, group_c, padded if span is None else group_c + 1),
            (row, spec.kernel[0], high.parts * high.taps),
            (col, spec.kernel[1], wide.parts * wide.taps),
        ]
        value = within(bounds, read(k, c, (row, col)) * scale, spec.dtype)
        return value if span is None else tirx.if_then_else(c >= 0, value, tirx.const(0, spec.dtype))  # fmt: skip

    d = te.compute((vectors, *channels, high.taps, wide.taps, lanes), tap, name="d")
    j = te.reduce_axis((0, wide.taps), "j")

    def row(i: Expr, h: Expr, s: Expr, *at: Expr) -> Expr:
        *filters, lane = at
        return te.sum(d[(*filters, i, j, lane)] * wave((4 * h + 1) * j, 2 * wide.t, s), axis=[j])

    S = te.compute((high.taps, bins, 2, vectors, *channels, lanes), row, name="S")
    i, s = te.reduce_axis((0, high.taps), "i"), te.reduce_axis((0, 2), "s")

    def column(o: Expr, h: Expr, e: Expr, z: Expr, *at: Expr) -> Expr:
        angle = e * (t_h - i)
        mixed = three_filter(angle, t_h, s, z) if planes == 3 else wave(angle, t_h, s + z)
        return te.sum(S[(i, h, s, o, *at)] * mixed, axis=[i, s])

    U = te.compute(shape(problem, knobs), column, name="U")
    return te.compute(U.shape, lambda *at: U(*at), name="packed")
