"""Winograd convolution F(m x m, r x r) on a device, in strict float32: three kernels, with the products between on tensor cores.

THE ALGORITHM   V[z, c, t] = B_T d B     z: one of alpha^2 planes, c: channel, t: tile of m x m results, of all images
                M[z, k, t] = sum over c of U[z, c, k] V[z, c, t]          `fragments.product`: float32 by three TF32 products
                y = epilogue(A_T M A)
WHEN            2-D, strides and dilations 1, one group, an axis of 2 to 7 taps; an axis with one tap stays as it is
COST            (alpha/m)^2 C K multiplications an output point instead of R S; V and M are written and read, 2.25 times data and result
                each for F(4, 3), 4 times for F(2, 3)
ACCURACY        that of `schedules.winograd`, whose transforms these are
SOURCE          Lavin and Gray, arXiv:1509.09308
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.combine import combine
from convc.schedules.cook_toom import factored
from convc.schedules.cuda import fragments
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.mma import too_old
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles
from convc.schedules.cuda.warp_tiles import warp_cycles, warp_tiles
from convc.schedules.layout import PLAIN, Halo
from convc.schedules.matrices import Matrices
from convc.schedules.plain_epilogue import finish, plain_extras
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties
from convc.schedules.winograd_tiles import Tiles, taps_of
from convc.target import Target

__all__ = ["ALGORITHM", "Winograd", "products_of"]

_M: Final = (2, 4)


class Winograd:
    """See the module's text."""

    name = "winograd"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        if (old := too_old(target)) is not None:
            return old
        if spec.dtype != "float32" or problem.accumulator != "float32":
            return Unsupported(
                f"element type must be float32, of sums too; got {spec.dtype}, {problem.accumulator}"
            )
        if spec.transposed or spec.rank != 2:
            return Unsupported(
                f"convolution must be 2-D and not transposed; got {spec.rank}-D{', transposed' * spec.transposed}"
            )
        if max(*spec.strides, *spec.dilations) > 1 or spec.group > 1:
            return Unsupported(
                f"strides, dilations and group must be 1; got {spec.strides}, {spec.dilations}, {spec.group}"
            )
        taps = [taps_of(spec, axis) for axis in (-2, -1)]
        if max(taps) < 2 or not Tiles.fit(spec, _M[0]):
            return Unsupported(
                f"filter must have an axis of 2 to 7 taps and none above; got {spec.kernel}"
            )
        return indexed(spec)

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the tile sizes that the model finds fastest."""
        return min(self.space(problem, target), key=lambda k: self.cycles(problem, target, k))

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield F(2, r) and F(4, r) with the legal tiles of their products."""
        spec = problem.spec
        for m in _M:
            if Tiles.fit(spec, m):
                tiles = Tiles.of(spec, m)
                pixels = spec.data[0] * tiles.rows * tiles.cols
                for tile in warp_tiles(
                    target.gpu,
                    spec.out_channels,
                    pixels,
                    "float32",
                    math=3,
                    exact=False,
                    together=4,
                ):
                    yield {"m": m, **tile}

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return clocks of the products, and of all that the three kernels read and write."""
        spec, gpu = problem.spec, target.gpu
        p = products_of(spec, knobs)
        V = 4 * p.products * p.padded_depth * p.padded_pixels
        M = 4 * p.products * p.padded_channels * p.padded_pixels
        U = 4 * p.products * p.padded_depth * p.padded_channels
        work = warp_cycles(
            gpu, p.products, p.padded_channels, p.padded_pixels, p.padded_depth, knobs, "float32"
        )
        multiplied = max(work, memory_cycles(gpu, U + V + M))
        result = 4 * math.prod(spec.output) * (1 + sum(s.name == "add" for s in problem.epilogue))
        transformed = memory_cycles(gpu, 4 * math.prod(spec.data) + V + M + result)
        return multiplied + transformed + 3 * LAUNCH_SECONDS * gpu.clock_hz

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return real arithmetic, memory of its own (U's growth, V and M) and expected error."""
        spec = problem.spec
        p = products_of(spec, knobs)
        tiles = Tiles.of(spec, knobs["m"])
        transformed = (spec.in_channels + spec.out_channels) * p.pixels * 12 * tiles.alphas
        flops = 2.0 * p.products * p.depth * p.channels * p.pixels + transformed
        own = p.padded_depth + p.padded_channels
        workspace = 4 * p.products * (own * p.padded_pixels + p.padded_depth * p.padded_channels)
        return Properties(flops, workspace, tiles.expected_error(p.depth))

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return plain layouts."""
        return Operands(PLAIN, Halo(), PLAIN)

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return U = G g G_T, computed in float64 and rounded once, as lanes load it."""
        tiles, p = Tiles.of(problem.spec, knobs["m"]), products_of(problem.spec, knobs)
        G, H = (np.array(a.transform.G, np.float64) for a in (tiles.high, tiles.wide))
        U = np.einsum("ir,kcrs,js->ijck", G, weight.astype(np.float64), H, optimize=True)
        whole = np.zeros((p.products, p.padded_depth, p.padded_channels), np.float32)
        whole[:, : p.depth, : p.channels] = U.reshape(p.products, p.depth, p.channels)
        return fragments.packed(whole)

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, U, extras..., result; blocks `d0 d1 d2 V`, those of `fragments.product`, `y0 y1 y2`."""
        spec = problem.spec
        tiles, p = Tiles.of(spec, knobs["m"]), products_of(spec, knobs)
        extras = plain_extras(problem)
        x = te.placeholder(spec.data, spec.dtype, name="data")
        V = _transformed(spec, tiles, p, x)
        wide = tiles.wide.transform.alpha
        U, M = fragments.product(
            p,
            lambda z, start, place, t: V[z // wide, z % wide, start + place, t],
            spec.dtype,
            "float32",
        )
        return [x, U, *extras, finish(_inverse(spec, tiles, M), problem, extras)]


def products_of(spec: ConvSpec, knobs: Knobs) -> Matrices:
    """Return the extents of the alpha^2 products."""
    tiles = Tiles.of(spec, knobs["m"])
    pixels = spec.data[0] * tiles.rows * tiles.cols

    def whole(extent: int, tile: int) -> int:
        return -(-extent // tile) * tile

    return Matrices(
        1, tiles.alphas, 1, spec.out_channels, spec.in_channels, pixels,
        whole(spec.out_channels, knobs["channels"]), whole(spec.in_channels, knobs["step"]), whole(pixels, knobs["pixels"]),
        knobs["step"], (), (),
    )  # fmt: skip


def _transformed(spec: ConvSpec, tiles: Tiles, p: Matrices, x: te.Tensor) -> te.Tensor:
    """Return V [alpha][alpha][channels][tiles], whole steps and tiles of the product, zero beyond the data."""
    high, wide = tiles.high, tiles.wide
    (B_h, _), (B_w, _) = factored(high.transform), factored(wide.transform)
    alphas = (high.transform.alpha, wide.transform.alpha)
    top, left = spec.pads[:2]
    shape = (p.padded_depth, p.padded_pixels, *alphas)

    def data(c: Any, t: Any, i: Any, j: Any) -> Any:
        n, row, col = t // (tiles.rows * tiles.cols), t // tiles.cols % tiles.rows, t % tiles.cols
        at = (high.point(row, i, 0, 0) - top, wide.point(col, j, 0, 0) - left)
        conditions = [c < p.depth] if p.padded_depth != p.depth else []
        conditions += [t < p.pixels] if p.padded_pixels != p.pixels else []
        for position, extent in zip(at, spec.data[2:], strict=True):
            conditions += [position >= 0, position < extent]
        return tirx.if_then_else(tirx.all(*conditions), x(n, c, *at), tirx.const(0, "float32"))

    d = te.compute(shape, data, name="d")
    d0 = te.compute(
        shape, lambda c, t, e, j: combine(B_h.inner, e, lambda i: d[c, t, i, j]), name="d0"
    )
    d1 = te.compute(
        shape, lambda c, t, e, j: combine(B_h.outer, e, lambda i: d0[c, t, i, j]), name="d1"
    )
    d2 = te.compute(
        shape, lambda c, t, e, f: combine(B_w.inner, f, lambda j: d1[c, t, e, j]), name="d2"
    )
    return te.compute(
        (*alphas, *shape[:2]),
        lambda e, f, c, t: combine(B_w.outer, f, lambda j: d2[c, t, e, j]),
        name="V",
    )


def _inverse(spec: ConvSpec, tiles: Tiles, M: te.Tensor) -> te.Tensor:
    """Return A_T M A in its places."""
    high, wide = tiles.high.transform, tiles.wide.transform
    (_, A_h), (_, A_w) = factored(high), factored(wide)
    N, K, _, _ = spec.output
    T = N * tiles.rows * tiles.cols

    def rows(name: str, extents: Sequence[int], function: Any) -> te.Tensor:
        return te.compute((K, T, *extents), function, name=name)

    y0 = rows("y0", (high.alpha, wide.alpha), lambda k, t, e, f: combine(A_h.inner, e, lambda i: M[i * wide.alpha + f, k, t]))  # fmt: skip
    y1 = rows("y1", (high.m, wide.alpha), lambda k, t, i, f: combine(A_h.outer, i, lambda e: y0[k, t, e, f]))  # fmt: skip
    # The schedule reads from here which results are a tile.
    y2 = te.compute((K, T, high.m, wide.alpha), lambda k, t, i, f: combine(A_w.inner, f, lambda g: y1[k, t, i, g]), name="y2", attrs={"convc.tile": [high.m, wide.m]})  # fmt: skip

    def result(n: Any, k: Any, p: Any, q: Any) -> Any:
        t = (n * tiles.rows + p // high.m) * tiles.cols + q // wide.m
        return combine(A_w.outer, q % wide.m, lambda f: y2[k, t, p % high.m, f])

    return te.compute(spec.output, result, name="unpack")


ALGORITHM = Winograd()
