"""The moves that every CPU kernel with accumulators shares: inline the epilogue, keep the tile in registers, split off tails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import s_tir, tirx

from convc.schedules.plan import Knobs
from convc.schedules.sharing import to_share
from convc.target import Target

__all__ = [
    "Block",
    "Loop",
    "accumulate",
    "blocks_of",
    "extent",
    "fused",
    "inline_between",
    "own_loops",
    "parallelize",
    "reductions",
    "share_evenly",
    "share_rows",
    "split_tail",
    "tile_product",
]

Loop = Any  # s_tir's handles of loops and blocks have no public classes
Block = Any


def blocks_of(sch: s_tir.Schedule) -> list[Block]:
    """Return all blocks but the root, producers first."""
    return list(sch.get_child_blocks(sch.get_sblock("root")))


def extent(sch: s_tir.Schedule, loop: Loop) -> int:
    """Return how often a loop runs."""
    return int(sch.get(loop).extent)


def fused(sch: s_tir.Schedule, loops: Sequence[Loop]) -> Loop:
    """Return one loop instead of some."""
    return sch.fuse(*loops) if len(loops) > 1 else loops[0]


def inline_between(sch: s_tir.Schedule, keep: Sequence[str]) -> Block:
    """Inline every elementwise block but the named ones and the last; return the last.

    Rewrite:
        acc = ...;  unpack = acc;  bias_add = unpack + b;  relu = max(bias_add, 0)
        -->
        acc = ...;  relu = max(acc + b, 0)
    """
    *earlier, last = blocks_of(sch)
    for block in earlier:
        if sch.get(block).name_hint not in keep:
            sch.compute_inline(block)
    return last


def split_tail(sch: s_tir.Schedule, loop: Loop, extent: int, factor: int) -> tuple[Loop, Loop]:
    """Split a loop; when `factor` does not divide `extent` the tail becomes code of its own.

    The hint makes TVM's LoopPartition peel the last iteration, so that the main part has no test in it, and the tail, once
    unrolled, has only constant ones.
    """
    outer, inner = sch.split(loop, [None, factor])
    if extent % factor:
        sch.annotate(outer, "pragma_loop_partition_hint", 1)
    return outer, inner


def accumulate(
    sch: s_tir.Schedule, acc: Block, at: Loop, reductions: int, lanes: int, *, unroll: int = 0
) -> Loop:
    """Compute `acc` at a tile loop in registers.

    Rewrite:
        for tile: acc[all] = sum(...)
        -->
        for tile:
            local[points, vectors] = 0
            for reductions: for points (unrolled): for vectors (unrolled): local[...] += ... (one vector instruction)

    Args:
        sch: the schedule.
        acc: the block, its last spatial axis a multiple of `lanes`.
        at: the loop that one tile is one iteration of.
        reductions: how many reduction axes it has.
        lanes: elements of one vector.
        unroll: how many of the innermost reductions to unroll as well.

    Returns:
        The outermost reduction loop, before which the accumulators are zeroed.
    """
    sch.compute_at(acc, at, preserve_unit_loops=True)
    sch.set_scope(acc, 0, "local")
    # compute_at puts the block's own loops below the tile's, spatial first, then reductions.
    loops = sch.get_loops(acc)
    axes = sch.get(acc).iter_vars
    own = loops[len(loops) - len(axes) :]
    spatial, reduced = own[:-reductions], own[-reductions:]
    sch.reorder(*reduced, *spatial)
    outer, inner = sch.split(spatial[-1], [None, lanes])
    for loop in (*spatial[:-1], outer, *(reduced[-unroll:] if unroll else ())):
        sch.unroll(loop)
    sch.vectorize(inner)
    return reduced[0]


def reductions(sch: s_tir.Schedule, block: Block) -> int:
    """Return how many reduction axes a block has."""
    return sum(axis.iter_type == tirx.IterVar.CommReduce for axis in sch.get(block).iter_vars)


def own_loops(sch: s_tir.Schedule, block: Block) -> list[Loop]:
    """Return the loops of the block's own axes, innermost last."""
    loops = sch.get_loops(block)
    return list(loops[len(loops) - len(sch.get(block).iter_vars) :])


def tile_product(
    sch: s_tir.Schedule, acc: Block, M: Block, knobs: Knobs, outer: Sequence[int]
) -> Loop:
    """Schedule the matrix products of a transform's places by the register tile, and return the first reduction loop.

    Args:
        sch: the schedule.
        acc: the sums.
        M: their copy, at its place; its last two axes are the tiles, which are the points of the product, and the lanes.
        knobs: `points` of a register tile and `block`, elements of a vector.
        outer: the order of the other axes.
    """
    *axes, tiles, lane = own_loops(sch, M)
    sch.reorder(*(axes[i] for i in outer), tiles, lane)
    count = int(sch.get(tiles).extent)
    po, pi = split_tail(sch, tiles, count, min(knobs["points"], count))
    vector, lanes = sch.split(lane, [None, knobs["block"]])
    first = accumulate(sch, acc, po, reductions(sch, acc), knobs["block"])
    sch.unroll(pi)
    sch.unroll(vector)
    sch.vectorize(lanes)
    return first


def share_rows(sch: s_tir.Schedule, row: Loop, knobs: Knobs) -> tuple[list[Loop], Loop]:
    """Split rows into the knob `chunks` equal parts, one a thread; return ([the loop over parts], the rows of one).

    A core then reads what it wrote itself in the layer before. Where threads share out channels instead, half of the data comes from
    the other core's cache: 16 -> 96 channels at 112 x 112 took 714 us on two threads against 375 us on one.
    """
    if knobs.get("chunks", 1) == 1:
        return [], row
    part, rest = sch.split(row, [knobs["chunks"], None])
    return [part], rest


def share_evenly(sch: s_tir.Schedule, loops: Sequence[Loop], target: Target) -> None:
    """Run the fewest outermost loops that share the work evenly, fused, on all threads; see `parallelize` for when."""
    count = to_share([extent(sch, loop) for loop in loops], target)
    sch.parallel(fused(sch, loops[:count]))


def parallelize(sch: s_tir.Schedule, loops: Sequence[Loop], knobs: Knobs) -> None:
    """Fuse the outermost loops and run them on all threads, unless the knob `parallel` is 0: a launch would take longer.

    Comes before `decompose_reduction`: an update block without its init is no reduction to TVM, and cannot run in parallel.
    """
    if knobs.get("parallel", 1):
        sch.parallel(sch.fuse(*loops) if len(loops) > 1 else loops[0])
