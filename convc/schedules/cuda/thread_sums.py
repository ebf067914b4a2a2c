"""THE SCHEDULE of `grouped_sums`: each thread has all sums of a unit and a tile of taps in its registers.

for part, (unit, tile of taps) (one thread block):
    for thread (threadIdx.x):
        acc[taps, filters, channels] = 0
        for its columns, neighbouring threads neighbouring ones:
            column = dy[...]; window = x[...]       blocks of channels in 16 bytes; zeros outside
            for points of the column, taps, filters, channels: acc += column window         unrolled
        shared part[..., thread] = acc
    for its own sum, if there are so many (threadIdx.x):
        sums = the sum of the shared parts of all threads, one after the other
"""

from __future__ import annotations

from typing import Final

from tvm import s_tir, tirx

from convc.schedules.cuda.product import Block, schedule_with
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["SHARED", "schedule"]

# Without asking for more, a kernel has so much shared memory.
SHARED: Final = 48 << 10
# Rows of its banks: parts of one sum begin one bank behind those of the one before.
_BANKS: Final = 32


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc scheduled: the kernel of the sums, and one that adds up the parts."""
    return schedule_with(_sums, ("column", "window", "part", "sums"), func, knobs, target)


def _sums(sch: s_tir.Schedule, knobs: Knobs, out: Block | None) -> None:
    """Schedule the blocks `column`, `window`, `part` and `sums`; knobs: `threads`, `block`."""
    threads = knobs["threads"]
    part, sums = sch.get_sblock("part"), sch.get_sblock("sums")
    sch.cache_write(part, 0, "local")
    store = sch.get_sblock("part_local")
    sch.set_scope(store, 0, "shared")
    sch.cache_write(sums, 0, "local")
    z, unit, tile, r, s, e, i = sch.get_loops(sch.get_sblock("sums_local"))
    sch.bind(z, "blockIdx.y")
    block = sch.fuse(unit, tile)
    sch.bind(block, "blockIdx.x")
    _, thread = sch.split(sch.fuse(r, s, e, i), [None, threads])
    sch.bind(thread, "threadIdx.x")
    # The zero stays inside the sum, tested for its first term: an index of a fused loop is no affine map to TVM, which then refuses to
    # move it.
    sch.compute_at(sums, thread, preserve_unit_loops=True)

    sch.compute_at(store, block, preserve_unit_loops=True)
    *tile, thread = sch.get_loops(store)[2:]
    sch.reorder(thread, *tile)
    sch.bind(thread, "threadIdx.x")
    for loop in tile:
        sch.unroll(loop)
    sch.storage_align(store, 0, axis=-2, factor=_BANKS, offset=1)
    sch.compute_at(part, thread, preserve_unit_loops=True)
    *tile, step, row = sch.get_loops(part)[3:]
    sch.reorder(step, row, *tile)
    for name in ("column", "window"):
        loaded = sch.get_sblock(name)
        sch.set_scope(loaded, 0, "local")
        sch.compute_at(loaded, step, preserve_unit_loops=True)
        *loops, lane = sch.get_loops(loaded)[4:]
        for loop in loops:
            sch.unroll(loop)
        sch.vectorize(lane) if knobs["block"] else sch.unroll(lane)
    for loop in (row, *tile):
        sch.unroll(loop)
    begun = sch.decompose_reduction(part, step)
    for loop in sch.get_loops(begun)[3:]:
        sch.unroll(loop)
