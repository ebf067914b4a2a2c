"""FFT convolution by tiles on a device, in strict float32: the tiles, transforms and bins of `schedules.fft` on plain tensors.

THE ALGORITHM   dense: three kernels
                V[h, e, plane, c, t] = F x       (h, e): one of t_h t_w / 2 complex bins, c: channel and part, t: tile of all images
                M = U V, for each bin the sum over c, on tensor cores (`fragments.product`: float32 by three TF32 products):
                    3 products: planes (re, im, re + im), each by itself
                    4 products: one matrix ((Ur, -Ui), (Ui, Ur)) times (Vr, Vi), channels and results twice as many
                y = epilogue(F* M)
                depthwise: one kernel, transform, product and inverse of a tile in shared memory
WHEN            1-D, 2-D, strides and dilations 1, one group with filters of any size, or depthwise up to 64 taps an axis;
                weights of run time: a kernel transforms them before, see `fft_filters`
COST            as `schedules.fft`; V and M are written and read, for 5 x 5 in tiles of 16 points 2.7 times data and result with three
                products a bin, 1.8 times with four
ACCURACY        that of `schedules.fft`, whose transforms these are
SOURCE          Vasilache et al., arXiv:1412.7580 (tiles in shared memory)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.cuda import fragments
from convc.schedules.cuda.fft_model import (
    Transforms,
    dense_cycles,
    depthwise_cycles,
    filter_cycles,
    groups_of,
    products_of,
    tiles_together,
)
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.mma import too_old
from convc.schedules.cuda.warp_tiles import warp_tiles
from convc.schedules.fft_stages import three_forward, three_inverse, wave
from convc.schedules.layout import PLAIN, Halo
from convc.schedules.overlap_save import LENGTHS, Tiling, lengths
from convc.schedules.plain_epilogue import finish, plain_extras
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties
from convc.schedules.rank import raised, raised_weight
from convc.schedules.requirements import packed_images
from convc.schedules.spectrum import filter_parts, is_depthwise, spectrum
from convc.target import Target

__all__ = ["ALGORITHM", "Fft"]

# As `schedules.fft`.
_ERROR: Final = 4e-7


class Fft:
    """See the module's text."""

    name = "fft"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        if spec.dtype != "float32":
            return Unsupported(f"element type must be float32; got {spec.dtype}")
        refusal = packed_images(problem, unit_strides=True, unit_dilations=True)
        if refusal is not None:
            return refusal
        if spec.is_pointwise:
            return Unsupported("filter must have more than one tap; got (1, 1)")
        if is_depthwise(spec):
            if max(spec.kernel) > LENGTHS[-1]:
                return Unsupported(
                    f"depthwise, the filter must have at most {LENGTHS[-1]} taps an axis; got {spec.kernel}"
                )
            return indexed(spec)
        if spec.group > 1:
            return Unsupported(
                f"group must be 1, or as many as channels in and out; got {spec.group}"
            )
        return too_old(target) or indexed(spec)

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return lengths, products a bin and tile of the products that the model finds fastest, with what filters of run time take."""

        def cycles(knobs: Knobs) -> float:
            own = self.cycles(problem, target, knobs)
            return own if problem.constant_weight else own + filter_cycles(problem, target.gpu, knobs)  # fmt: skip

        return min(self.space(problem, target), key=cycles)

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every length; dense, by three and four products and every tile that they may have."""
        spec = raised(problem.spec)
        for t_h, t_w in lengths(spec):
            if is_depthwise(spec):
                yield {"t_h": t_h, "t_w": t_w}
                continue
            pixels = spec.data[0] * Tiling.of(spec, t_h, t_w).tiles
            for products in (3, 4):
                channels = spec.out_channels * (2 if products == 4 else 1)
                for tile in warp_tiles(
                    target.gpu, channels, pixels, "float32", math=3, exact=False, together=4
                ):
                    yield {"t_h": t_h, "t_w": t_w, "products": products, **tile}

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return clocks of transforms and products, and of all that the kernels read and write."""
        cycles = depthwise_cycles if is_depthwise(problem.spec) else dense_cycles
        return cycles(problem, target.gpu, knobs)

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return real arithmetic, memory of its own (U's growth, V and M) and expected error."""
        spec, made = problem.spec, Transforms.of(problem.spec, knobs)
        tiles, bins = spec.data[0] * made.tiling.tiles, made.bins
        C, K = spec.in_channels * made.tiling.parts, spec.out_channels
        moved = float(tiles * (C * made.forward + K * made.inverse))
        if is_depthwise(spec):
            grown = 4 * (2 * bins * K - math.prod(spec.weight))
            own = max(0, grown) if problem.constant_weight else 8 * bins * K
            return Properties(moved + 8 * bins * K * tiles, own, _ERROR)
        p = products_of(spec, knobs)
        flops = moved + 2.0 * knobs["products"] * bins * C * K * tiles
        own = p.padded_depth * p.padded_pixels + p.padded_channels * p.padded_pixels
        U = p.padded_depth * p.padded_channels
        return Properties(flops, 4 * p.products * (own + U), _ERROR)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return plain layouts."""
        return Operands(PLAIN, Halo(), PLAIN)

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return U, computed in float64 and rounded once: dense as lanes load it, depthwise [K][t_w/2][t_h][Ur, Ui]."""
        spec, weight = raised(problem.spec), raised_weight(weight)
        tiling = Transforms.of(spec, knobs).tiling
        if is_depthwise(spec):
            return np.stack(spectrum(weight[:, 0], tiling), -1).astype(np.float32)
        p, (K, C) = products_of(spec, knobs), weight.shape[:2]
        whole = np.zeros((p.products, p.padded_depth, p.padded_channels), np.float32)
        for part, taps in enumerate(filter_parts(weight, tiling)):
            # A filter at a time: all in float64 would be several times the result.
            for k in range(K):
                re, im = (plane.reshape(C, -1).T for plane in spectrum(taps[k], tiling))
                own = slice(part * C, part * C + C)
                if knobs["products"] == 3:
                    whole[:, own, k] = np.stack((im - re, im + re, re), 1).reshape(-1, C)
                    continue
                # Rows (Vr, Vi) of a channel, columns (re, im) of a result.
                blocks = np.stack((np.stack((re, im), -1), np.stack((-im, re), -1)), -2)
                rows = slice(2 * part * C, 2 * (part + 1) * C)
                whole[:, rows, 2 * k : 2 * k + 2] = blocks.reshape(-1, 2 * C, 2)
        return fragments.packed(whole)

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, U, extras..., result; blocks `d S V`, those of `fragments.product`, `Z Y`; depthwise `d S Z Y`."""
        spec = raised(problem.spec)
        tiling = Transforms.of(spec, knobs).tiling
        x = te.placeholder(problem.spec.data, spec.dtype, name="data")
        extras = plain_extras(problem)
        if is_depthwise(spec):
            tiles = spec.data[0] * tiling.tiles
            S = _rows(problem.spec, tiling, (spec.in_channels, tiles), (spec.in_channels, tiles), x)
            U, Z = _bins(tiling, S)
        else:
            U, Z = _dense(problem.spec, tiling, knobs, x)
        y = _inverse(problem.spec, tiling, Z, groups_of(problem.spec, knobs))
        return [x, U, *extras, finish(y, problem, extras)]


def _rows(
    spec: ConvSpec, tiling: Tiling, whole: tuple[int, int], real: tuple[int, int], x: te.Tensor
) -> te.Tensor:
    """Return S [t_h][t_w/2][re, im][channels and parts][tiles], the rows' transforms; `d`, their data, zero outside the image.

    Args:
        spec: the convolution, 1-D or 2-D.
        tiling: its tiles.
        whole: channels and tiles, padded.
        real: without padding.
        x: the data.
    """
    flat, rank = raised(spec), spec.rank
    high, wide = tiling.high, tiling.wide

    def data(c: Any, t: Any, i: Any, j: Any) -> Any:
        n, row, col = t // tiling.tiles, t // wide.tiles % high.tiles, t % wide.tiles
        part, channel = (c // flat.in_channels, c % flat.in_channels) if tiling.parts > 1 else (0, c)  # fmt: skip
        at = (
            high.point(row, i, part // wide.parts) - flat.pads[0],
            wide.point(col, j, part % wide.parts) - flat.pads[1],
        )
        conditions = [v < end for v, end, padded in zip((c, t), real, whole, strict=True) if padded > end]  # fmt: skip
        for axis, position, extent in zip((high, wide), at, flat.data[2:], strict=True):
            if flat.pads[0 if axis is high else 1] > 0:
                conditions.append(position >= 0)
            if axis.reach - flat.pads[0 if axis is high else 1] > extent:
                conditions.append(position < extent)
        element = x(n, channel, *at[2 - rank :])
        if not conditions:
            return element
        return tirx.if_then_else(tirx.all(*conditions), element, tirx.const(0, "float32"))

    d = te.compute((*whole, high.t, wide.t), data, name="d")
    j = te.reduce_axis((0, wide.t), "j")
    return te.compute(
        (high.t, tiling.bins, 2, *whole),
        lambda i, h, s, c, t: te.sum(
            d[c, t, i, j] * wave((4 * h + 1) * j, 2 * wide.t, s), axis=[j]
        ),
        name="S",
    )


def _dense(
    spec: ConvSpec, tiling: Tiling, knobs: Knobs, x: te.Tensor
) -> tuple[te.Tensor, te.Tensor]:
    """Return U and Z [t_w/2][m_h][re, im][K][tiles], by way of V and M."""
    p, flat = products_of(spec, knobs), raised(spec)
    t_h, three = tiling.high.t, knobs["products"] == 3
    planes = 3 if three else 2
    channels = p.padded_depth if three else p.padded_depth // 2
    real = (flat.in_channels * tiling.parts, p.pixels)
    S = _rows(spec, tiling, (channels, p.padded_pixels), real, x)
    i, s = te.reduce_axis((0, t_h), "i"), te.reduce_axis((0, 2), "s")

    def forward(h: Any, e: Any, z: Any, c: Any, t: Any) -> Any:
        at = (e * (t_h - i), t_h)
        return te.sum(S[i, h, s, c, t] * (three_forward(*at, s, z) if three else wave(*at, s - z)), axis=[i, s])  # fmt: skip

    outer, T = (tiling.bins, t_h), p.padded_pixels
    # The schedule reads from here how many tiles a block transforms.
    attrs = {"convc.together": tiles_together(tiling, T)}
    if three:
        V = te.compute((*outer, 3, channels, T), forward, name="V", attrs=attrs)
    else:
        # The products' sums run over pairs.
        V = te.compute((*outer, channels, 2, T), lambda h, e, c, z, t: forward(h, e, z, c, t), name="V", attrs=attrs)  # fmt: skip

    def element(z: Any, start: Any, place: Any, t: Any) -> Any:
        c = start + place
        if three:
            return V[z // (3 * t_h), z // 3 % t_h, z % 3, c, t]
        return V[z // t_h, z % t_h, c // 2, c % 2, t]

    U, M = fragments.product(p, element, "float32", "float32")
    e, z = te.reduce_axis((0, t_h), "e"), te.reduce_axis((0, planes), "z")

    def inverse(h: Any, at: Any, part: Any, k: Any, t: Any) -> Any:
        if three:
            return te.sum(M[(h * t_h + e) * 3 + z, k, t] * three_inverse(e * at, t_h, z, part), axis=[e, z])  # fmt: skip
        return te.sum(M[h * t_h + e, 2 * k + z, t] * wave(e * at, t_h, z - part), axis=[e, z])

    shape = (tiling.bins, tiling.high.m, 2, spec.out_channels, p.pixels)
    return U, te.compute(shape, inverse, name="Z")


def _bins(tiling: Tiling, S: te.Tensor) -> tuple[te.Tensor, te.Tensor]:
    """Return U and Z of a depthwise convolution: columns there, times U, and back."""
    t_h, (channels, tiles) = tiling.high.t, (int(n) for n in S.shape[-2:])
    U = te.placeholder((channels, tiling.bins, t_h, 2), S.dtype, name="U")
    e, u = te.reduce_axis((0, t_h), "e"), te.reduce_axis((0, 2), "u")
    i, v = te.reduce_axis((0, t_h), "i"), te.reduce_axis((0, 2), "v")
    Z = te.compute(
        (tiling.bins, tiling.high.m, 2, channels, tiles),
        lambda h, p, s, k, t: te.sum(
            S[i, h, v, k, t] * U[k, h, e, u] * wave(e * (p - i + t_h), t_h, u + v - s),
            axis=[e, u, i, v],
        ),
        name="Z",
    )
    return U, Z


def _inverse(spec: ConvSpec, tiling: Tiling, Z: te.Tensor, groups: tuple[int, int]) -> te.Tensor:
    """Return the rows' transforms back, in their places; the schedule reads from `Y` which results are a tile, a block's and in all."""
    high, wide = tiling.high, tiling.wide
    K, tiles = (int(n) for n in Z.shape[-2:])
    h, s = te.reduce_axis((0, tiling.bins), "h"), te.reduce_axis((0, 2), "s")
    Y = te.compute(
        (K, tiles, high.m, wide.m),
        lambda k, t, p, q: te.sum(
            Z[h, p, s, k, t] * wave((4 * h + 1) * q, 2 * wide.t, s), axis=[h, s]
        ),
        name="Y",
        attrs={"convc.tile": [high.m, wide.m, *groups]},
    )

    def placed(n: Any, k: Any, *at: Any) -> Any:
        p, q = (0, *at)[-2:]
        t = (n * high.tiles + p // high.m) * wide.tiles + q // wide.m
        return Y[k, t, p % high.m, q % wide.m]

    return te.compute(spec.output, placed, name="unpack")


ALGORITHM = Fft()
