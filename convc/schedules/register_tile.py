"""Choosing the register tile: `rows x cols` result points times `vectors` vectors of output channels, all in registers.

Each step of the reduction loads `vectors` weight vectors, broadcasts `rows * cols` data scalars and does `rows * cols * vectors`
FMAs. Where two FMAs of whole vectors are issued a cycle, those loads decide, and 14 points x 2 vectors is the best tile. On Zen 4, which
issues one, 14 points x 1 vector wins (113 to 117 GFLOP/s of 118 on ResNet-50's and MobileNetV2's layers): as many sums as the latency
needs, and the end of a tile is short enough to be hidden behind the next one. 14 x 2 reaches 107 to 115, 7 x 4 spills (28 + 4 + 1
registers) and falls to 88.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from convc.target import Target

__all__ = ["Tile", "best_tile", "good_tiles", "tile_cycles", "whole_tile"]

# The model's error for one tile is a few percent; one that it finds so much slower than the best is not worth building.
_SLACK: Final = 1.2


@dataclass(frozen=True, slots=True)
class Tile:
    """Points and vectors in registers."""

    rows: int
    cols: int
    vectors: int

    @property
    def accumulators(self) -> int:
        return self.rows * self.cols * self.vectors

    def fits(self, target: Target) -> bool:
        """Whether accumulators, weight vectors and one broadcast fit the register file."""
        return self.accumulators + self.vectors + 1 <= target.registers


def _step_cycles(target: Target, points: int, vectors: int, block: int) -> float:
    """Cycles of one reduction step of a tile: FMAs, or its loads, or the latency of too few chains."""
    core, lanes = target.core, target.lanes
    fmas = points * vectors / core.fmas_of(lanes, block)
    loads = points / core.scalars_of(lanes, block) + vectors / core.loads_of(lanes, block)
    factor = core.tile_factor(points, vectors, block >= lanes)
    return max(factor * fmas, loads, core.latency)


def tile_cycles(
    target: Target, tile: Tile, rows: int, cols: int, channel_vectors: int, block: int
) -> float:
    """Return the cycles of one reduction step over a whole plane and all channel vectors, tails included.

    Args:
        target: the machine.
        tile: the register tile.
        rows: of the plane.
        cols: of the plane.
        channel_vectors: vectors of output channels.
        block: elements of such a vector.
    """
    groups = -(-channel_vectors // tile.vectors)
    full_rows, tail_rows = divmod(rows, tile.rows)
    full_cols, tail_cols = divmod(cols, tile.cols)
    total = 0.0
    for r, rn in ((tile.rows, full_rows), (tail_rows, 1 if tail_rows else 0)):
        for c, cn in ((tile.cols, full_cols), (tail_cols, 1 if tail_cols else 0)):
            if rn and cn:
                total += rn * cn * _step_cycles(target, r * c, tile.vectors, block)
    return total * groups


def best_tile(
    target: Target,
    rows: int,
    cols: int,
    channel_vectors: int,
    *,
    block: int = 0,
    max_vectors: int = 4,
    max_width: int = 0,
) -> Tile:
    """Return the tile with the fewest cycles for a plane; on ties the one with fewer weight vectors, then wider.

    `block` is the elements of a vector, a whole register if left out; `max_width` bounds the tile's columns.

    Example:
        >>> from convc.target import Target
        >>> zen4 = Target("llvm", "x86_64-linux-gnu", "znver4", (), 16, 32)
        >>> best_tile(zen4, 56, 56, 4)
        Tile(rows=1, cols=14, vectors=1)
        >>> xeon = Target("llvm", "x86_64-linux-gnu", "emeraldrapids", (), 16, 32)
        >>> best_tile(xeon, 56, 56, 4), best_tile(xeon, 7, 7, 32)
        (Tile(rows=1, cols=14, vectors=2), Tile(rows=1, cols=7, vectors=2))
    """
    best: tuple[tuple[float, int, int, int], Tile] | None = None
    for vectors in range(1, min(max_vectors, channel_vectors) + 1):
        points = (target.registers - 1 - vectors) // vectors
        for width in range(1, min(cols, points, max_width or points) + 1):
            for height in range(1, min(rows, points // width) + 1):
                tile = Tile(height, width, vectors)
                # 2 vectors measured best at equal cycles (6 x 4: same speed, four times the code in the tails).
                order = (
                    tile_cycles(target, tile, rows, cols, channel_vectors, block or target.lanes),
                    abs(vectors - 2),
                    height,
                    -width,
                )
                if tile.fits(target) and (best is None or order < best[0]):
                    best = (order, tile)
    assert best is not None, f"{target} has too few registers for any tile"
    return best[1]


def good_tiles(
    target: Target,
    rows: int,
    cols: int,
    channel_vectors: int,
    *,
    block: int = 0,
    vectors: Sequence[int] = (1, 2, 3, 4),
    whole: bool = False,
) -> list[Tile]:
    """Return the tiles worth measuring: they fit the registers, and their tails cost at most a fifth more than the best one's.

    Args:
        target: the machine.
        rows: of the plane.
        cols: of the plane.
        channel_vectors: vectors of output channels.
        block: elements of such a vector; a whole register if left out.
        vectors: how many of them a tile may hold.
        whole: only tiles whose columns divide the plane's.

    Example:
        >>> from convc.target import Target
        >>> zen4 = Target("llvm", "x86_64-linux-gnu", "znver4", (), 16, 32)
        >>> [(t.rows, t.cols, t.vectors) for t in good_tiles(zen4, 56, 56, 4, whole=True)][:3]
        [(14, 1, 1), (7, 2, 1), (2, 7, 1)]
    """
    found = []
    for v in vectors:
        points = (target.registers - 1 - v) // v
        if v > channel_vectors or points < 1:
            continue
        for c in range(1, min(cols, points) + 1):
            if whole and cols % c:
                continue
            for r in range(1, min(rows, points // c) + 1):
                tile = Tile(r, c, v)
                cycles = tile_cycles(
                    target, tile, rows, cols, channel_vectors, block or target.lanes
                )
                found.append((cycles, tile))
    least = min((cycles for cycles, _ in found), default=0.0)
    # Of equal ones those with more sums: they read the weights less often.
    found.sort(key=lambda pair: (pair[0], -pair[1].accumulators))
    return [tile for cycles, tile in found if cycles <= _SLACK * least]


def whole_tile(target: Target, points: int, vectors: int, block: int) -> Tile:
    """Return the best tile whose points divide a block's: a tail in a block of a transform costs up to half the speed.

    LLVM unrolls the few tiles of a block into each other and spills their accumulators (45 points: 9 x 2 gives 347 GFLOP/s,
    14 x 2 with a tail of 3 gives 287).
    """
    tiles = [
        Tile(1, p, v)
        for p in range(1, points + 1)
        for v in range(1, min(4, vectors) + 1)
        if points % p == 0 and Tile(1, p, v).fits(target)
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
