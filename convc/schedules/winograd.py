"""Winograd convolution F(m x m, r x r): fewer multiplications for small filters.

THE ALGORITHM   Y = A_T [ (G g G_T) . (B_T d B) ] A          (Lavin and Gray 2015, equation 8), per tile of m x m results
                U = G g G_T at compile time; V = B_T d B; M[a, b] = U[a, b] V[a, b] summed over channels: alpha^2 matrix products;
                every transform in two factors (even and odd parts of the point pairs), see `cook_toom.factored`
                An axis with a one-tap filter (1x7, 3x1) is left untransformed: m = 1 there.
                Strided, dilated and transposed convolutions are several of stride 1, see `winograd_tiles`. 3-D: slices are transformed
                in two dimensions, the depth taps are summed with the channels, and a V serves several slices of results.
WHEN            an axis of 2 to 7 taps a phase, not both strided and dilated; transposed: 1-D, 2-D, dilations 1, the output a multiple
                of the strides, one above 1 (of stride 1 it is a convolution, see `dual`)
COST            (alpha/m)^2 C K multiplications an output point instead of r^2, tiles at the edge computed whole. Stride s: of s alpha
                for R m on an axis: 3x3 with stride 2 gains nothing, 5x5 does.
                One core of an Intel Xeon (Emerald Rapids), direct -> this: 3x3x3, 64 channels 16 x 56 x 56, 66 -> 26 ms; 3x3 with
                dilation 12, 512 -> 256 at 65 x 65, 71 -> 31 ms; 5x5 with stride 2, 64 -> 128 at 56 x 56, 1.86 -> 1.12 ms; 5x5 in two
                groups, 96 -> 96 at 27 x 27, 2.57 -> 0.79 ms; 4x4 transposed with stride 2, 128 -> 64 at 16 x 16, 0.41 -> 0.27 ms
ACCURACY        grows with m, see `cook_toom.POINTS`; |error| <= 4 eps |A_T| [(|G| |g| |G_T|) . (|B_T| |d| |B|)] |A|, see `error_bound`
SOURCE          arXiv:1509.09308 (algorithm); arXiv:1803.10986 (points)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from tvm import te

from convc.ir.spec import ConvSpec
from convc.schedules import packing
from convc.schedules.algorithm import (
    Operands,
    Problem,
    channel_block,
    channel_blocks,
    gathered_halo,
)
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.combine import combine
from convc.schedules.cook_toom import Transform, factored
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties
from convc.schedules.rank import raised, raised_weight
from convc.schedules.register_tile import good_tiles, whole_tile
from convc.schedules.requirements import packed_images
from convc.schedules.span import swapped
from convc.schedules.winograd_model import cycles, span_of
from convc.schedules.winograd_tiles import Depth, Tiles, block_shares, taps_of
from convc.target import Target

__all__ = ["ALGORITHM", "CAUTION", "Winograd", "transforms"]

# m the choice is among by itself. F(6, 3)'s 2.2e-5 is for those who ask for it: `--algo-for 'layer=winograd'` with that knob.
_DEFAULT_M: Final = (2, 3, 4, 5)

_ALL_M: Final = (*_DEFAULT_M, 6)

# F(5, 3) has twice the error of F(4, 3): it must be estimated this much faster to be taken.
CAUTION: Final = 0.04


def transforms(spec: ConvSpec, m: int) -> tuple[Transform, Transform]:
    """Return the transforms of rows and columns; an axis with one tap stays as it is."""
    tiles = Tiles.of(raised(spec), m)
    return tiles.high.transform, tiles.wide.transform


def _border(spec: ConvSpec, m: int) -> Halo:
    """Return how far whole tiles read around the data."""
    border = Tiles.of(spec, m).border(spec)
    if spec.rank < 3:
        return border
    depth = gathered_halo(spec)
    return Halo.of((depth.front, *border.begins(2)), (depth.back, *border.ends(2)))


def _slab(tiles: Tiles, channels: int, points: int) -> int:
    """Return the bytes of V of one block of tiles and one slice."""
    return 4 * tiles.alphas * tiles.parts * channels * points


class Winograd:
    """See the module's text."""

    name = "winograd"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        transposed = spec.transposed
        refusal = packed_images(problem, transposed=transposed, most_axes=2 if transposed else 3)
        if refusal is not None:
            return refusal
        if transposed and max(spec.strides) == 1:
            return Unsupported("strides must have one above 1: of stride 1 it is a convolution")
        for stride, dilation, taps in zip(spec.strides, spec.dilations, spec.kernel, strict=True):
            if dilation > 1 < taps and (transposed or stride > 1):
                return Unsupported(
                    f"strides or dilations must be 1 on every axis; got {spec.strides} and {spec.dilations}"
                )
        if transposed and any(p % s for p, s in zip(spec.output[2:], spec.strides, strict=True)):
            return Unsupported(
                f"output must be a multiple of the strides {spec.strides}; got {spec.output[2:]}"
            )
        taps = [taps_of(raised(spec), axis) for axis in (-2, -1)]
        if max(taps) < 2 or not Tiles.fit(raised(spec), 2):
            return Unsupported(
                f"filter must have an axis of 2 to 7 taps a phase and none above; got {tuple(taps)} of {spec.kernel}"
            )
        return None

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the tile size and block that the model finds fastest."""
        spec = raised(problem.spec)
        options = []
        for m in self.sizes(spec):
            for (rows, slices), planes in itertools.product(
                block_shares(spec, m), _orders(problem)
            ):
                knobs = self.with_tile(spec, target, m, rows, slices, planes)
                cycles = self.cycles(problem, target, knobs) * (1 + CAUTION * (m > 4))
                options.append((cycles, m, planes, -rows, slices, knobs))
        return min(options, key=lambda option: option[:5])[5]

    def sizes(self, spec: ConvSpec) -> list[int]:
        """Return m of F(m, r) that the choice is among by itself, of a convolution of at least two spatial axes."""
        return [m for m in _DEFAULT_M if Tiles.fit(spec, m)]

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield F(2..6, r) in blocks whose V takes at most twice L2, by every tile that divides the block's points."""
        spec = raised(problem.spec)
        c_blocks = channel_blocks(spec.in_channels, target)
        for m, block in itertools.product(_ALL_M, channel_blocks(spec.out_channels, target)):
            if not Tiles.fit(spec, m):
                continue
            vectors, tiles = -(-spec.out_channels // block), Tiles.of(spec, m)
            for rows, slices in block_shares(spec, m):
                points = rows * tiles.high.images * tiles.cols
                depth = Depth.of(spec, {"slices": slices})
                slab = _slab(tiles, spec.in_channels, points) * depth.read
                if (rows > 1 or slices > 1) and slab > 2 * target.l2_bytes:
                    continue
                for tile in good_tiles(target, 1, points, vectors, block=block, whole=True):
                    for data_block, planes in itertools.product(c_blocks, _orders(problem)):
                        yield {
                            "data_block": data_block,
                            "block": block,
                            "m": m,
                            "rows": rows,
                            **({"slices": slices} if spec.rank == 3 else {}),
                            "points": tile.cols,
                            "vectors": tile.vectors,
                            "planes": planes,
                        }

    def with_tile(
        self,
        spec: ConvSpec,
        target: Target,
        m: int,
        rows: int,
        slices: int = 1,
        planes: int = 0,
    ) -> Knobs:
        """Return the knobs for F(m, r) in blocks of `rows` tile rows and `slices` slices, divisors of their numbers.

        `planes` 1: a block's products plane by plane, each for all output channels; 0: by output channels, each in all planes.
        """
        block, tiles = channel_block(spec.out_channels, target), Tiles.of(spec, m)
        vectors = -(-spec.out_channels // block)
        tile = whole_tile(target, rows * tiles.high.images * tiles.cols, vectors, block)
        return {
            "data_block": channel_block(spec.in_channels, target),
            "block": block,
            "m": m,
            "rows": rows,
            **({"slices": slices} if spec.rank == 3 else {}),
            "points": tile.cols,
            "vectors": tile.vectors,
            "planes": planes,
        }

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return the cycles of products and transforms, and of what the caches cannot hide."""
        return cycles(problem, target, knobs)

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return the products and half a dozen operations a transformed point; U's growth and V and M of a block."""
        spec, tiles = raised(problem.spec), Tiles.of(raised(problem.spec), knobs["m"])
        depth, alphas = Depth.of(spec, knobs), tiles.alphas
        sums = spec.in_channels // spec.group * tiles.parts * depth.taps
        products = 2 * alphas * sums * spec.out_channels * tiles.filters * depth.slices
        blocks = depth.slices // depth.together
        transformed = spec.in_channels * tiles.parts * depth.read * blocks * tiles.filters
        transformed += spec.out_channels * tiles.filters * depth.slices
        flops = spec.data[0] * tiles.rows * tiles.cols * (products + 12 * alphas * transformed)
        U = 4 * alphas * sums * spec.out_channels * tiles.filters - 4 * math.prod(spec.weight)
        points = knobs["rows"] * tiles.high.images * tiles.cols
        slab = _slab(tiles, spec.in_channels, points) * depth.read
        slab += 4 * alphas * spec.out_channels * points * depth.together
        packed = packing.nbytes(
            self.name, problem, target, knobs
        )  # of run time: beside the weights
        return Properties(flops, (packed or max(0, U)) + slab, tiles.expected_error(sums))

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = _border(raised(problem.spec), knobs["m"])
        sh, sw = raised(problem.spec).strides[-2:]
        split = (sh, sw) if problem.spec.transposed else None
        return Operands(Layout(knobs["data_block"], border), border, Layout(knobs["block"]), split)

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return U = G g G_T as [filters][K/(v b)][alpha][alpha][depth taps][parts][C][v b], in float64 and rounded once.

        With the knob `planes` the axis [K/(v b)] comes behind [alpha][alpha]: U lies as it is read.
        """
        spec, tiles = raised(problem.spec), Tiles.of(raised(problem.spec), knobs["m"])
        span, high, wide = span_of(spec, knobs), tiles.high, tiles.wide
        weight = raised_weight(weight)
        if spec.transposed:
            weight = swapped(weight, spec.group)
        if weight.ndim == 4:
            weight = weight[:, :, None]
        G, H = (np.array(t.G, dtype=np.float64) for t in (high.transform, wide.transform))
        # A tap beyond the filter reads the zero behind its end.
        padded = np.pad(weight, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 1)))
        spread = span.spread(padded)
        vectors, lanes, channels, taps = spread.shape[:4]
        sums = (taps, tiles.parts, channels)
        alphas = (high.transform.alpha, wide.transform.alpha)
        U = np.zeros((high.filters, wide.filters, vectors, *alphas, *sums, lanes), weight.dtype)
        kinds = (high.filters, wide.filters, high.parts, wide.parts)
        # One vector at a time: all of U in float64 would be twice the largest array of the compilation.
        for zh, zw, gh, gw in itertools.product(*map(range, kinds)):
            part = gh * wide.parts + gw
            taps_of_phase = spread[..., high.taps(zh, gh), :][..., wide.taps(zw, gw)]
            for vector in range(vectors):
                own = taps_of_phase[vector].astype(np.float64)
                U[zh, zw, vector, ..., part, :, :] = np.einsum(
                    "ir,kcdrs,js->ijdck", G, own, H, optimize=True
                )
        return np.ascontiguousarray(np.moveaxis(U, 2, 4)) if knobs["planes"] else U

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, U, extras..., result; blocks `d0 d1 d2 V`, `acc M`, `y0 y1 y2`."""
        spec, m = raised(problem.spec), knobs["m"]
        a, b, v = knobs["data_block"], knobs["block"], knobs["vectors"]
        tiles, depth, span = Tiles.of(spec, m), Depth.of(spec, knobs), span_of(spec, knobs)
        high, wide = tiles.high, tiles.wide
        (B_h, A_h), (B_w, A_w) = factored(high.transform), factored(wide.transform)
        alpha_h, alpha_w = high.transform.alpha, wide.transform.alpha
        N, K, *points = spec.output
        cols, c_blocks, blocks = tiles.cols, span.all_blocks, -(-K // b)
        groups = -(-blocks // v)
        extents = _border(spec, m).around(spec.data[2:])
        x = te.placeholder((N, c_blocks, *extents, a), spec.dtype, name="data")
        sums = (depth.taps, tiles.parts, span.blocks * a)
        filters = (high.filters, wide.filters)
        places = (alpha_h, alpha_w, groups) if knobs["planes"] else (groups, alpha_h, alpha_w)
        U = te.placeholder((*filters, *places, *sums, v * b), spec.dtype, name="U")
        if spec.transposed:
            (sh, sw), (P, Q) = spec.strides, points
            points = [P // sh, sh, Q // sw, sw]
        extras = blocked_extras(problem, blocks, b, (N, blocks, *points, b))

        def data(at: Sequence[Any], i: Any, j: Any, lane: Any) -> Any:
            """Return point (i, j) of a tile of a filter, part and channel block, of a slice of those for one block of slices."""
            n, zh, zw, c, s, u, t = at
            part = c // c_blocks
            row = high.point(t // cols, i, zh, part // wide.parts)
            col = wide.point(t % cols, j, zw, part % wide.parts)
            slices = [s * depth.together * depth.stride + u] if spec.rank == 3 else []
            return x(n, c % c_blocks, *slices, row, col, lane)

        # Tiles have one flat index t = row * cols + column, so that a register tile may straddle two rows of tiles. Slices are named by
        # their block, filters on two axes, and results' tiles by block and image: TVM 0.27 gets the region of a sum of two loops wrong.
        all_c, slabs = tiles.parts * c_blocks, depth.slices // depth.together
        T = tiles.rows * cols
        tile = (N, *filters, all_c, slabs, depth.read, T, alpha_h, alpha_w, a)
        d0 = te.compute(
            tile,
            lambda *i: combine(B_h.inner, i[7], lambda e: data(i[:7], e, *i[8:])),
            name="d0",
        )
        d1 = te.compute(
            tile, lambda *i: combine(B_h.outer, i[7], lambda e: d0(*i[:7], e, *i[8:])), name="d1"
        )
        d2 = te.compute(
            tile, lambda *i: combine(B_w.inner, i[8], lambda f: d1(*i[:8], f, i[9])), name="d2"
        )
        V = te.compute(
            (alpha_h, alpha_w, N, *filters, all_c, slabs, depth.read, T, a),
            lambda e, f, *i: combine(B_w.outer, f, lambda j: d2(*i[:7], e, j, i[7])),
            name="V",
        )
        kd, g = te.reduce_axis((0, depth.taps), "kd"), te.reduce_axis((0, tiles.parts), "g")
        co, ci = te.reduce_axis((0, span.blocks), "co"), te.reduce_axis((0, a), "ci")

        def product(
            e: Any, f: Any, n: Any, zh: Any, zw: Any, o: Any, d: Any, t: Any, i: Any
        ) -> Any:
            slab, first = d // depth.together, d % depth.together * depth.stride
            channel = g * c_blocks + span.first(o) + co
            value = V(e, f, n, zh, zw, channel, slab, first + kd * depth.dilation, t, ci)
            place = (e, f, o) if knobs["planes"] else (o, e, f)
            value *= U(zh, zw, *place, kd, g, co * a + ci, i)
            return te.sum(value, axis=[kd, g, co, ci])

        acc = te.compute(
            (alpha_h, alpha_w, N, *filters, groups, depth.slices, T, v * b),
            product,
            name="acc",
        )
        geometry = [high.transform.m, high.images, wide.transform.m, wide.images]
        M = te.compute(acc.shape, lambda *i: acc(*i), name="M", attrs={"convc.tiles": geometry})
        places = (high.blocks, high.images, wide.blocks, wide.images)
        half = (N, blocks, *filters, depth.slices, *places, alpha_h, alpha_w, b)

        def products(e: Any, f: Any, *i: Any) -> Any:
            n, k, zh, zw, d, *at, lane = i
            t = (at[0] * high.images + at[1]) * cols + at[2] * wide.images + at[3]
            return M(e, f, n, zh, zw, k // v, d, t, k % v * b + lane)

        y0 = te.compute(
            half,
            lambda *i: combine(A_h.inner, i[9], lambda e: products(e, i[10], *i[:9], i[11])),
            name="y0",
        )
        half = (*half[:9], high.transform.m, alpha_w, b)
        y1 = te.compute(
            half, lambda *i: combine(A_h.outer, i[9], lambda e: y0(*i[:9], e, *i[10:])), name="y1"
        )
        y2 = te.compute(
            half, lambda *i: combine(A_w.inner, i[10], lambda f: y1(*i[:10], f, i[11])), name="y2"
        )

        def result(n: Any, k: Any, *at: Any) -> Any:
            *slices, p, zh, q, zw, lane = (
                at if spec.transposed else (*at[:-2], 0, at[-2], 0, at[-1])
            )
            (*row, i), (*col, j) = high.place_of(p), wide.place_of(q)
            at = (n, k, zh, zw, slices[0] if slices else 0, *row, *col, i)
            return combine(A_w.outer, j, lambda f: y2(*at, f, lane))

        y = te.compute((N, blocks, *points, b), result, name="unpack")
        return [x, U, *extras, blocked_result(y, problem, extras)]


def _orders(problem: Problem) -> tuple[int, ...]:
    """Return the values of the knob `planes`: weights of run time are packed by output channels only."""
    return (0, 1) if problem.constant_weight else (0,)


ALGORITHM = Winograd()
