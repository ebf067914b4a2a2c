"""Transposed convolution by phases: each residue of the output position modulo the stride is a small stride-1 convolution.

THE ALGORITHM   with u = p + pad, p = i stride + f, an output reads the taps r with (u - r dilation) divisible by the stride: every
                `period`-th one from the first, period = stride / gcd(stride, dilation), T = ceil(R / period) of them:
                y[n, k, p, q] = sum over c, t of x[n, c, i + first(f) - t step] w[c, k, r(f) + t period]    step = dilation / gcd
                on x as NCHW[a]c, y as NCHW[b]c, w as [K/(v b)][phases][C/a][T][T][a][v b]; all axes alike
                groups: each vector of results reads the blocks that its groups' inputs lie in, see `span`
                one point of data: each result is a phase, see `phased`
WHEN            transposed
COST            T^2 C/group FMAs an output point: no zero is inserted; taps beyond R are zeros, at most period - 1 of R an axis. Where the
                output is no multiple of the strides, the phases are written apart and copied together
ACCURACY        one chain of C/group T^2 fused multiply-adds
SOURCE          Shi et al., arXiv:1609.07009 (sub-pixel equivalence)
"""

from __future__ import annotations

import itertools
import math
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
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.layout import Halo, Layout
from convc.schedules.phase_sums import phase_sums
from convc.schedules.phases import by_phase, is_even, phased, phases_of
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised_weight
from convc.schedules.register_tile import Tile, best_tile, good_tiles, tile_cycles
from convc.schedules.requirements import packed_images
from convc.schedules.span import Span, swapped
from convc.target import Target

__all__ = ["ALGORITHM", "Subpixel"]


def _span(spec: ConvSpec, knobs: Knobs) -> Span:
    return Span.of(spec, knobs["data_block"], knobs["vectors"] * knobs["block"])


class Subpixel:
    """See the module's text."""

    name = "subpixel"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        return packed_images(problem, transposed=True, most_axes=3)

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return tile and blocks; the tile lies in one phase."""
        spec = phased(problem.spec)
        block = channel_block(spec.out_channels, target)
        vectors = -(-spec.out_channels // block)
        *_, high, wide = phases_of(spec)
        options = []
        # A tile of more vectors may read the inputs of more groups.
        for widest in (4,) if spec.group == 1 else (1, 2, 3, 4):
            tile = best_tile(
                target, high.count, wide.count, vectors, block=block, max_vectors=widest
            )
            knobs = {
                "data_block": channel_block(spec.in_channels, target),
                "block": block,
                "rows": tile.rows,
                "cols": tile.cols,
                "vectors": tile.vectors,
                "chunks": row_chunks(spec, target, tile.rows, high.count),
            }
            options.append((self.cycles(problem, target, knobs), -widest, knobs))
        return min(options, key=lambda option: option[:2])[2]

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every block and good tile of one phase."""
        spec = phased(problem.spec)
        *_, high, wide = phases_of(spec)
        data_blocks = channel_blocks(spec.in_channels, target)
        for block in channel_blocks(spec.out_channels, target):
            vectors = -(-spec.out_channels // block)
            for tile in good_tiles(target, high.count, wide.count, vectors, block=block):
                shares = row_shares(target, tile.rows, high.count)
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
        """Return FMA cycles of all tiles of all phases, and the copy of phases that were written apart."""
        spec = phased(problem.spec)
        tile = Tile(knobs["rows"], knobs["cols"], knobs["vectors"])
        *outer, high, wide = phases = phases_of(spec)
        steps = spec.data[0] * _span(spec, knobs).blocks * knobs["data_block"]
        steps *= math.prod(p.taps * p.stride for p in phases) * math.prod(p.count for p in outer)
        vectors = -(-spec.out_channels // knobs["block"])
        compute = steps * tile_cycles(target, tile, high.count, wide.count, vectors, knobs["block"])
        if not is_even(spec):
            compute += 2 * math.prod(spec.output) / knobs["block"]
        return max(compute, spec.nbytes / target.core.data)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        spec = phased(problem.spec)
        phases = phases_of(spec)
        border = Halo.of([p.before for p in phases], [p.after for p in phases])
        data, result = Layout(knobs["data_block"], border), Layout(knobs["block"])
        return Operands(data, border, result, split=spec.strides if is_even(spec) else None)

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return w as [K/(v b)][phases][C/a][T][T][a][v b], a phase for each residue of the output's position."""
        spec = phased(problem.spec)
        span, phases, a = _span(spec, knobs), phases_of(spec), knobs["data_block"]
        spread = span.spread(swapped(raised_weight(weight), spec.group))
        vectors, wide = spread.shape[:2]
        blocked = spread.reshape(vectors, wide, span.blocks, a, *spread.shape[3:])
        packed = by_phase(blocked, 4, phases)
        order = np.moveaxis(packed, (3, 1), (-2, -1))  # [K/(v b)][C/a][phases][T][T][a][v b]
        return np.ascontiguousarray(np.moveaxis(order, 1, 1 + spec.rank))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result; blocks `acc` and, for phases that are written apart, `phases`.

        The result is (N, K/b, P/sh, sh, Q/sw, sw, b), which is NCHW[b]c with H and W split, unless the phases are written apart.
        """
        spec = phased(problem.spec)
        border = self.operands(problem, target, knobs).border
        sums = phase_sums(
            spec, _span(spec, knobs), border, knobs, (spec.dtype, spec.dtype), knobs["data_block"]
        )
        extras = blocked_extras(problem, sums.shape[1], knobs["block"], sums.shape)
        y = te.compute(sums.shape, sums.at, name="unpack")
        return [sums.data, sums.weight, *extras, blocked_result(y, problem, extras)]


ALGORITHM = Subpixel()
