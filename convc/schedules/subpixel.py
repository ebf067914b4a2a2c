"""Transposed convolution by phases: each residue of the output position modulo the stride is a small stride-1 convolution.

THE ALGORITHM   with u = p + pad, i = u div stride, phase = u mod stride:
                y[n, k, p, q] = sum over c, t of x[n, c, i - t] w[c, k, phase + t stride]   (both axes alike)
                on x as NCHW[a]c, y as NCHW[b]c, w as [K/(v b)][phases][C/a][T][T][a][v b], T = ceil(R / stride)
WHEN            1-D, 2-D, transposed, dilations 1, group 1
COST            T^2 C FMAs an output point: no zero is inserted; taps beyond R are zeros, at most stride - 1 of R an axis
ACCURACY        one chain of C T^2 fused multiply-adds
SOURCE          Shi et al., arXiv:1609.07009 (sub-pixel equivalence)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from tvm import te

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import (
    Operands,
    Problem,
    channel_block,
    channel_blocks,
    row_chunks,
    row_shares,
)
from convc.schedules.direct import blocked_extras, blocked_result
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised, raised_weight
from convc.schedules.register_tile import Tile, best_tile, good_tiles, tile_cycles
from convc.schedules.requirements import packed_images
from convc.target import Target

__all__ = ["ALGORITHM", "Subpixel"]


def _taps(spec: ConvSpec) -> tuple[int, ...]:
    return tuple(-(-r // s) for r, s in zip(spec.kernel, spec.strides, strict=True))


def _border(spec: ConvSpec) -> Halo:
    """Return how far the phases read around the data: T - 1 before, and after as far as the last output point reaches."""
    before = [t - 1 for t in _taps(spec)]
    after = []
    for axis in range(2):
        last = (spec.output[2 + axis] - 1 + spec.pads[axis]) // spec.strides[axis]
        after.append(max(0, last - (spec.data[2 + axis] - 1)))
    return Halo(before[0], before[1], after[0], after[1])


class Subpixel:
    """See the module's text."""

    name = "subpixel"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        refusal = packed_images(problem, transposed=True, unit_dilations=True, one_group=True)
        if refusal is None and any(
            p % s for p, s in zip(spec.output[2:], spec.strides, strict=True)
        ):
            return Unsupported(
                f"output {spec.output[2:]} must be a multiple of the strides {spec.strides}"
            )
        return refusal

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return tile and blocks; the tile lies in one phase."""
        spec = raised(problem.spec)
        block = channel_block(spec.out_channels, target)
        rows, cols = (p // s for p, s in zip(spec.output[2:], spec.strides, strict=True))
        tile = best_tile(target, rows, cols, -(-spec.out_channels // block), block=block)
        return {
            "data_block": channel_block(spec.in_channels, target),
            "block": block,
            "rows": tile.rows,
            "cols": tile.cols,
            "vectors": tile.vectors,
            "chunks": row_chunks(spec, target, tile.rows, rows),
        }

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every block and good tile of one phase."""
        spec = raised(problem.spec)
        rows, cols = (p // s for p, s in zip(spec.output[2:], spec.strides, strict=True))
        data_blocks = channel_blocks(spec.in_channels, target)
        for block in channel_blocks(spec.out_channels, target):
            for tile in good_tiles(target, rows, cols, -(-spec.out_channels // block), block=block):
                shares = row_shares(target, tile.rows, rows)
                for data_block, chunks in itertools.product(data_blocks, shares):
                    yield {
                        "data_block": data_block,
                        "block": block,
                        "rows": tile.rows,
                        "cols": tile.cols,
                        "vectors": tile.vectors,
                        "chunks": chunks,
                    }

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return FMA cycles of all tiles of all phases."""
        spec = raised(problem.spec)
        tile = Tile(knobs["rows"], knobs["cols"], knobs["vectors"])
        rows, cols = (p // s for p, s in zip(spec.output[2:], spec.strides, strict=True))
        phases, taps = spec.strides[0] * spec.strides[1], _taps(spec)
        steps = spec.data[0] * spec.in_channels * taps[0] * taps[1] * phases
        vectors = -(-spec.out_channels // knobs["block"])
        compute = steps * tile_cycles(target, tile, rows, cols, vectors, knobs["block"])
        return max(compute, spec.nbytes / target.memory_bytes)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = _border(raised(problem.spec))
        data, result = Layout(knobs["data_block"], border), Layout(knobs["block"])
        sh, sw = raised(problem.spec).strides
        return Operands(data, border, result, split=(sh, sw))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return w as [K/(v b)][sh][sw][C/a][T][T][a][v b]; output residue f has taps w[(f + pad) mod stride + t stride]."""
        spec = raised(problem.spec)
        c, k, R, S = raised_weight(weight).shape
        (sh, sw), (tr, ts) = spec.strides, _taps(spec)
        a, wide = knobs["data_block"], knobs["vectors"] * knobs["block"]
        kp, cp = -(-k // wide) * wide, -(-c // a) * a
        padded = np.zeros((cp, kp, tr * sh, ts * sw), weight.dtype)
        padded[:c, :k, :R, :S] = raised_weight(weight)
        parts = padded.reshape(cp // a, a, kp // wide, wide, tr, sh, ts, sw)
        # Phases in the order of the output's residue f, so that the kernel indexes them with f itself.
        order = [[(f + p) % n for f in range(n)] for p, n in zip(spec.pads, spec.strides)]  # noqa: B905 (pads has the ends too)
        residues = parts[:, :, :, :, :, order[0]][:, :, :, :, :, :, :, order[1]]
        return np.ascontiguousarray(residues.transpose(2, 5, 7, 0, 4, 6, 1, 3))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result (N, K/b, P/sh, sh, Q/sw, sw, b), which is NCHW[b]c with H and W split."""
        spec = raised(problem.spec)
        a, b, v = knobs["data_block"], knobs["block"], knobs["vectors"]
        (sh, sw), (tr, ts) = spec.strides, _taps(spec)
        top, left = spec.pads[:2]
        N, K, P, Q = spec.output
        border = _border(spec)
        c_blocks, blocks = -(-spec.in_channels // a), -(-K // b)
        height = spec.data[2] + border.top + border.bottom
        width = spec.data[3] + border.left + border.right
        x = te.placeholder((N, c_blocks, height, width, a), spec.dtype, name="data")
        w = te.placeholder(
            (-(-blocks // v), sh, sw, c_blocks, tr, ts, a, v * b), spec.dtype, name="weight"
        )
        result = (N, blocks, P // sh, sh, Q // sw, sw, b)
        extras = blocked_extras(problem, blocks, b, result)
        co, ci = te.reduce_axis((0, c_blocks), "co"), te.reduce_axis((0, a), "ci")
        r, s = te.reduce_axis((0, tr), "r"), te.reduce_axis((0, ts), "s")

        # Output row p = i sh + f reads data row (p + top) div sh - t = i + (f + top) div sh - t.
        acc = te.compute(
            (N, -(-blocks // v), sh, sw, P // sh, Q // sw, v * b),
            lambda n, k, f, g, i, j, lane: te.sum(
                x[
                    n,
                    co,
                    i + (f + top) // sh - r + border.top,
                    j + (g + left) // sw - s + border.left,
                    ci,
                ]
                * w[k, f, g, co, r, s, ci, lane],
                axis=[co, r, s, ci],
            ),
            name="acc",
        )
        y = te.compute(
            result,
            lambda n, k, i, f, j, g, lane: acc[n, k // v, f, g, i, j, k % v * b + lane],
            name="unpack",
        )
        return [x, w, *extras, blocked_result(y, problem, extras)]


ALGORITHM = Subpixel()
