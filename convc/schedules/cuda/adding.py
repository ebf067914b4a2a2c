"""THE SCHEDULE of the kernel that adds up parts of sums that lie in the fragments of `rows`: 8 channels of a sum are 32 bytes.

for what is beside the 8 channels of a block (grid and threads):
    total[8] = 0
    for parts:  total += sums[part, ...]        16 bytes a load
    y[8] = epilogue(total)                      in one store where the result has blocks of channels, too
"""

from __future__ import annotations

from typing import Final

from tvm import s_tir

from convc.schedules.cuda.product import Block, Loop

__all__ = ["add_eights"]

_THREADS: Final = 256
# Sums of 4 bytes in a load.
_VECTOR: Final = 4


def add_eights(
    sch: s_tir.Schedule, total: Block, out: Block, lane: Loop, *, together: bool
) -> None:
    """Schedule a kernel of the blocks `total` and `out`.

    Args:
        sch: the schedule.
        total: adds up the parts.
        out: its one consumer.
        lane: of `out`'s loops the one over 8 channels.
        together: whether they lie together in the result, too.
    """
    before = [loop for loop in sch.get_loops(out) if not sch.get(loop).same_as(sch.get(lane))]
    sch.reorder(*before, lane)
    block, thread = sch.split(sch.fuse(*before), [None, _THREADS])
    sch.bind(block, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    sch.set_scope(total, 0, "local")
    sch.compute_at(total, thread, preserve_unit_loops=True)
