"""THE SCHEDULE of the kernel that adds up parts of sums of which 8 neighbouring channels lie together, 32 bytes.

for what is beside the 8 channels of a block (grid and threads):
    total[8] = 0
    for parts:  total += sums[part, ...]        16 bytes a load
    y[8] = epilogue(total)                      its operands in one load, y in one store, where 8 channels lie together in them, too
"""

from __future__ import annotations

from typing import Final

from tvm import s_tir

from convc.ir.types import numpy_dtype
from convc.schedules.cuda.product import Block, Loop

__all__ = ["EIGHT", "add_blocks", "add_eights", "vectorize_store"]

EIGHT: Final = 8
# Few, as at batch 1 a result of 14 x 14 x 256 has 6272 eights.
_THREADS: Final = 64
# Of the widest store.
_BYTES: Final = 16
# Sums of 4 bytes in a load.
_VECTOR: Final = 4


def add_blocks(sch: s_tir.Schedule, total: Block, out: Block) -> None:
    """Schedule `total` and its one consumer `out`, whose last axis are the channels of a block of memory."""
    operands = [
        sch.cache_read(out, index, "local")
        for index, read in enumerate(sch.get(out).reads)
        if read.source.name != "total" and [int(n) for n in read.source.shape[-1:]] == [EIGHT]
    ]
    store = sch.cache_write(out, 0, "local")
    *others, lane = sch.get_loops(store)
    thread = _in_threads(sch, others, lane)
    vectorize_store(sch, store, lane)
    sch.compute_at(out, thread, preserve_unit_loops=True)
    sch.unroll(sch.get_loops(out)[-1])
    for operand in operands:
        sch.compute_at(operand, thread, preserve_unit_loops=True)
        sch.vectorize(sch.get_loops(operand)[-1])
    _add(sch, total, thread)


def vectorize_store(sch: s_tir.Schedule, store: Block, lane: Loop) -> None:
    """Store so many neighbouring elements at once as 16 bytes hold: of floats in a block of bytes a part of the block."""
    most = _BYTES // numpy_dtype(str(sch.get(store).writes[0].source.dtype)).itemsize
    if int(sch.get(lane).extent) > most:
        part, lane = sch.split(lane, [None, most])
        sch.unroll(part)
    sch.vectorize(lane)


def add_eights(sch: s_tir.Schedule, total: Block, out: Block, axis: int) -> None:
    """Schedule `total` and its one consumer `out`, along whose `axis`, whole eights, neighbouring sums lie together."""
    loops = sch.get_loops(out)
    outer, lane = sch.split(loops[axis], [None, EIGHT])
    thread = _in_threads(sch, [*loops[:axis], outer, *loops[axis + 1 :]], lane)
    sch.unroll(lane)
    _add(sch, total, thread, axis - len(loops))


def _in_threads(sch: s_tir.Schedule, others: list[Loop], lane: Loop) -> Loop:
    sch.reorder(*others, lane)
    block, thread = sch.split(sch.fuse(*others), [None, _THREADS])
    sch.bind(block, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    return thread


def _add(sch: s_tir.Schedule, total: Block, thread: Loop, axis: int = -1) -> None:
    """Let a thread add up its eight, `axis` of those of the sum, part after part."""
    # Read by a block of their own: TVM vectorises no sum in fused loops whose index it does not see to be affine.
    read = sch.cache_read(total, 0, "local")
    sch.set_scope(total, 0, "local")
    sch.compute_at(total, thread, preserve_unit_loops=True)
    *loops, part = sch.get_loops(total)
    sch.reorder(part, loops[axis])
    sch.unroll(loops[axis])
    sch.compute_at(read, part, preserve_unit_loops=True)
    halves, lane = sch.split(sch.get_loops(read)[-1], [None, _VECTOR])
    sch.unroll(halves)
    sch.vectorize(lane)
