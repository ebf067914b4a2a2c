"""Convolution by fast Fourier transforms of overlapping tiles: the fewest multiplications for large filters, stride 1.

THE ALGORITHM   Y = F* [ (F x) . conj(F w) ] per tile of t_h x t_w points, of which the first m_h x m_w results are kept
                (overlap-save: m = t - r + 1; the others have wrapped around). F is the half-bin transform of `fft_transform`:
                t_h t_w / 2 complex bins, all alike. U = conj(F w) / (t_h t_w / 2) at compile time.
                Dense: M[bin] = sum over c of V[bin, c] U[bin, c, k], as 3 or 4 real products of matrices a bin.
                Depthwise: transform of columns, product and inverse in one go.
WHEN            2-D, strides 1, dilations 1, group 1 or group = C = K, weights constant
COST            3/2 or 2 t_h t_w / (m_h m_w) multiplications a channel pair and point; 5 t^2 log2 t operations a tile and channel, twice
ACCURACY        errors are those of a whole tile: |error| <= 4 eps |x tile| |w|, Euclidean norms, summed over channels; see tests
SOURCE          Mathieu, Henaff, LeCun, arXiv:1312.5851 (the idea); Vasilache et al., arXiv:1412.7580 (tiles)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, Problem, channel_block
from convc.schedules.direct import blocked_extras, blocked_result
from convc.schedules.fft_transform import column_forward, row_forward
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.register_tile import Tile, tile_cycles
from convc.target import Target

__all__ = ["ALGORITHM", "TILES", "Fft", "Tiling"]

TILES: Final = (8, 12, 16, 20, 24, 32, 40, 48, 64)

# Cycles of one step of a transform's program, by the longer axis: beyond 24 points values spill and tiles leave L1.
# Measured on Zen 4 as whole depthwise kernels at 128 channels, 56 x 56.
_CYCLES_PER_STEP: Final = {
    1: 0.5, 2: 0.5, 8: 0.5, 12: 0.5, 16: 0.65, 20: 0.62, 24: 0.7, 32: 0.95, 40: 0.9, 48: 1.15, 64: 1.3,
}  # fmt: skip

# Dense transforms scatter their results over planes: times this. Measured on Zen 4 at 64 channels, 56 x 56.
_STORED: Final = 1.6


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a result is cut into tiles.

    Attributes:
        t_h, t_w: points of a tile's transform.
        m_h, m_w: results of a tile.
        rows, cols: number of tiles.
    """

    t_h: int
    t_w: int
    m_h: int
    m_w: int
    rows: int
    cols: int

    @staticmethod
    def of(spec: ConvSpec, t_h: int, t_w: int) -> Tiling:
        """Return the tiles of a result for given transforms, each at least as long as the filter."""
        (R, S), (P, Q) = spec.kernel, spec.output[2:]
        m_h, m_w = min(t_h - R + 1, P), min(t_w - S + 1, Q)
        return Tiling(t_h, t_w, m_h, m_w, -(-P // m_h), -(-Q // m_w))

    @property
    def bins(self) -> int:
        """Complex bins of one row of a tile."""
        return self.t_w // 2

    @property
    def tiles(self) -> int:
        return self.rows * self.cols

    def border(self, spec: ConvSpec) -> Halo:
        """Return how far whole tiles read around the data."""
        top, left = spec.pads[:2]
        height = (self.rows - 1) * self.m_h + self.t_h
        width = (self.cols - 1) * self.m_w + self.t_w
        bottom, right = height - top - spec.data[2], width - left - spec.data[3]
        return Halo(top, left, max(0, bottom), max(0, right))


def _tiling(problem: Problem, knobs: Knobs) -> Tiling:
    return Tiling.of(problem.spec, knobs["t_h"], knobs["t_w"])


def _spectrum(weight: np.ndarray, t_h: int, t_w: int) -> np.ndarray:
    """Return U = conj(F w) / (t_h t_w / 2) of filters (..., R, S) as complex128 (..., t_w/2, t_h)."""
    half_bin = np.exp(-1j * math.pi / t_w * np.arange(weight.shape[-1]))
    rows = np.fft.fft(weight.astype(np.float64) * half_bin, t_w)[..., ::2]
    bins = np.fft.fft(rows, t_h, axis=-2)
    return np.conj(bins).swapaxes(-1, -2) / (t_h * t_w / 2)


class Fft:
    """See the module's text."""

    name = "fft"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        if spec.rank != 2:
            return Unsupported(f"data must have 2 spatial dimensions; got {spec.rank}")
        if spec.transposed:
            return Unsupported("convolution must not be transposed")
        if max(spec.strides) > 1:
            return Unsupported(f"strides must be (1, 1); got {spec.strides}")
        if max(spec.dilations) > 1:
            return Unsupported(f"dilations must be (1, 1); got {spec.dilations}")
        if spec.group > 1 and not (spec.group == spec.in_channels == spec.out_channels):
            return Unsupported(
                f"group must be 1 or equal C and K; got group = {spec.group}, C = {spec.in_channels}, K = {spec.out_channels}"
            )
        if max(spec.kernel) > TILES[-1]:
            return Unsupported(
                f"filter must have at most {TILES[-1]} taps an axis; got {spec.kernel}"
            )
        if spec.is_pointwise:
            return Unsupported("filter must have more than one tap; got (1, 1)")
        if not problem.constant_weight:
            return Unsupported("weights must be constant, to be transformed at compile time")
        if spec.dtype != "float32":
            return Unsupported(f"element type must be float32; got {spec.dtype}")
        return None

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the transforms' lengths, products a bin and block that the model finds fastest."""
        spec = problem.spec
        options = []
        for t_h, t_w in _lengths(spec):
            tiling = Tiling.of(spec, t_h, t_w)
            for products in (3, 4) if spec.group == 1 else (4,):
                for rows in _divisors(tiling.rows) if spec.group == 1 else (1,):
                    knobs = self._with_tiling(spec, target, tiling, products, rows)
                    cycles = self.cycles(problem, target, knobs)
                    options.append((cycles, t_h * t_w, -rows, products, knobs))
        return min(options, key=lambda option: option[:4])[4]

    def _with_tiling(
        self, spec: ConvSpec, target: Target, tiling: Tiling, products: int, rows: int
    ) -> dict[str, int]:
        block = channel_block(spec.out_channels, target)
        knobs = {
            "data_block": channel_block(spec.in_channels, target),
            "block": block,
            "t_h": tiling.t_h,
            "t_w": tiling.t_w,
            "products": products,
            "rows": rows,
        }
        if spec.group == 1:
            tile = _register_tile(target, rows * tiling.cols, -(-spec.out_channels // block))
            knobs |= {"points": tile.cols, "vectors": tile.vectors}
        return knobs

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return the cycles of products and transforms, and of what the caches cannot hide."""
        spec, tiling = problem.spec, _tiling(problem, knobs)
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
            return spec.data[0] * k_blocks * tiling.tiles * per_tile
        tiles, blocks = knobs["rows"] * tiling.cols, tiling.rows // knobs["rows"]
        C, K = c_blocks * knobs["data_block"], k_blocks * knobs["block"]
        width = knobs["block"] / max(target.lanes, knobs["block"])
        tile = Tile(1, knobs["points"], knobs["vectors"])
        products = knobs["products"] * bins * C * tile_cycles(tile, 1, tiles, k_blocks) * width
        # Each block of tiles streams all of U: from memory the first time, then from where it fits.
        u_bytes = 4 * bins * _planes(knobs) * C * K
        again = 32 if u_bytes < target.l2_bytes / 2 else 14 if u_bytes < target.l3_bytes / 2 else 6
        stream = u_bytes / 8 + u_bytes * (blocks - 1) / again
        moved = tiling.tiles * step * _STORED * (forward * c_blocks + inverse * k_blocks)
        # S and Z of a block are written and read again; beyond L2 that costs time of its own.
        passed = 4 * tiles * t_w * (t_h * C + tiling.m_h * K)
        if passed > target.l2_bytes / 2:
            moved += 2 * blocks * passed / (14 if passed < target.l3_bytes / 2 else 6)
        return spec.data[0] * (max(blocks * products, stream) + moved)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = _tiling(problem, knobs).border(problem.spec)
        return Operands(Layout(knobs["data_block"], border), border, Layout(knobs["block"]))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return U, computed in float64 and rounded once.

        Dense: [K/(v b)][t_w/2][t_h][planes][C][v b], three planes (Ui - Ur, Ui + Ur, Ur) or two (Ur, Ui).
        Depthwise: [C/b][t_w/2][t_h][Ur, Ui][b].
        """
        tiling, b = _tiling(problem, knobs), knobs["block"]
        if problem.spec.group > 1:
            bins = _spectrum(weight[:, 0], tiling.t_h, tiling.t_w)
            U = np.zeros((-(-bins.shape[0] // b) * b, *bins.shape[1:], 2), weight.dtype)
            U[: bins.shape[0]] = np.stack([bins.real, bins.imag], -1)
            return np.ascontiguousarray(U.reshape(-1, b, *U.shape[1:]).transpose(0, 2, 3, 4, 1))
        k, c = weight.shape[:2]
        lanes, a, planes = knobs["vectors"] * b, knobs["data_block"], _planes(knobs)
        groups, cp = -(-k // lanes), -(-c // a) * a
        U = np.zeros((groups, tiling.bins, tiling.t_h, planes, cp, lanes), weight.dtype)
        for channel in range(
            k
        ):  # one at a time: the whole in complex128 would be four times the result
            bins = _spectrum(weight[channel], tiling.t_h, tiling.t_w).transpose(1, 2, 0)
            re, im = bins.real, bins.imag
            parts = (im - re, im + re, re) if planes == 3 else (re, im)
            U[channel // lanes, :, :, :, :c, channel % lanes] = np.stack(parts, 2)
        return U

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, U, extras..., result; blocks `S`, dense `V acc M`, `Z`, `Y`, then the epilogue.

        Each transform is the sum that defines it: re + i im times exp(i angle) is cos(angle) and its quarter turns.
        """
        spec = problem.spec
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


def _lengths(spec: ConvSpec) -> list[tuple[int, int]]:
    """Return the lengths (t_h, t_w) to choose among, alike on both axes where filter and result are."""
    axes = []
    for axis, (r, outputs) in enumerate(zip(spec.kernel, spec.output[2:], strict=True)):
        if r == 1:
            # One tap needs no transform; along a row two points make one complex number.
            axes.append([1 + axis])
            continue
        lengths = [t for t in TILES if t > r or t == TILES[-1] >= r]
        whole = [t for t in lengths if t - r + 1 >= outputs]
        axes.append([t for t in lengths if t not in whole[1:]])
    if spec.kernel[0] == spec.kernel[1] and spec.output[2] == spec.output[3]:
        return [(t, t) for t in axes[0]]
    return [(t_h, t_w) for t_h in axes[0] for t_w in axes[1]]


def _register_tile(target: Target, points: int, vectors: int) -> Tile:
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
            tile_cycles(tile, 1, points, vectors) * (1.2 if points % tile.cols else 1),
            -tile.accumulators,
            abs(tile.vectors - 2),
        ),
    )


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


ALGORITHM = Fft()
