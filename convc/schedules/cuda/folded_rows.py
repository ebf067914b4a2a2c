"""THE SCHEDULE of `tensor_core_folded`: a kernel that folds the data, then `row_warps`.

kernel 1    for n, block of channels, point, half of the block (threads, neighbours along memory):
                its elements in registers, looked up one by one;  folded[n, block, point, half ...] = ...         8 bytes a store
kernel 2    `row_warps.row_product` on `folded`; a third where sums are in parts, `adding`
"""

from __future__ import annotations

from typing import Final

from tvm import s_tir, tirx

from convc.schedules.cuda.adding import add_blocks
from convc.schedules.cuda.product import Block, schedule_with
from convc.schedules.cuda.row_warps import BLOCKS, row_product
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["schedule"]

_THREADS: Final = 128
# Stores of a block: of a buffer that is only ever accessed by whole blocks TVM makes one of vectors, in which it finds no copies for
# cp.async.
_STORES: Final = 2


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `tensor_core_folded` scheduled; knobs: the product's."""
    return schedule_with(_fold_and_multiply, ("folded", *BLOCKS), func, knobs, target, add_blocks)


def _fold_and_multiply(sch: s_tir.Schedule, knobs: Knobs, out: Block | None) -> None:
    row_product(sch, knobs, out)
    # Last, as the end of `row_product`: with the condition of the last threads TVM no longer sees that the loops are affine.
    _fold(sch, sch.get_sblock("folded"))


def _fold(sch: s_tir.Schedule, folded: Block) -> None:
    # Looked up into registers and stored at once: TVM vectorises no condition.
    store = sch.cache_write(folded, 0, "local")
    *others, lane = sch.get_loops(store)
    half, lane = sch.split(lane, [_STORES, None])
    block, thread = sch.split(sch.fuse(*others, half), [None, _THREADS])
    sch.bind(block, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    sch.vectorize(lane)
    sch.compute_at(folded, thread, preserve_unit_loops=True)
    sch.unroll(sch.get_loops(folded)[-1])
