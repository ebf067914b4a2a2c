"""The schedule that takes anything: inline what is elementwise, vectorise the contiguous axis, run the rest in parallel.

Rewrite:
    a[i, j] = f(x[i, j]);  b[i, j] = g(a[i, j])
    -->
    for ij.0 (parallel): for ij.1 (vector): b[...] = g(f(x[...]))
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir, tirx

from convc.schedules.divisors import greatest_divisor
from convc.schedules.llvm.byte_tables import WIDTHS, has_permutation, marked
from convc.schedules.llvm.tiling import blocks_of, extent, fused, split_tail
from convc.schedules.lookup import is_looked_up
from convc.schedules.scalar import is_once
from convc.target import Target

__all__ = ["PARALLEL_ELEMENTS", "schedule", "schedule_transpose"]

# A parallel launch costs 3 us with two threads; below this many elements one thread is done sooner.
PARALLEL_ELEMENTS = 16 << 10

# Rows of half a vector are left as they are.
_SHORT_VECTOR = 8

# Vectors beside which a tail of single elements is short.
_LONG_RUN = 32

# Sums of fewer terms overlap with their neighbours' by themselves.
_LONG_CHAIN = 16


def schedule(func: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """Return any PrimFunc made from tensor expressions, scheduled; one that is loops already stays as it is."""
    if func.body.block.name_hint != "root":
        return func
    sch = s_tir.Schedule(func)
    _inline_producers(sch)
    tables = False
    for block in blocks_of(sch):
        if is_looked_up(sch.get(block)) and has_permutation(target):
            tables |= _schedule_table(sch, block, target)
        else:
            _schedule_block(sch, block, target)
    return marked(sch.mod["main"]) if tables else sch.mod["main"]


def schedule_transpose(func: tirx.PrimFunc, block: int, target: Target) -> tirx.PrimFunc:
    """Return the move of an image between plain and blocked order, scheduled.

    Reads run along memory, writes jump: one element a cycle. In the order of the writes LLVM makes gathers of index sums, at 4.6
    cycles an element (136 channels at 28 x 28: 135 us).

    Rewrite:
        for n, c, h, w: y[n, c, h, w] = x[n, c / b, h, w, c % b]
        -->
        for n, c.0 (parallel), h, w: for c.1 (unrolled): y[...] = x[...]
    """
    sch = s_tir.Schedule(func)
    (copy,) = blocks_of(sch)
    loops = sch.get_loops(copy)
    total = _volume(sch, loops)
    if len(loops) > len(sch.get(copy).reads[0].region):  # plain to blocked: read along w
        n, c, *outer, w, lane = loops
        if block & (block - 1):
            # LLVM interleaves three vectors: 3 x 224 x 224 bytes take 9 us, channel after channel 63.
            sch.unroll(lane)
        else:
            sch.reorder(n, c, *outer, lane, w)
    else:
        n, channel, *outer, w = loops
        c, lane = sch.split(channel, [None, block])
        sch.reorder(n, c, *outer, w, lane)
        sch.unroll(lane)
    if total >= PARALLEL_ELEMENTS:
        sch.parallel(sch.fuse(n, c, *outer))
    return sch.mod["main"]


def _inline_producers(sch: s_tir.Schedule) -> None:
    """Inline every block without a reduction into its consumers, but for the one that writes the result."""
    results = {sch.get(b).name_hint for b in sch.get_output_blocks(sch.get_sblock("root"))}
    for block in blocks_of(sch):
        info = sch.get(block)
        reduces = any(v.iter_type == tirx.IterVar.CommReduce for v in info.iter_vars)
        if reduces or info.name_hint in results or is_once(info):
            continue
        sch.compute_inline(block)


def _schedule_block(sch: s_tir.Schedule, block: Any, target: Target) -> None:
    info = sch.get(block)
    loops = sch.get_loops(block)
    if not loops:  # a single element
        return
    kinds = [v.iter_type for v in info.iter_vars]
    spatial = [x for x, k in zip(loops, kinds, strict=True) if k == tirx.IterVar.DataPar]
    reduced = [x for x, k in zip(loops, kinds, strict=True) if k == tirx.IterVar.CommReduce]
    total = _volume(sch, spatial)
    if not spatial:
        return
    if reduced:
        _schedule_reduction(sch, block, spatial, reduced, total, target)
        return
    # Fused axes are indexed by quotients and remainders, per element: fuse only what whole vectors need.
    inner = len(spatial) - 1
    if _is_broadcast(info):
        _schedule_rows(sch, spatial, total, target)
        return
    while inner > 0 and not _is_run(_volume(sch, spatial[inner:]), target):
        inner -= 1
    last = fused(sch, spatial[inner:])
    outer, length = spatial[:inner], extent(sch, last)
    if total >= target.lanes:
        rest, lane = split_tail(sch, last, length, target.lanes)
        if is_looked_up(info):
            sch.unroll(lane)
        else:
            sch.vectorize(lane)
        # TVM fuses no loop whose last round is code of its own.
        if length % target.lanes == 0:
            outer = [*outer, rest]
    if total >= PARALLEL_ELEMENTS and outer:
        sch.parallel(fused(sch, _enough(sch, outer, target)))


def _schedule_table(sch: s_tir.Schedule, block: Any, target: Target) -> bool:
    """Vectorise the bytes of a row (of a block of channels), which lie one behind the other; False if they are no whole vectors."""
    loops = list(sch.get_loops(block))
    outer, row = loops[:-2], loops[-2:]
    length = _volume(sch, row)
    width = next((w for w in WIDTHS if length % w == 0), 0)
    if not width:
        _schedule_block(sch, block, target)
        return False
    rest, lane = sch.split(fused(sch, row), [None, width])
    sch.vectorize(lane)
    if _volume(sch, [*outer, rest]) * width >= PARALLEL_ELEMENTS:
        sch.parallel(fused(sch, _enough(sch, [*outer, rest], target)))
    return True


def _is_run(length: int, target: Target) -> bool:
    """Whether so many elements are worth a loop of vectors: whole ones, or so many that what is left over is nothing beside them.

    54,600 elements multiplied by 2 in vectors that each ask whether they are whole: 43 us, element by element; 4 with a tail.
    """
    return length % target.lanes == 0 or length >= _LONG_RUN * target.lanes


def _is_broadcast(info: Any) -> bool:
    """Whether a block reads what broadcasts to its result, or a box of something larger, by rows that are no whole vectors."""
    shape = [int(n) for n in info.writes[0].source.ty.shape]
    if shape[-1] % _SHORT_VECTOR == 0 or shape[-1] < 2:
        return False
    other = False
    for region in info.reads:
        own = [int(n) for n in region.source.ty.shape]
        if len(own) > len(shape):
            return False
        pairs = list(zip(reversed(own), reversed(shape), strict=False))
        spreads = all(n in (1, m) for n, m in pairs)
        if not spreads and not (len(own) == len(shape) and all(n >= m for n, m in pairs)):
            return False
        other |= own != shape and math.prod(own) > 1
    return other


def _schedule_rows(sch: s_tir.Schedule, spatial: list, total: int, target: Target) -> None:
    """Vectorise the last axis, with what is left of it an element at a time.

    In whole vectors of several rows each lane's row is a quotient: a mask of 49 x 49 added to 300 matrices took 1.5 ms. 96 slices of
    rows of 4 to 48 elements took 1.45 ms so, by rows 0.34.
    """
    *outer, last = spatial
    length, lanes = extent(sch, last), target.lanes
    while lanes > length:
        lanes //= 2
    _, lane = split_tail(sch, last, length, lanes)
    sch.vectorize(lane)
    if total >= PARALLEL_ELEMENTS and outer:
        sch.parallel(fused(sch, _enough(sch, outer, target)))


def _enough(sch: s_tir.Schedule, loops: list, target: Target) -> list:
    """Return the shortest row of outermost loops that gives every thread several parts; the rest stay counted loops."""
    for count in range(1, len(loops)):
        if _volume(sch, loops[:count]) >= 8 * target.cores:
            return loops[:count]
    return loops


def _volume(sch: s_tir.Schedule, loops: list) -> int:
    return math.prod(extent(sch, loop) for loop in loops)


def _schedule_reduction(
    sch: s_tir.Schedule, block: Any, spatial: list, reduced: list, total: int, target: Target
) -> None:
    """Vectorise the last spatial axis inside the reduction when it is whole vectors; otherwise reduce one element at a time."""
    *outer, last = spatial
    length = extent(sch, last)
    work = total * _volume(sch, reduced)
    if length % target.lanes == 0 or (length == target.lanes // 2):
        lanes = min(length, target.lanes)
        last, lane = sch.split(last, [None, lanes])
        (last, *outer), chains = _several_chains(sch, [last, *outer], _volume(sch, reduced))
        sch.reorder(*outer, last, *reduced, *chains, lane)
        sch.vectorize(lane)
    if work >= PARALLEL_ELEMENTS:
        sch.parallel(fused(sch, _enough(sch, [*outer, last], target)))
    sch.decompose_reduction(block, reduced[0])


def _several_chains(sch: s_tir.Schedule, outer: list, terms: int) -> tuple[list, list]:
    """Split off the results that are summed side by side; return (outer loops, those inside the sum, unrolled).

    One long chain of additions takes their latency, 4 cycles a vector: the mean of 144 channels at 56 x 56 was 40 us of 45 GB/s.
    """
    if terms < _LONG_CHAIN:
        return outer, []
    for at in range(len(outer) - 1, -1, -1):
        count = greatest_divisor(extent(sch, outer[at]), 4)
        if count > 1:
            rest, inner = sch.split(outer[at], [None, count])
            sch.unroll(inner)
            return [*outer[:at], rest, *outer[at + 1 :]], [inner]
    return outer, []
