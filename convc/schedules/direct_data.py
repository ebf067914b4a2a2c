"""How `direct` reads its data: where they are, gathered before, in pairs of bfloat16, or without most of the padding."""

from __future__ import annotations

import math
from typing import Final

from tvm import te

from convc.ir.spec import ConvSpec
from convc.schedules import clipping
from convc.schedules.algorithm import Problem
from convc.schedules.channel_parts import part_counts
from convc.schedules.plan import Knobs
from convc.schedules.rank import raised
from convc.schedules.register_tile import Tile
from convc.target import Target

__all__ = ["DOT_BF16", "PAIRED", "gathered", "lines_from_l2", "pairs_products", "ways"]

# Channels of a block that is read in pairs: at least so many.
PAIRED: Final = 4

# LLVM's name of vdpbf16ps on 512 bits: (sums, 32 bfloat16, 32 bfloat16) -> sums.
DOT_BF16: Final = "llvm.x86.avx512bf16.dpbf16ps.512"


# Cycles of a line of plain data with a stride that does not stay in L1 while the output channels pass, and from which share of L1 on the
# first do not, and none. On a Zen 4 (32 KB), patches of 3 channels without overlap, time over the model's without this: 8 x 8 (10 KB a
# strip) 1.05, 14 x 14 (28 KB) 1.08 and 1.38, 16 x 16 (43 KB) 1.73 to 1.78, 32 x 32 (86 KB) 2.66.
_LINE: Final = 6.0
_LEAVES_L1: Final = (0.85, 1.15)


def gathered(x: te.Tensor, spec: ConvSpec) -> te.Tensor:
    """Return the points of the data that a strided filter of one tap reads, one behind the other."""
    n, blocks, *_, a = x.shape
    return te.compute(
        (n, blocks, *spec.output[2:], a),
        lambda n, c, *at: x(n, c, *(i * s for i, s in zip(at[:-1], spec.strides, strict=True)), at[-1]),
        name="gathered",
    )  # fmt: skip


def ways(problem: Problem, target: Target) -> list[Knobs]:
    """Return the ways to read the data.

    Of half the width: widened a tile at a time, or in pairs by an instruction for them. Where much is padding: with it, or without, see
    `clipping`, and then in parts of the channels, see `channel_parts`. With one tap and a stride: where they are, or gathered before, since
    of what lies between them the hardware fetches half anyway, again for each group of channels.
    """
    if not problem.stored:
        strided = problem.spec.is_pointwise and max(problem.spec.strides) > 1
        if strided:
            return [{"gather": 0}, {"gather": 1}]
        spec = raised(problem.spec)
        if counts := part_counts(spec, target):
            # Threads share out groups of output channels then: the sums of a part are of all rows.
            several = [{"clip": 1, "parts": parts, "chunks": 1} for parts in counts if parts > 1]
            return [{"clip": 0, "parts": 1}, {"clip": 1, "parts": 1}, *several]
        return [{"clip": 0}, {"clip": 1}] if clipping.clips(spec) else [{}]
    pairs = [{"stage": 0, "pairs": 1}] if pairs_products(problem, target) else []
    return [{"stage": 1, "pairs": 0}, *pairs]


def pairs_products(problem: Problem, target: Target) -> bool:
    """Whether an instruction adds pairs of products of the problem's bfloat16."""
    has_dot = "avx512bf16" in target.features and target.lanes == 16
    return has_dot and problem.stored == "bfloat16" and problem.constant_weight


def lines_from_l2(spec: ConvSpec, target: Target, tile: Tile, vectors: int) -> float:
    """Return the cycles of plain data's lines that are read from L2 for every tile."""
    stride = spec.strides[-1]
    row = -(-4 * ((tile.cols - 1) * stride + spec.kernel[-1]) // 64)
    rows = (
        spec.in_channels
        * math.prod(spec.kernel[:-2])
        * ((tile.rows - 1) * spec.strides[-2] + spec.kernel[-2])
    )
    least, most = _LEAVES_L1
    over = (64 * row * rows / target.l1_bytes - least) / (most - least)
    if stride == 1 or over <= 0:
        return 0.0
    out_rows, cols = spec.output[-2:]
    tiles = (
        spec.data[0]
        * math.prod(spec.output[2:-2])
        * -(-out_rows // tile.rows)
        * -(-cols // tile.cols)
    )
    return _LINE * min(1.0, over) * row * rows * tiles * -(-vectors // tile.vectors)
