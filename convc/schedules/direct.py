"""Direct convolution on channel blocks: no transform, no copy, every stride, dilation, pad and channel count.

THE ALGORITHM   y[n, k, p, q] = sum over c, r, s of x[n, c, p stride + r dilation, q stride + s dilation] w[k, c, r, s]
                on x as NCHW[a]c (a = 1 for the first layer), y as NCHW[b]c, w as [K/(v b)][C/a][R][S][a][v b]
                3-D: a depth axis more everywhere, its taps in the sum; one slice of results after another
WHEN            weights constant; groups only if C/group and K/group are whole blocks
COST            C/group R S FMAs an output point; tails of the register tile and of the last channel block
ACCURACY        one chain of C R S fused multiply-adds: |error| <= C R S eps (|x| * |w|)
SOURCE          Georganas et al., SC'18 (loop order, layouts); Liu et al., ATC'19 (NCHW[x]c in TVM)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from tvm import te

from convc.schedules.algorithm import (
    Operands,
    Problem,
    channel_block,
    channel_blocks,
    gathered_halo,
    row_chunks,
    row_shares,
)
from convc.schedules.layout import Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised, raised_weight
from convc.schedules.register_tile import Tile, best_tile, good_tiles, tile_cycles
from convc.schedules.requirements import packed_images
from convc.schedules.scalar import apply_steps, zero_beyond
from convc.target import Target

__all__ = ["ALGORITHM", "Direct", "blocked_extras", "blocked_result"]

# Up to this many input channels the data stays NCHW: a block of 8 or 16 would be mostly padding (RGB images: 3 of 16).
_FEW_CHANNELS = 4


def blocked_extras(
    problem: Problem, blocks: int, block: int, result: tuple[int, ...]
) -> list[te.Tensor]:
    """Return placeholders of an epilogue's operands: bias as (blocks, block), residual like the result."""
    extras = []
    for step in problem.epilogue:
        if step.takes_operand:
            shape = (blocks, block) if step.name == "bias" else result
            extras.append(te.placeholder(shape, problem.spec.dtype, name=step.name))
    return extras


def blocked_result(y: te.Tensor, problem: Problem, extras: Sequence[te.Tensor]) -> te.Tensor:
    """Return the epilogue of `y` (N, K/b, ..., b)."""

    def bias(y: te.Tensor, b: te.Tensor) -> te.Tensor:
        return te.compute(y.shape, lambda n, k, *i: y(n, k, *i) + b[k, i[-1]], name="bias_add")

    y = apply_steps(y, problem.epilogue, extras, bias)
    return zero_beyond(y, problem.spec.out_channels, int(y.shape[-1]))


class Direct:
    """See the module's text."""

    name = "direct"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        refusal = packed_images(problem, most_axes=3)
        if refusal is None and spec.group > 1:
            c, k = spec.in_channels // spec.group, spec.out_channels // spec.group
            if c % target.lanes or k % target.lanes:
                return Unsupported(
                    f"channels per group must be multiples of {target.lanes}; got C/group = {c}, K/group = {k}"
                )
        return refusal

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return tile and blocks."""
        spec = raised(problem.spec)
        block = channel_block(spec.out_channels, target)
        c = spec.in_channels
        data_block = 1 if c <= _FEW_CHANNELS else channel_block(c, target)
        vectors = -(-spec.out_channels // spec.group // block)
        rows, cols = spec.output[-2:]
        widest = 4 if spec.group == 1 else _greatest_divisor(vectors, 4)
        tile = best_tile(target, rows, cols, vectors, block=block, max_vectors=widest)
        if spec.group > 1 and vectors % tile.vectors:
            tile = best_tile(target, rows, cols, 1, block=block)
        return {
            "data_block": data_block,
            "block": block,
            "rows": tile.rows,
            "cols": tile.cols,
            "vectors": tile.vectors,
            "chunks": row_chunks(spec, target, tile.rows, rows),
        }

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every block and good tile; a tile of grouped channels lies in one group."""
        spec = raised(problem.spec)
        rows, cols = spec.output[-2:]
        c = spec.in_channels
        data_blocks = (1,) if c <= _FEW_CHANNELS else channel_blocks(c, target)
        for block in channel_blocks(spec.out_channels, target):
            vectors = -(-spec.out_channels // spec.group // block)
            widths = [v for v in (1, 2, 3, 4) if spec.group == 1 or vectors % v == 0]
            for tile in good_tiles(target, rows, cols, vectors, block=block, vectors=widths):
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
        """Return FMA cycles of all tiles and the part of the weights' way from memory that they do not hide."""
        spec = raised(problem.spec)
        tile = Tile(knobs["rows"], knobs["cols"], knobs["vectors"])
        vectors = -(-spec.out_channels // knobs["block"])
        c = -(-spec.in_channels // spec.group // knobs["data_block"]) * knobs["data_block"]
        slices = math.prod(spec.output[2:-2])
        steps = spec.data[0] * slices * c * math.prod(spec.kernel)
        rows, cols = spec.output[-2:]
        compute = steps * tile_cycles(target, tile, rows, cols, vectors, knobs["block"])
        weights = 4 * math.prod(spec.weight) / target.memory_bytes
        return max(target.core.together(compute, weights), spec.nbytes / target.memory_bytes)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = gathered_halo(problem.spec)
        return Operands(Layout(knobs["data_block"], border), border, Layout(knobs["block"]))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return w as [K/(v b)][C/a][R][S][a][v b], padded with zeros."""
        weight = raised_weight(weight)
        k, c, *taps = weight.shape
        a, wide = knobs["data_block"], knobs["vectors"] * knobs["block"]
        kp, cp = -(-k // wide) * wide, -(-c // a) * a
        padded = np.zeros((kp, cp, *taps), weight.dtype)
        padded[:k, :c] = weight
        blocked = padded.reshape(kp // wide, wide, cp // a, a, *taps)
        return np.ascontiguousarray(np.moveaxis(blocked, (3, 1), (-2, -1)))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result; blocks named `acc` (the reduction) and the epilogue after it."""
        spec = raised(problem.spec)
        a, b, v = knobs["data_block"], knobs["block"], knobs["vectors"]
        N, K, *points = spec.output
        extents = gathered_halo(spec).around(spec.data[2:])
        blocks = -(-K // b)
        wide = -(-blocks // v)
        group_c, group_k = (
            -(-spec.in_channels // spec.group // a),
            -(-(K // spec.group) // (v * b)),
        )
        x = te.placeholder((N, -(-spec.in_channels // a), *extents, a), spec.dtype, name="data")
        w = te.placeholder((wide, group_c, *spec.kernel, a, v * b), spec.dtype, name="weight")
        extras = blocked_extras(problem, blocks, b, (N, blocks, *points, b))
        co, ci = te.reduce_axis((0, group_c), "co"), te.reduce_axis((0, a), "ci")
        taps = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(spec.kernel)]

        def first(k):  # the input block at which output block k's group begins
            return k // group_k * group_c if spec.group > 1 else 0

        def product(n, k, *at):
            *p, lane = at
            axes = zip(p, spec.strides, taps, spec.dilations, strict=True)
            position = [i * stride + r * dilation for i, stride, r, dilation in axes]
            return te.sum(
                x(n, first(k) + co, *position, ci) * w(k, co, *taps, ci, lane), axis=[co, *taps, ci]
            )

        acc = te.compute((N, wide, *points, v * b), product, name="acc")
        y = te.compute(
            (N, blocks, *points, b),
            lambda n, k, *at: acc(n, k // v, *at[:-1], k % v * b + at[-1]),
            name="unpack",
        )
        return [x, w, *extras, blocked_result(y, problem, extras)]


def _greatest_divisor(n: int, limit: int) -> int:
    return max(d for d in range(1, limit + 1) if n % d == 0)


ALGORITHM = Direct()
