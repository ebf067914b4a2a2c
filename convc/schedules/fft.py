"""Convolution by fast Fourier transforms of overlapping tiles: the fewest multiplications for large filters, stride 1.

THE ALGORITHM   Y = F* [ (F x) . conj(F w) ] per tile of t_h x t_w points, of which the first m_h x m_w results are kept
                (overlap-save: m = t - r + 1; the others have wrapped around). F is the half-bin transform of `fft_transform`:
                t_h t_w / 2 complex bins, all alike. U = conj(F w) / (t_h t_w / 2) at compile time.
                Dense: M[bin] = sum over c of V[bin, c] U[bin, c, k], as 3 or 4 real products of matrices a bin.
                Depthwise: transform of columns, product and inverse in one go.
WHEN            1-D, 2-D, strides 1, dilations 1, group 1 or group = C = K, weights constant
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
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, Problem, channel_block
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.fft_transform import column_forward, row_forward
from convc.schedules.layout import Layout
from convc.schedules.overlap_save import LENGTHS, Tiling, lengths
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties
from convc.schedules.rank import raised, raised_weight
from convc.schedules.register_tile import Tile, good_tiles, tile_cycles
from convc.schedules.requirements import packed_images
from convc.target import Target

__all__ = ["ALGORITHM", "Fft"]

# Cycles of one step of a transform's program, by the longer axis: beyond 24 points values spill and tiles leave L1.
# Measured on Zen 4 as whole depthwise kernels at 128 channels, 56 x 56.
_CYCLES_PER_STEP: Final = {
    1: 0.5, 2: 0.5, 8: 0.5, 12: 0.5, 16: 0.65, 20: 0.62, 24: 0.7, 32: 0.95, 40: 0.9, 48: 1.15, 64: 1.3,
}  # fmt: skip

# Dense transforms scatter their results over planes: times this. Measured on Zen 4 at 64 channels, 56 x 56.
_STORED: Final = 1.5

# Greatest |error| / greatest |result|, normal data: 1.5 to 4e-7 for 16 to 64 points, C = 8 to 256, 3 and 7 taps.
_ERROR: Final = 4e-7

# U is many times the weights: in a network it comes from memory, not from L3 as in the measurements. Others are preferred when close.
_CAUTION: Final = 1.1


def _tiling(problem: Problem, knobs: Knobs) -> Tiling:
    return Tiling.of(raised(problem.spec), knobs["t_h"], knobs["t_w"])


def _spectrum(weight: np.ndarray, tiling: Tiling) -> tuple[np.ndarray, np.ndarray]:
    """Return (re, im) of U = conj(F w) / (t_h t_w / 2), filters (..., R, S) to bins (..., t_w/2, t_h), in float64."""
    half_bin = np.exp(-1j * math.pi / tiling.t_w * np.arange(weight.shape[-1]))
    rows = np.fft.fft(weight.astype(np.float64) * half_bin, tiling.t_w)[..., ::2]
    bins = np.fft.fft(rows, tiling.t_h, axis=-2).swapaxes(-1, -2)
    scale = tiling.t_h * tiling.bins
    return np.real(bins) / scale, -np.imag(bins) / scale


class Fft:
    """See the module's text."""

    name = "fft"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        refusal = packed_images(problem, unit_strides=True, unit_dilations=True)
        if refusal is not None:
            return refusal
        if spec.group > 1 and not spec.group == spec.in_channels == spec.out_channels:
            return Unsupported(
                f"group must be 1 or equal C and K; got group = {spec.group}, C = {spec.in_channels}, K = {spec.out_channels}"
            )
        if spec.is_pointwise:
            return Unsupported("filter must have more than one tap; got (1, 1)")
        if max(spec.kernel) > LENGTHS[-1]:
            return Unsupported(
                f"filter must have at most {LENGTHS[-1]} taps an axis; got {spec.kernel}"
            )
        return None

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the transforms' lengths, products a bin and block that the model finds fastest."""
        options = []
        for knobs in self._by_lengths(raised(problem.spec), target):
            cycles = self.cycles(problem, target, knobs)
            order = (cycles, knobs["t_h"] * knobs["t_w"], -knobs["rows"], knobs["products"])
            options.append((*order, knobs))
        return min(options, key=lambda option: option[:4])[4]

    def _by_lengths(self, spec: ConvSpec, target: Target) -> Iterator[Knobs]:
        for t_h, t_w in lengths(spec):
            whole = Tiling.of(spec, t_h, t_w).rows
            blocks = _divisors(whole) if spec.group == 1 else (1,)
            for products, rows in itertools.product((3, 4) if spec.group == 1 else (4,), blocks):
                yield self.with_lengths(spec, target, t_h, t_w, products, rows)

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every length, block and number of products; dense, by every tile that divides the block's points."""
        spec = raised(problem.spec)
        vectors = -(-spec.out_channels // channel_block(spec.out_channels, target))
        for knobs in self._by_lengths(spec, target):
            yield knobs
            if spec.group == 1:
                points = knobs["rows"] * Tiling.of(spec, knobs["t_h"], knobs["t_w"]).cols
                for tile in good_tiles(target, 1, points, vectors, whole=True):
                    yield {**knobs, "points": tile.cols, "vectors": tile.vectors}

    def with_lengths(
        self, spec: ConvSpec, target: Target, t_h: int, t_w: int, products: int, rows: int
    ) -> Knobs:
        """Return the knobs for given transforms in blocks of `rows` tile rows, a divisor of their number."""
        block = channel_block(spec.out_channels, target)
        knobs = {
            "data_block": channel_block(spec.in_channels, target),
            "block": block,
            "t_h": t_h,
            "t_w": t_w,
            "products": products,
            "rows": rows,
        }
        if spec.group == 1:
            points = rows * Tiling.of(spec, t_h, t_w).cols
            tile = _register_tile(target, points, -(-spec.out_channels // block), block)
            knobs |= {"points": tile.cols, "vectors": tile.vectors}
        return knobs

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return the cycles of products and transforms, and of what the caches cannot hide."""
        spec, tiling = raised(problem.spec), _tiling(problem, knobs)
        c_blocks = -(-spec.in_channels // knobs["data_block"])
        k_blocks = -(-spec.out_channels // knobs["block"])
        t_h, t_w = tiling.t_h, tiling.t_w
        rows, column = len(row_forward(t_w).steps), len(column_forward(t_h, 4).steps)
        forward = t_h * rows + tiling.bins * column
        inverse = tiling.m_h * rows + tiling.bins * column
        step = max(_CYCLES_PER_STEP[t] for t in (t_h, t_w))
        bins = tiling.bins * t_h
        if spec.group > 1:
            per_tile = (forward + inverse + 6 * bins) * step
            moved = spec.data[0] * k_blocks * tiling.tiles * per_tile
            return max(moved, spec.nbytes / target.core.data) * _CAUTION
        tiles, blocks = knobs["rows"] * tiling.cols, tiling.rows // knobs["rows"]
        C, K = c_blocks * knobs["data_block"], k_blocks * knobs["block"]
        core, memory = target.core, target.memory_bytes
        tile = Tile(1, knobs["points"], knobs["vectors"])
        products = knobs["products"] * bins * C
        products *= tile_cycles(target, tile, 1, tiles, k_blocks, knobs["block"])
        # Each block of tiles streams all of U: from memory the first time, then from where it fits.
        u_bytes = 4 * bins * _planes(knobs) * C * K
        beyond = core.l3 if u_bytes < target.l3_bytes / 2 else memory * 2 / 3
        again = core.l2 if u_bytes < target.l2_bytes / 2 else beyond
        stream = u_bytes / min(memory, again) + u_bytes * (blocks - 1) / again
        moved = tiling.tiles * step * _STORED * (forward * c_blocks + inverse * k_blocks)
        # S and Z of a block are written and read again; beyond L2 that costs time of its own.
        passed = 4 * tiles * t_w * (t_h * C + tiling.m_h * K)
        if passed > target.l2_bytes / 2:
            moved += 2 * blocks * passed / (core.l3 if passed < target.l3_bytes / 2 else memory)
        products *= blocks
        return spec.data[0] * (core.together(products, stream) + moved) * _CAUTION

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return products and transforms; U's growth and what one block of tiles keeps."""
        spec, tiling = problem.spec, _tiling(problem, knobs)
        C, K, bins = spec.in_channels, spec.out_channels, tiling.bins * tiling.t_h
        transforms = 5 * bins * math.log2(max(2, tiling.t_h * tiling.t_w)) * (C + K)
        planes = _planes(knobs) if spec.group == 1 else 2
        pairs = C * K // spec.group
        products = 2 * knobs["products"] * bins * pairs
        flops = spec.data[0] * tiling.tiles * (products + transforms)
        U = 4 * (bins * planes * pairs - math.prod(spec.weight))
        block = 4 * knobs["rows"] * tiling.cols * tiling.t_w * (tiling.t_h * C + tiling.m_h * K)
        return Properties(flops, max(0, U) + block, _ERROR)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = _tiling(problem, knobs).border(raised(problem.spec))
        return Operands(Layout(knobs["data_block"], border), border, Layout(knobs["block"]))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return U, computed in float64 and rounded once.

        Dense: [K/(v b)][t_w/2][t_h][planes][C][v b], three planes (Ui - Ur, Ui + Ur, Ur) or two (Ur, Ui).
        Depthwise: [C/b][t_w/2][t_h][Ur, Ui][b].
        """
        tiling, b = _tiling(problem, knobs), knobs["block"]
        weight = raised_weight(weight)
        k, c = weight.shape[:2]
        bins = (tiling.bins, tiling.t_h)
        if problem.spec.group > 1:
            U = np.zeros((-(-k // b) * b, *bins, 2), weight.dtype)
            U[:k] = np.stack(_spectrum(weight[:, 0], tiling), -1)
            return np.ascontiguousarray(U.reshape(-1, b, *bins, 2).transpose(0, 2, 3, 4, 1))
        lanes, a, planes = knobs["vectors"] * b, knobs["data_block"], _planes(knobs)
        U = np.zeros((-(-k // lanes), *bins, planes, -(-c // a) * a, lanes), weight.dtype)
        for channel in range(k):  # one at a time: all in float64 would be several times the result
            re, im = (part.transpose(1, 2, 0) for part in _spectrum(weight[channel], tiling))
            parts = (im - re, im + re, re) if planes == 3 else (re, im)
            U[channel // lanes, :, :, :, :c, channel % lanes] = np.stack(parts, 2)
        return U

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, U, extras..., result; blocks `S`, dense `V acc M`, `Z`, `Y`, then the epilogue.

        Each transform is the sum that defines it: re + i im times exp(i angle) is cos(angle) and its quarter turns.
        """
        spec = raised(problem.spec)
        tiling, a, b = _tiling(problem, knobs), knobs["data_block"], knobs["block"]
        N, K, P, Q = spec.output
        t_h, t_w, m_h, m_w = tiling.t_h, tiling.t_w, tiling.m_h, tiling.m_w
        border = tiling.border(spec)
        c_blocks, blocks = -(-spec.in_channels // a), -(-K // b)
        height = spec.data[2] + border.top + border.bottom
        width = spec.data[3] + border.left + border.right
        x = te.placeholder((N, c_blocks, height, width, a), spec.dtype, name="data")
        extras = blocked_extras(problem, blocks, b, (N, blocks, P, Q, b))

        # Tiles have one flat index t = row * cols + column, so that a register tile may straddle two rows of tiles.
        j = te.reduce_axis((0, t_w), "j")
        S = te.compute(
            (tiling.bins, N, c_blocks, tiling.tiles, t_h, 2, a),
            lambda h, n, c, t, i, s, lane: te.sum(
                x[n, c, t // tiling.cols * m_h + i, t % tiling.cols * m_w + j, lane]
                * _wave((4 * h + 1) * j, 2 * t_w, s),
                axis=[j],
            ),
            name="S",
        )
        middle = self._depthwise if spec.group > 1 else self._dense
        U, Z = middle(S, tiling, blocks, knobs)
        h, s = te.reduce_axis((0, tiling.bins), "h"), te.reduce_axis((0, 2), "s")
        Y = te.compute(
            (N, blocks, tiling.tiles, m_h, m_w, b),
            lambda n, k, t, p, q, lane: te.sum(
                Z[h, n, k, t, p, s, lane] * _wave((4 * h + 1) * q, 2 * t_w, s), axis=[h, s]
            ),
            name="Y",
        )
        y = te.compute(
            (N, blocks, P, Q, b),
            lambda n, k, p, q, lane: Y[
                n, k, p // m_h * tiling.cols + q // m_w, p % m_h, q % m_w, lane
            ],
            name="unpack",
        )
        return [x, U, *extras, blocked_result(y, problem, extras)]

    def _depthwise(
        self, S: te.Tensor, tiling: Tiling, blocks: int, knobs: Knobs
    ) -> tuple[te.Tensor, te.Tensor]:
        """Return U and Z = sum over bins e of U[e] V[e] exp(2 pi i e p / t_h), with V written out."""
        t_h, b = tiling.t_h, knobs["block"]
        U = te.placeholder((blocks, tiling.bins, t_h, 2, b), S.dtype, name="U")
        e, u = te.reduce_axis((0, t_h), "e"), te.reduce_axis((0, 2), "u")
        i, v = te.reduce_axis((0, t_h), "i"), te.reduce_axis((0, 2), "v")
        Z = te.compute(
            (tiling.bins, S.shape[1], blocks, tiling.tiles, tiling.m_h, 2, b),
            lambda h, n, k, t, p, s, lane: te.sum(
                S[h, n, k, t, i, v, lane]
                * U[k, h, e, u, lane]
                * _wave(e * (p - i + t_h), t_h, u + v - s),
                axis=[e, u, i, v],
            ),
            name="Z",
        )
        return U, Z

    def _dense(
        self, S: te.Tensor, tiling: Tiling, blocks: int, knobs: Knobs
    ) -> tuple[te.Tensor, te.Tensor]:
        """Return U and Z, by way of V and M."""
        t_h, a, b, v, planes = (
            tiling.t_h,
            knobs["data_block"],
            knobs["block"],
            knobs["vectors"],
            _planes(knobs),
        )
        N, c_blocks = S.shape[1], int(S.shape[2])
        groups = -(-blocks // v)
        U = te.placeholder(
            (groups, tiling.bins, t_h, planes, c_blocks * a, v * b), S.dtype, name="U"
        )
        i, s = te.reduce_axis((0, t_h), "i"), te.reduce_axis((0, 2), "s")

        def forward(e: Any, z: Any) -> Any:
            """Plane z of V: (re, im, re + im), or (-im, re, im)."""
            if planes == 2:
                return _wave(e * (t_h - i), t_h, s - z + 1)
            total = _wave(e * (t_h - i), t_h, s) + _wave(e * (t_h - i), t_h, s - 1)
            return tirx.Select(z == 2, total, _wave(e * (t_h - i), t_h, s - z))

        V = te.compute(
            (tiling.bins, t_h, 3, N, c_blocks, tiling.tiles, a),
            lambda h, e, z, n, c, t, lane: te.sum(
                S[h, n, c, t, i, s, lane] * forward(e, z), axis=[i, s]
            ),
            name="V",
        )
        co, ci = te.reduce_axis((0, c_blocks), "co"), te.reduce_axis((0, a), "ci")
        u = te.reduce_axis((0, 2), "u")

        def product(h: Any, e: Any, z: Any, n: Any, o: Any, t: Any, lane: Any) -> Any:
            """Three planes: each by itself. Two: re = Vr Ur + (-Vi) Ui, im = Vi Ur + Vr Ui."""
            if planes == 3:
                return te.sum(
                    V[h, e, z, n, co, t, ci] * U[o, h, e, z, co * a + ci, lane], axis=[co, ci]
                )
            return te.sum(
                V[h, e, 1 + z - u, n, co, t, ci] * U[o, h, e, u, co * a + ci, lane],
                axis=[u, co, ci],
            )

        acc = te.compute(
            (tiling.bins, t_h, planes, N, groups, tiling.tiles, v * b), product, name="acc"
        )
        M = te.compute(acc.shape, lambda *i: acc(*i), name="M")
        e, z = te.reduce_axis((0, t_h), "e"), te.reduce_axis((0, planes), "z")

        def inverse(p: Any, part: Any) -> Any:
            """Coefficient of plane z: of (re, im), or of re = M[2] - M[1] and im = M[2] + M[0]."""
            re, im = (_wave(e * p, t_h, q - part) for q in (0, 1))
            if planes == 2:
                return _wave(e * p, t_h, z - part)
            return tirx.Select(z == 0, im, tirx.Select(z == 1, -re, re + im))

        Z = te.compute(
            (tiling.bins, N, blocks, tiling.tiles, tiling.m_h, 2, b),
            lambda h, n, k, t, p, part, lane: te.sum(
                M[h, e, z, n, k // v, t, k % v * b + lane] * inverse(p, part), axis=[e, z]
            ),
            name="Z",
        )
        return U, Z


def _planes(knobs: Knobs) -> int:
    """Return the planes of U and M: one for each of three products, or re and im."""
    return 3 if knobs["products"] == 3 else 2


def _wave(numerator: Any, denominator: int, quarters: Any) -> Any:
    """Return cos(2 pi numerator / denominator + pi / 2 quarters)."""
    step = (4 * numerator + quarters * denominator) % (4 * denominator)
    return tirx.cos(step.astype("float32") * tirx.const(math.pi / 2 / denominator, "float32"))


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


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


ALGORITHM = Fft()
