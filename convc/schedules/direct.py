"""Direct convolution on channel blocks: no transform, no copy, every stride, dilation, pad and channel count.

THE ALGORITHM   y[n, k, p, q] = sum over c, r, s of x[n, c, p stride + r dilation, q stride + s dilation] w[k, c, r, s]
                on x as NCHW[a]c (a = 1 for the first layer), y as NCHW[b]c, w as [K/(v b)][C/a][R][S][a][v b]
                3-D: a depth axis more everywhere, its taps in the sum; one slice of results after another
                groups: each vector of results reads the blocks that its groups' inputs lie in, see `span`
WHEN            any geometry
COST            C/group R S FMAs an output point, C/group rounded up to those blocks; tails of the register tile
ACCURACY        one chain of C R S fused multiply-adds: |error| <= C R S eps (|x| * |w|)
SOURCE          Georganas et al., SC'18 (loop order, layouts); Liu et al., ATC'19 (NCHW[x]c in TVM)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import (
    Operands,
    Problem,
    channel_block,
    channel_blocks,
    gathered_halo,
    row_chunks,
    row_shares,
    turns,
)
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.layout import Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised, raised_weight
from convc.schedules.register_tile import Tile, best_tile, good_tiles, tile_cycles
from convc.schedules.requirements import packed_images
from convc.schedules.span import Span
from convc.target import Target

__all__ = ["ALGORITHM", "Direct"]

# Up to this many input channels the data stays NCHW: a block of 8 or 16 would be mostly padding (RGB images: 3 of 16).
_FEW_CHANNELS = 4


class Direct:
    """See the module's text."""

    name = "direct"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        return packed_images(problem, most_axes=3)

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return tile and blocks."""
        spec = raised(problem.spec)
        block = channel_block(spec.out_channels, target)
        c = spec.in_channels
        data_block = 1 if c <= _FEW_CHANNELS else channel_block(c, target)
        vectors = -(-spec.out_channels // block)
        rows, cols = spec.output[-2:]
        # A tile of more vectors may read the inputs of more groups.
        widest = (4,) if spec.group == 1 else (4, 3, 2, 1)
        tiles = [
            best_tile(target, rows, cols, vectors, block=block, max_vectors=most) for most in widest
        ]
        if target.cores > 1:
            # Another may leave work that threads can share out evenly.
            tiles += good_tiles(target, rows, cols, vectors, block=block)
        options = []
        for tile in tiles:
            knobs = {
                "data_block": data_block,
                "block": block,
                "rows": tile.rows,
                "cols": tile.cols,
                "vectors": tile.vectors,
                "chunks": row_chunks(spec, target, tile.rows, rows),
                **_staged(problem),
            }
            # 5 % for the tile that is best by itself: the model does not see all that it is good at.
            handicap = 1.0 if len(options) < len(widest) else 1.05
            options.append((self.cycles(problem, target, knobs) * handicap, -tile.cols, knobs))
        return min(options, key=lambda option: option[:2])[2]

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every block and good tile."""
        spec = raised(problem.spec)
        rows, cols = spec.output[-2:]
        c = spec.in_channels
        data_blocks = (1,) if c <= _FEW_CHANNELS else channel_blocks(c, target)
        for block in channel_blocks(spec.out_channels, target):
            vectors = -(-spec.out_channels // block)
            for tile in good_tiles(target, rows, cols, vectors, block=block):
                shares = row_shares(target, tile.rows, rows)
                for data_block, chunks in itertools.product(data_blocks, shares):
                    yield {
                        "data_block": data_block,
                        "block": block,
                        "rows": tile.rows,
                        "cols": tile.cols,
                        "vectors": tile.vectors,
                        "chunks": chunks,
                        **_staged(problem),
                    }

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return FMA cycles of all tiles and the part of the weights' way from memory that they do not hide."""
        spec = raised(problem.spec)
        tile = Tile(knobs["rows"], knobs["cols"], knobs["vectors"])
        vectors = -(-spec.out_channels // knobs["block"])
        c = _channels(spec, knobs["data_block"], _span(spec, knobs))
        slices = math.prod(spec.output[2:-2])
        steps = spec.data[0] * slices * c * math.prod(spec.kernel)
        rows, cols = spec.output[-2:]
        compute = steps * tile_cycles(target, tile, rows, cols, vectors, knobs["block"])
        weights = 4 * math.prod(spec.weight) / target.memory_bytes
        cycles = max(target.core.together(compute, weights), spec.nbytes / target.core.data)
        return cycles * turns(_units(spec, knobs), target)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = gathered_halo(problem.spec)
        return Operands(Layout(knobs["data_block"], border), border, Layout(knobs["block"]))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return w as [K/(v b)][C/a][R][S][a][v b], padded with zeros."""
        a, span = knobs["data_block"], _span(raised(problem.spec), knobs)
        spread = span.spread(raised_weight(weight))
        vectors, wide, _, *taps = spread.shape
        blocked = spread.reshape(vectors, wide, span.blocks, a, *taps)
        return np.ascontiguousarray(np.moveaxis(blocked, (3, 1), (-2, -1)))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result; blocks named `acc` (the reduction) and the epilogue after it."""
        spec = raised(problem.spec)
        a, b, v = knobs["data_block"], knobs["block"], knobs["vectors"]
        N, K, *points = spec.output
        extents = gathered_halo(spec).around(spec.data[2:])
        blocks = -(-K // b)
        wide, span = -(-blocks // v), _span(spec, knobs)
        x = te.placeholder((N, span.all_blocks, *extents, a), spec.dtype, name="data")
        w = te.placeholder((wide, span.blocks, *spec.kernel, a, v * b), spec.dtype, name="weight")
        extras = blocked_extras(problem, blocks, b, (N, blocks, *points, b))
        # Halves are widened once a tile, whole vectors at a time, not one by one for each product.
        read = te.compute(x.shape, lambda *i: x(*i), name="single") if knobs.get("stage") else x
        co, ci, taps, axes = _reduction(spec, a, span)

        def product(n, k, *at):
            *p, lane = at
            steps = zip(p, spec.strides, taps, spec.dilations, strict=True)
            position = [i * stride + r * dilation for i, stride, r, dilation in steps]
            value = read(n, span.first(k) + co, *position, ci) * w(k, co, *taps, ci, lane)
            return te.sum(value, axis=axes)

        acc = te.compute((N, wide, *points, v * b), product, name="acc")
        y = te.compute(
            (N, blocks, *points, b),
            lambda n, k, *at: acc(n, k // v, *at[:-1], k % v * b + at[-1]),
            name="unpack",
        )
        return [x, w, *extras, blocked_result(y, problem, extras)]


def _staged(problem: Problem) -> Knobs:
    """Return the knob that data stored in half the width has."""
    return {"stage": 1} if problem.stored else {}


def _channels(spec: ConvSpec, block: int, span: Span) -> int:
    """Return the input channels that one output channel's sum runs over: of one tap without those that only fill the last block.

    24 channels in blocks of 16 are 24 steps then, not 32. With more taps the blocks must be the outer loop, for the sake of L1.
    """
    exact = spec.is_pointwise and spec.group == 1
    return spec.in_channels if exact else span.blocks * block


def _reduction(
    spec: ConvSpec, block: int, span: Span
) -> tuple[te.Tensor, te.Tensor, list[te.Tensor], list[te.Tensor]]:
    """Return (block of channels, channel in it, taps) and the axes that they are summed over, outermost first."""
    channels = _channels(spec, block, span)
    if channels % block:
        c = te.reduce_axis((0, channels), "c")
        return c // block, c % block, [tirx.const(0, "int32")] * len(spec.kernel), [c]
    co, ci = te.reduce_axis((0, span.blocks), "co"), te.reduce_axis((0, block), "ci")
    taps = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(spec.kernel)]
    return co, ci, taps, [co, *taps, ci]


def _units(spec: ConvSpec, knobs: Knobs) -> int:
    """Return how many equal parts the schedule shares out: parts of the rows; or slices, channel groups and, undivided, tile rows."""
    outer, rows = spec.data[0] * math.prod(spec.output[2:-2]), spec.output[-2]
    if knobs.get("chunks", 1) > 1:
        return outer * knobs["chunks"]
    groups = -(-spec.out_channels // (knobs["vectors"] * knobs["block"]))
    return outer * groups * (1 if rows % knobs["rows"] else rows // knobs["rows"])


def _span(spec: ConvSpec, knobs: Knobs) -> Span:
    return Span.of(spec, knobs["data_block"], knobs["vectors"] * knobs["block"])


ALGORITHM = Direct()
