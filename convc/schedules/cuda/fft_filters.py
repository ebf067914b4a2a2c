"""Filters of `fft` that are known only at run time: the transforms of its `pack` on a device, in the order in which its kernels read them.

THE ALGORITHM   d[i, j] = w[k, c, i, j] / (t_h t_w / 2)                               of a part of the filter, zero beyond it
                S[i, h] = sum over j of d[i, j] exp(-2 pi i (2h + 1/2) j / t_w)       rows
                U[h, e] = conj(sum over i of S[i, h] exp(-2 pi i e i / t_h))          columns
                three products: planes (im - re, im + re, re) of U
                four: the matrix ((re, im), (-im, re)) of U; element (v, r) is the real part of the columns of T = i^(r - v) S
                depthwise: (re, im) of U
COST            a filter's transform for each element that a product reads of it, with four products four times; each is written once
ACCURACY        float32, where `pack` has float64
SOURCE          as `cuda.fft`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.ir.types import Shape
from convc.schedules.algorithm import Problem
from convc.schedules.cuda import fragments
from convc.schedules.cuda.fft_model import Transforms, filters_together, products_of
from convc.schedules.fft_stages import three_filter, wave
from convc.schedules.overlap_save import Tiling
from convc.schedules.packing import Read, within
from convc.schedules.plan import Knobs
from convc.schedules.rank import raised
from convc.schedules.spectrum import is_depthwise

__all__ = ["shape", "transformed"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27
# An index of U -> the sum there.
Element: TypeAlias = Callable[..., Expr]


def shape(problem: Problem, knobs: Knobs) -> Shape:
    """Return the shape of U."""
    spec = raised(problem.spec)
    if is_depthwise(spec):
        tiling = Transforms.of(spec, knobs).tiling
        return (spec.out_channels, tiling.bins, tiling.high.t, 2)
    return fragments.shape(products_of(spec, knobs), spec.dtype)


def transformed(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    """Return U; blocks `d`, `S`, with four products `T`, and `packed`, which says how many filters a block of threads transforms."""
    spec = raised(problem.spec)
    tiling = Transforms.of(spec, knobs).tiling
    if is_depthwise(spec):
        element = _depthwise(read, spec, tiling)
    else:
        element = _dense(read, spec, tiling, knobs)
    attrs = {"convc.together": filters_together(spec, knobs)}
    return te.compute(shape(problem, knobs), element, name="packed", attrs=attrs)


def _depthwise(read: Read, spec: ConvSpec, tiling: Tiling) -> Element:
    """Return U [K][t_w/2][t_h][re, im]."""
    scale, t_h = _scale(tiling), tiling.high.t
    rows = te.compute(
        (spec.out_channels, *spec.kernel), lambda k, i, j: read(k, 0, (i, j)) * scale, name="d"
    )
    S, (i, s) = _rows(tiling, rows), _sums(tiling)
    return lambda k, h, e, u: te.sum(S[i, h, s, k] * wave(e * (t_h - i), t_h, s + u), axis=[i, s])


def _dense(read: Read, spec: ConvSpec, tiling: Tiling, knobs: Knobs) -> Element:
    """Return U as lanes load it, see `fragments`."""
    p, three, t_h = products_of(spec, knobs), knobs["products"] == 3, tiling.high.t
    high, wide, scale = tiling.high, tiling.wide, _scale(tiling)
    twice, C = 1 if three else 2, spec.in_channels
    channels, depths = p.padded_channels // twice, p.padded_depth // twice
    _, *places, _ = fragments.shape(p, spec.dtype)
    place_of = fragments.packed_at(spec.dtype, lambda z, depth, channel: (depth, channel))

    def tap(*at: Expr) -> Expr:
        *place, i, j = at
        depth, channel = place_of(0, *place, 0)
        c, k = depth // twice, channel // twice
        part = c // C
        row, col = part // wide.parts * high.taps + i, part % wide.parts * wide.taps + j
        bounds = [
            (c, C * tiling.parts, depths),
            (k, spec.out_channels, channels),
            (row, spec.kernel[0], high.parts * high.taps),
            (col, spec.kernel[1], wide.parts * wide.taps),
        ]
        return within(bounds, read(k, c % C, (row, col)) * scale, "float32")

    S = _rows(tiling, te.compute((*places, high.taps, wide.taps), tap, name="d"))
    i, s = _sums(tiling)
    if three:

        def element(z: Expr, *at: Expr) -> Expr:
            h, e, plane = z // (3 * t_h), z // 3 % t_h, z % 3
            mixed = three_filter(e * (t_h - i), t_h, s, plane)
            return te.sum(S[(i, h, s, *at[:-1])] * mixed, axis=[i, s])

    else:

        def turned(i: Expr, h: Expr, s: Expr, *place: Expr) -> Expr:
            depth, channel = place_of(0, *place, 0)
            same, other = S[(i, h, s, *place)], S[(i, h, 1 - s, *place)]
            quarters = channel % 2 - depth % 2
            # i (re, im) = (-im, re)
            sign = tirx.Select((quarters == 1) == (s == 0), -other, other)
            return tirx.Select(quarters == 0, same, sign)

        T = te.compute(S.shape, turned, name="T")

        def element(z: Expr, *at: Expr) -> Expr:
            h, e = z // t_h, z % t_h
            return te.sum(T[(i, h, s, *at[:-1])] * wave(e * (t_h - i), t_h, s), axis=[i, s])

    return element


def _scale(tiling: Tiling) -> Expr:
    return tirx.const(1 / (tiling.high.t * tiling.bins), "float32")


def _sums(tiling: Tiling) -> tuple[Expr, Expr]:
    """Return the axes that a column sums over."""
    return te.reduce_axis((0, tiling.high.taps), "i"), te.reduce_axis((0, 2), "s")


def _rows(tiling: Tiling, d: te.Tensor) -> te.Tensor:
    """Return S [row][t_w/2][re, im][filters...], the transforms of the rows of d [filters...][row][taps]."""
    *filters, taps_high, taps_wide = (int(n) for n in d.shape)
    j = te.reduce_axis((0, taps_wide), "j")

    def row(i: Expr, h: Expr, s: Expr, *place: Expr) -> Expr:
        return te.sum(d[(*place, i, j)] * wave((4 * h + 1) * j, 2 * tiling.wide.t, s), axis=[j])

    return te.compute((taps_high, tiling.bins, 2, *filters), row, name="S")
