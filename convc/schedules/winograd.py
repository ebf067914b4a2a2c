"""Winograd convolution F(m x m, r x r): fewer multiplications for small filters, stride 1.

THE ALGORITHM   Y = A_T [ (G g G_T) . (B_T d B) ] A          (Lavin and Gray 2015, equation 8), per tile of m x m results
                U = G g G_T at compile time; V = B_T d B; M[a, b] = U[a, b] V[a, b] summed over channels: alpha^2 matrix products;
                every transform in two factors (even and odd parts of the point pairs), see `cook_toom.factored`
                An axis with a one-tap filter (1x7, 3x1) is left untransformed: m = 1 there.
WHEN            1-D, 2-D, strides 1, dilations 1, group 1, at least one axis of 3 to 7 taps
COST            (alpha/m)^2 C K multiplications an output point instead of r^2, tiles at the edge computed whole
ACCURACY        grows with m, see `cook_toom.POINTS`; |error| <= 4 eps |A_T| [(|G| |g| |G_T|) . (|B_T| |d| |B|)] |A|, measured in tests
SOURCE          arXiv:1509.09308 (algorithm); arXiv:1803.10986 (points)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, Problem, channel_block, channel_blocks
from convc.schedules.cook_toom import POINTS, Matrix, Transform, cook_toom, factored
from convc.schedules.direct import blocked_extras, blocked_result
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties
from convc.schedules.rank import raised, raised_weight
from convc.schedules.register_tile import Tile, good_tiles, tile_cycles
from convc.schedules.requirements import packed_images
from convc.target import Target

__all__ = ["ALGORITHM", "Winograd", "combine", "transforms"]

# Cycles of both transforms of one tile of 16 channels in and 16 out, in units of alpha^2, by alpha; the share of the forward one.
# Measured on Zen 4 at 64 channels, 56 x 56 and 256 channels, 14 x 14: stores bind, and from alpha = 7 on registers spill.
_TRANSFORM_CYCLES: Final = {4: 10.0, 5: 14.0, 6: 13.0, 7: 16.5, 8: 17.5}
_FORWARD_SHARE: Final = 0.58

# Greatest |error| / greatest |result| by the number of points at C = 256, normal data; measured at C = 8, 64 and 256 it grows as C^0.4.
_ERRORS: Final = {2: 6e-7, 3: 6e-7, 4: 4.8e-6, 5: 2.6e-6, 6: 7.4e-6, 7: 1.6e-5}

# m the choice is among by itself. F(6, 3)'s 2.2e-5 is for those who ask for it: `--algo-for 'layer=winograd'` with that knob.
_DEFAULT_M: Final = (2, 3, 4, 5)

_ALL_M: Final = (*_DEFAULT_M, 6)

# F(5, 3) has twice the error of F(4, 3): it must be estimated this much faster to be taken.
_CAUTION: Final = 0.04


def transforms(spec: ConvSpec, m: int) -> tuple[Transform, Transform]:
    """Return the transforms of the two axes; an axis with one tap stays as it is."""
    high, wide = (cook_toom(m if r > 1 else 1, r) for r in spec.kernel)
    return high, wide


def _tiles(spec: ConvSpec, m: int) -> tuple[int, int]:
    """Return the number of tile rows and tile columns."""
    high, wide = transforms(spec, m)
    return -(-spec.output[2] // high.m), -(-spec.output[3] // wide.m)


def _border(spec: ConvSpec, m: int) -> Halo:
    """Return how far whole tiles read around the data."""
    top, left = spec.pads[:2]
    ends = []
    for axis, (t, count, begin) in enumerate(
        zip(transforms(spec, m), _tiles(spec, m), (top, left), strict=True)
    ):
        ends.append(max(0, count * t.m + t.r - 1 - begin - spec.data[2 + axis]))
    return Halo(top, left, *ends)


def _fits(spec: ConvSpec, m: int) -> bool:
    return all(r == 1 or m + r - 2 in POINTS for r in spec.kernel)


def _slab(spec: ConvSpec, high: Transform, wide: Transform, points: int) -> int:
    """Return the bytes of V of one block of tiles."""
    return 4 * high.alpha * wide.alpha * spec.in_channels * points


class Winograd:
    """See the module's text."""

    name = "winograd"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        refusal = packed_images(problem, unit_strides=True, unit_dilations=True, one_group=True)
        if refusal is None and (max(spec.kernel) < 3 or not _fits(spec, 2)):
            return Unsupported(
                f"filter must have an axis of 3 to 7 taps and none above; got {spec.kernel}"
            )
        return refusal

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the tile size and block that the model finds fastest."""
        spec = raised(problem.spec)
        options = []
        for m in _DEFAULT_M:
            if _fits(spec, m):
                for rows in _divisors(_tiles(spec, m)[0]):
                    knobs = self.with_tile(spec, target, m, rows)
                    cycles = self.cycles(problem, target, knobs)
                    options.append((cycles * (1 + _CAUTION * (m > 4)), m, -rows, knobs))
        return min(options, key=lambda option: option[:3])[3]

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield F(2..6, r) in blocks whose V takes at most twice L2, by every tile that divides the block's points."""
        spec = raised(problem.spec)
        c_blocks = channel_blocks(spec.in_channels, target)
        for m, block in itertools.product(_ALL_M, channel_blocks(spec.out_channels, target)):
            if not _fits(spec, m):
                continue
            vectors = -(-spec.out_channels // block)
            high, wide = transforms(spec, m)
            tile_rows, tile_cols = _tiles(spec, m)
            for rows in _divisors(tile_rows):
                points = rows * tile_cols
                if rows > 1 and _slab(spec, high, wide, points) > 2 * target.l2_bytes:
                    break
                for tile in good_tiles(target, 1, points, vectors, block=block, whole=True):
                    for data_block in c_blocks:
                        yield {
                            "data_block": data_block,
                            "block": block,
                            "m": m,
                            "rows": rows,
                            "points": tile.cols,
                            "vectors": tile.vectors,
                        }

    def with_tile(self, spec: ConvSpec, target: Target, m: int, rows: int) -> Knobs:
        """Return the knobs for F(m, r) in blocks of `rows` tile rows, a divisor of their number."""
        block = channel_block(spec.out_channels, target)
        vectors = -(-spec.out_channels // block)
        tile = _whole_tile(target, rows * _tiles(spec, m)[1], vectors, block)
        return {
            "data_block": channel_block(spec.in_channels, target),
            "block": block,
            "m": m,
            "rows": rows,
            "points": tile.cols,
            "vectors": tile.vectors,
        }

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return the cycles of products and transforms, and of what the caches cannot hide."""
        spec, m = raised(problem.spec), knobs["m"]
        high, wide = transforms(spec, m)
        alphas = high.alpha * wide.alpha
        tile_rows, tile_cols = _tiles(spec, m)
        points, blocks = knobs["rows"] * tile_cols, tile_rows // knobs["rows"]
        lanes, vectors = knobs["block"], -(-spec.out_channels // knobs["block"])
        C = -(-spec.in_channels // knobs["data_block"]) * knobs["data_block"]
        K = vectors * lanes
        tile = Tile(1, knobs["points"], knobs["vectors"])
        product = alphas * C * tile_cycles(target, tile, 1, points, vectors, lanes) * blocks
        # Each block of tiles streams all of U: from memory the first time, then from where it fits.
        u_bytes, v_bytes = 4 * alphas * C * K, 4 * alphas * C * points
        core, memory = target.core, target.memory_bytes
        again = core.l2 if u_bytes < target.l2_bytes / 2 else core.l3
        if u_bytes > target.l3_bytes / 2:
            again = memory * 2 / 3
        stream = u_bytes / memory + u_bytes * (blocks - 1) / again
        # V of a block is read once per group of output channels; beyond half of L2 it comes from L3.
        groups = -(-vectors // knobs["vectors"])
        if v_bytes > 0.6 * target.l2_bytes:
            product += v_bytes * groups * blocks / core.l3
        tiles = tile_rows * tile_cols
        per_pair = alphas * _TRANSFORM_CYCLES[max(high.alpha, wide.alpha)]
        moved = tiles * per_pair * (_FORWARD_SHARE * C + (1 - _FORWARD_SHARE) * K) / 16
        # The transforms read data and write results while no product runs: from L3 when they do not fit L2.
        image = 4 * (spec.in_channels * spec.data[2] * spec.data[3])
        image += 4 * (spec.out_channels * spec.output[2] * spec.output[3])
        if image > target.l2_bytes:
            moved += image / core.l3
        return spec.data[0] * (core.together(product, stream) + moved)

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return the products and half a dozen operations a transformed point; U's growth and V and M of a block."""
        spec, m = raised(problem.spec), knobs["m"]
        high, wide = transforms(spec, m)
        alphas, (rows, cols) = high.alpha * wide.alpha, _tiles(spec, m)
        channels = spec.in_channels + spec.out_channels
        products = 2 * alphas * spec.in_channels * spec.out_channels + 12 * alphas * channels
        U = 4 * alphas * spec.in_channels * spec.out_channels - 4 * math.prod(spec.weight)
        points = max(len(t.points) for t in (high, wide))
        flops = spec.data[0] * rows * cols * products
        slab = 4 * alphas * channels * knobs["rows"] * cols
        return Properties(
            flops, max(0, U) + slab, _ERRORS[points] * (spec.in_channels / 256) ** 0.4
        )

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = _border(raised(problem.spec), knobs["m"])
        return Operands(Layout(knobs["data_block"], border), border, Layout(knobs["block"]))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return U = G g G_T as [K/(v b)][alpha][alpha][C][v b], computed in float64 and rounded once."""
        high, wide = transforms(raised(problem.spec), knobs["m"])
        G, H = (np.array(t.G, dtype=np.float64) for t in (high, wide))
        weight = raised_weight(weight)
        k, c = weight.shape[:2]
        lanes, a = knobs["vectors"] * knobs["block"], knobs["data_block"]
        kp, cp = -(-k // lanes) * lanes, -(-c // a) * a
        U = np.zeros((kp // lanes, high.alpha, wide.alpha, cp, lanes), weight.dtype)
        # One group at a time: all of U in float64 would be twice the largest array of the compilation.
        for group in range(kp // lanes):
            part = weight[group * lanes : (group + 1) * lanes].astype(np.float64)
            transformed = np.einsum("ir,kcrs,js->ijck", G, part, H, optimize=True)
            U[group, :, :, :c, : part.shape[0]] = transformed
        return U

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, U, extras..., result; blocks `d0 d1 d2 V`, `acc M`, `y0 y1 y2`."""
        spec, m = raised(problem.spec), knobs["m"]
        a, b, v = knobs["data_block"], knobs["block"], knobs["vectors"]
        high, wide = transforms(spec, m)
        (B_h, A_h), (B_w, A_w) = factored(high), factored(wide)
        N, K, P, Q = spec.output
        rows, cols = _tiles(spec, m)
        border = _border(spec, m)
        c_blocks, blocks = -(-spec.in_channels // a), -(-K // b)
        groups = -(-blocks // v)
        height = spec.data[2] + border.top + border.bottom
        width = spec.data[3] + border.left + border.right
        x = te.placeholder((N, c_blocks, height, width, a), spec.dtype, name="data")
        U = te.placeholder(
            (groups, high.alpha, wide.alpha, c_blocks * a, v * b), spec.dtype, name="U"
        )
        extras = blocked_extras(problem, blocks, b, (N, blocks, P, Q, b))

        # Tiles have one flat index t = row * cols + column, so that a register tile may straddle two rows of tiles.
        tile = (N, c_blocks, rows * cols, high.alpha, wide.alpha, a)
        d0 = te.compute(
            tile,
            lambda n, c, t, e, f, lane: combine(
                B_h.inner,
                e,
                lambda i: x[n, c, t // cols * high.m + i, t % cols * wide.m + f, lane],
            ),
            name="d0",
        )
        d1 = te.compute(
            tile,
            lambda n, c, t, e, f, lane: combine(B_h.outer, e, lambda i: d0[n, c, t, i, f, lane]),
            name="d1",
        )
        d2 = te.compute(
            tile,
            lambda n, c, t, e, f, lane: combine(B_w.inner, f, lambda j: d1[n, c, t, e, j, lane]),
            name="d2",
        )
        V = te.compute(
            (high.alpha, wide.alpha, N, c_blocks, rows * cols, a),
            lambda e, f, n, c, t, lane: combine(B_w.outer, f, lambda j: d2[n, c, t, e, j, lane]),
            name="V",
        )
        co, ci = te.reduce_axis((0, c_blocks), "co"), te.reduce_axis((0, a), "ci")
        acc = te.compute(
            (high.alpha, wide.alpha, N, groups, rows * cols, v * b),
            lambda e, f, n, o, t, lane: te.sum(
                V[e, f, n, co, t, ci] * U[o, e, f, co * a + ci, lane], axis=[co, ci]
            ),
            name="acc",
        )
        M = te.compute(acc.shape, lambda *i: acc(*i), name="M")
        y0 = te.compute(
            (N, blocks, rows * cols, high.alpha, wide.alpha, b),
            lambda n, k, t, e, f, lane: combine(
                A_h.inner, e, lambda i: M[i, f, n, k // v, t, k % v * b + lane]
            ),
            name="y0",
        )
        half = (N, blocks, rows * cols, high.m, wide.alpha, b)
        y1 = te.compute(
            half,
            lambda n, k, t, p, f, lane: combine(A_h.outer, p, lambda i: y0[n, k, t, i, f, lane]),
            name="y1",
        )
        y2 = te.compute(
            half,
            lambda n, k, t, p, f, lane: combine(A_w.inner, f, lambda j: y1[n, k, t, p, j, lane]),
            name="y2",
        )
        y = te.compute(
            (N, blocks, P, Q, b),
            lambda n, k, p, q, lane: combine(
                A_w.outer,
                q % wide.m,
                lambda j: y2[n, k, p // high.m * cols + q // wide.m, p % high.m, j, lane],
            ),
            name="unpack",
        )
        return [x, U, *extras, blocked_result(y, problem, extras)]


def _whole_tile(target: Target, points: int, vectors: int, block: int) -> Tile:
    """Return the best register tile whose points divide the block's: a tail here costs up to half the speed.

    LLVM unrolls the few tiles of a block into each other and spills their accumulators (45 points: 9 x 2 gives 347 GFLOP/s,
    14 x 2 with a tail of 3 gives 287).
    """
    tiles = [
        Tile(1, p, v)
        for p in _divisors(points)
        for v in range(1, min(4, vectors) + 1)
        if Tile(1, p, v).fits(target)
    ]
    # On ties more points: fewer, longer tiles stream U less often from L2.
    return min(
        tiles,
        key=lambda t: (
            tile_cycles(target, t, 1, points, vectors, block),
            -t.accumulators,
            abs(t.vectors - 2),
        ),
    )


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def combine(matrix: Matrix, row: Any, read: Callable[[int], Any]) -> Any:
    """Return row `row` of `matrix` times the vector that `read` gives; `row` is a loop variable that is unrolled later.

    Unrolling turns each Select into one of its branches, so only one row's sum is left of this chain.
    """
    sums = [_sum(coefficients, read) for coefficients in matrix]
    result = sums[-1]
    for index in range(len(sums) - 2, -1, -1):
        result = tirx.Select(row == index, sums[index], result)
    return result


def _sum(coefficients: tuple, read: Callable[[int], Any]) -> Any:
    total = None
    for position, coefficient in enumerate(coefficients):
        if not coefficient:
            continue
        value = read(position)
        if abs(coefficient) != 1:
            value = value * tirx.const(abs(float(coefficient)), "float32")
        if total is None:
            total = value if coefficient > 0 else -value
        else:
            total = total + value if coefficient > 0 else total - value
    return tirx.const(0, "float32") if total is None else total


ALGORITHM = Winograd()
