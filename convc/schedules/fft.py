"""Convolution by fast Fourier transforms of overlapping tiles: the fewest multiplications for large filters, stride 1.

THE ALGORITHM   Y = F* [ (F x) . conj(F w) ] per tile of t_h x t_w points, of which the first m_h x m_w results are kept
                (overlap-save: m = t - r + 1; the others have wrapped around). F is the half-bin transform of `fft_transform`:
                t_h t_w / 2 complex bins, all alike. U = conj(F w) / (t_h t_w / 2) at compile time.
                Dense: M[bin] = sum over c of V[bin, c] U[bin, c, k], as 3 or 4 real products of matrices a bin.
                Depthwise: transform of columns, product and inverse in one go.
                A tile that covers the whole image is the classical form, one transform of the image and any filter, full mode included.
                Dilation, and filters of more taps than a tile has points: see `overlap_save`. Groups: see `span`.
WHEN            1-D, 2-D, strides 1; depthwise, 64 taps an axis at most; weights of run time: a kernel transforms them before
COST            3/2 or 2 t_h t_w / (m_h m_w) multiplications a channel pair and point; 5 t^2 log2 t operations a tile and channel, twice
ACCURACY        errors are those of a whole tile: |error| <= 4 eps |x tile| |w|, Euclidean norms, summed over channels; see tests
SOURCE          Mathieu, Henaff, LeCun, arXiv:1312.5851 (the idea); Vasilache et al., arXiv:1412.7580 (tiles)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from tvm import te

from convc.ir.spec import ConvSpec
from convc.schedules import packing
from convc.schedules.algorithm import Operands, Problem, channel_block
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.divisors import divisors
from convc.schedules.fft_model import cycles, filter_cycles, span_of, tiling_of
from convc.schedules.fft_stages import dense, depthwise, planes_of, wave
from convc.schedules.layout import Layout
from convc.schedules.overlap_save import LENGTHS, Tiling, lengths
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties
from convc.schedules.rank import raised, raised_weight
from convc.schedules.register_tile import Tile, good_tiles, tile_cycles
from convc.schedules.requirements import packed_images
from convc.schedules.spectrum import filter_parts, is_depthwise, spectrum
from convc.target import Target

__all__ = ["ALGORITHM", "Fft"]

# Greatest |error| / greatest |result|, normal data: 1.5 to 4e-7 for 16 to 64 points, C = 8 to 256, 3 and 7 taps.
_ERROR: Final = 4e-7


class Fft:
    """See the module's text."""

    name = "fft"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        refusal = packed_images(problem, unit_strides=True)
        if refusal is not None:
            return refusal
        if spec.is_pointwise:
            return Unsupported("filter must have more than one tap; got (1, 1)")
        if is_depthwise(spec) and max(spec.kernel) > LENGTHS[-1]:
            return Unsupported(
                f"depthwise, the filter must have at most {LENGTHS[-1]} taps an axis; got {spec.kernel}"
            )
        return None

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the transforms' lengths, products a bin and block that the model finds fastest."""
        options = []
        for knobs in self._by_lengths(raised(problem.spec), target):
            cycles = self.cycles(problem, target, knobs)
            cycles += 0.0 if problem.constant_weight else filter_cycles(problem, target, knobs)
            order = (cycles, knobs["t_h"] * knobs["t_w"], -knobs["rows"], knobs["products"])
            options.append((*order, knobs))
        return min(options, key=lambda option: option[:4])[4]

    def _by_lengths(self, spec: ConvSpec, target: Target) -> Iterator[Knobs]:
        for t_h, t_w in lengths(spec):
            high = Tiling.of(spec, t_h, t_w).high
            blocks, products = (
                ((1,), (4,)) if is_depthwise(spec) else (divisors(high.blocks), (3, 4))
            )
            for number, rows in itertools.product(products, blocks):
                yield self.with_lengths(spec, target, t_h, t_w, number, rows * high.images)

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every length, block and number of products; dense, by every tile that divides the block's points."""
        spec = raised(problem.spec)
        vectors = -(-spec.out_channels // channel_block(spec.out_channels, target))
        for knobs in self._by_lengths(spec, target):
            yield knobs
            if not is_depthwise(spec):
                points = knobs["rows"] * Tiling.of(spec, knobs["t_h"], knobs["t_w"]).wide.tiles
                for tile in good_tiles(target, 1, points, vectors, whole=True):
                    yield {**knobs, "points": tile.cols, "vectors": tile.vectors}

    def with_lengths(
        self, spec: ConvSpec, target: Target, t_h: int, t_w: int, products: int, rows: int
    ) -> Knobs:
        """Return the knobs for given transforms in blocks of `rows` tile rows: a divisor of their number, whole phase images."""
        block = channel_block(spec.out_channels, target)
        knobs = {
            "data_block": channel_block(spec.in_channels, target),
            "block": block,
            "t_h": t_h,
            "t_w": t_w,
            "products": products,
            "rows": rows,
        }
        if not is_depthwise(spec):
            points = rows * Tiling.of(spec, t_h, t_w).wide.tiles
            tile = _register_tile(target, points, -(-spec.out_channels // block), block)
            knobs |= {"points": tile.cols, "vectors": tile.vectors}
        return knobs

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return the cycles of products and transforms, and of what the caches cannot hide."""
        return cycles(problem, target, knobs)

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return products and transforms; U's growth and what one block of tiles keeps."""
        spec, tiling = problem.spec, tiling_of(problem, knobs)
        C, K, bins = spec.in_channels, spec.out_channels, tiling.bins * tiling.high.t
        C *= tiling.parts
        transforms = 5 * bins * math.log2(max(2, tiling.high.t * tiling.wide.t)) * (C + K)
        planes = 2 if is_depthwise(spec) else planes_of(knobs)
        pairs = C * K // spec.group
        products = 2 * knobs["products"] * bins * pairs
        flops = spec.data[0] * tiling.tiles * (products + transforms)
        U = 4 * (bins * planes * pairs - math.prod(spec.weight))
        points = tiling.high.t * C + tiling.high.m * K
        block = 4 * knobs["rows"] * tiling.wide.tiles * tiling.wide.t * points
        packed = packing.nbytes(
            self.name, problem, target, knobs
        )  # of run time: beside the weights
        return Properties(flops, (packed or max(0, U)) + block, _ERROR)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = tiling_of(problem, knobs).border(raised(problem.spec))
        return Operands(Layout(knobs["data_block"], border), border, Layout(knobs["block"]))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return U, computed in float64 and rounded once.

        Dense: [K/(v b)][t_w/2][t_h][planes][parts C][v b] with C those that the vector's groups read, three planes
        (Ui - Ur, Ui + Ur, Ur) or two (Ur, Ui).
        Depthwise: [C/b][t_w/2][t_h][Ur, Ui][b].
        """
        spec, tiling, b = raised(problem.spec), tiling_of(problem, knobs), knobs["block"]
        weight = raised_weight(weight)
        k = weight.shape[0]
        bins = (tiling.bins, tiling.high.t)
        if is_depthwise(spec):
            U = np.zeros((-(-k // b) * b, *bins, 2), weight.dtype)
            U[:k] = np.stack(spectrum(weight[:, 0], tiling), -1)
            return np.ascontiguousarray(U.reshape(-1, b, *bins, 2).transpose(0, 2, 3, 4, 1))
        spread, planes = span_of(spec, knobs).spread(weight), planes_of(knobs)
        vectors, lanes, channels = spread.shape[:3]
        U = np.zeros((vectors, *bins, planes, tiling.parts * channels, lanes), weight.dtype)
        for channel in range(k):  # one at a time: all in float64 would be several times the result
            vector, lane = divmod(channel, lanes)
            for part, taps in enumerate(filter_parts(spread[vector, lane], tiling)):
                re, im = (plane.transpose(1, 2, 0) for plane in spectrum(taps, tiling))
                parts = (im - re, im + re, re) if planes == 3 else (re, im)
                own = slice(part * channels, (part + 1) * channels)
                U[vector, :, :, :, own, lane] = np.stack(parts, 2)
        return U

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, U, extras..., result; blocks `S`, dense `V acc M`, `Z`, `Y`, then the epilogue.

        Transforms are the sums that define them, see `fft_stages`.
        """
        spec = raised(problem.spec)
        tiling, a, b = tiling_of(problem, knobs), knobs["data_block"], knobs["block"]
        N, K, P, Q = spec.output
        high, wide = tiling.high, tiling.wide
        c_blocks, blocks = -(-spec.in_channels // a), -(-K // b)
        extents = tiling.border(spec).around(spec.data[2:])
        x = te.placeholder((N, c_blocks, *extents, a), spec.dtype, name="data")
        extras = blocked_extras(problem, blocks, b, (N, blocks, P, Q, b))

        # Tiles have one flat index t = row * cols + column, so that a register tile may straddle two rows of tiles.
        j = te.reduce_axis((0, wide.t), "j")

        def transformed(h: Any, n: Any, c: Any, t: Any, i: Any, s: Any, lane: Any) -> Any:
            part, channel = (c // c_blocks, c % c_blocks) if tiling.parts > 1 else (0, c)
            row = high.point(t // wide.tiles, i, part // wide.parts)
            col = wide.point(t % wide.tiles, j, part % wide.parts)
            value = x[n, channel, row, col, lane] * wave((4 * h + 1) * j, 2 * wide.t, s)
            return te.sum(value, axis=[j])

        shape = (tiling.bins, N, tiling.parts * c_blocks, tiling.tiles, high.t, 2, a)
        S = te.compute(shape, transformed, name="S")
        if is_depthwise(spec):
            U, Z = depthwise(S, tiling, blocks, knobs)
        else:
            U, Z = dense(S, tiling, blocks, span_of(spec, knobs), knobs)
        h, s = te.reduce_axis((0, tiling.bins), "h"), te.reduce_axis((0, 2), "s")
        Y = te.compute(
            (N, blocks, high.tiles, wide.tiles, high.m, wide.m, b),
            lambda n, k, row, col, p, q, lane: te.sum(
                Z[h, n, k, row * wide.tiles + col, p, s, lane]
                * wave((4 * h + 1) * q, 2 * wide.t, s),
                axis=[h, s],
            ),
            name="Y",
            attrs={"convc.images": [high.images, wide.images]},
        )

        def placed(n: Any, k: Any, p: Any, q: Any, lane: Any) -> Any:
            (row, i), (col, j) = high.tile_of(p), wide.tile_of(q)
            return Y[n, k, row, col, i, j, lane]

        y = te.compute((N, blocks, P, Q, b), placed, name="unpack")
        return [x, U, *extras, blocked_result(y, problem, extras)]


def _register_tile(target: Target, points: int, vectors: int, block: int) -> Tile:
    """Return the best register tile; one that leaves a tail costs more than its cycles, see `winograd`."""
    tiles = [
        Tile(1, p, v)
        for v in range(1, min(4, vectors) + 1)
        for p in range(1, min(points, target.registers // v) + 1)
        if Tile(1, p, v).fits(target)
    ]
    return min(
        tiles,
        key=lambda tile: (
            tile_cycles(target, tile, 1, points, vectors, block)
            * (1.2 if points % tile.cols else 1),
            -tile.vectors,  # then V is read once for more results
            -tile.cols,
        ),
    )


ALGORITHM = Fft()
