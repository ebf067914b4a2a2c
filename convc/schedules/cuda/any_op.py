"""The schedule that takes anything on a device: inline what is elementwise, one thread a result, or a block of threads a sum.

Rewrite:
    a[i, j] = f(x[i, j]);  b[i, j] = g(a[i, j])
    -->
    for ij.0 (blockIdx.x): for ij.1 (threadIdx.x): b[...] = g(f(x[...]))
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir, tirx

from convc.ir.channel_moves import Picks
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles, point_cycles
from convc.schedules.scalar import is_once
from convc.target import Target

__all__ = [
    "schedule",
    "schedule_block",
    "schedule_channels",
    "schedule_transpose",
    "sum_cycles",
]

_THREADS = 256

# A sum of more terms than this is shared out among threads when there are too few results to keep the device busy.
_LONG_SUM = 64

# A term takes as long as so many loads: two are loads, the rest is finding them; among threads that share a sum, whose terms are counted
# over all axes at once, several divisions. A thread alone waits so many clocks for a term's loads; a block that shares a sum takes so many
# of its multiprocessor besides. Fitted to the weight gradients of 21 convolutions in three types, 1.4 us to 9.2 ms on an H200 (2026-11-27):
# within a factor of 1.26 (root mean square), where 3 loads a term for all were within 2.5.
_TERM = 3.0
_SHARED_TERM = 12.0
_ALONE = 75.0
_SHARED_BLOCK = 110.0


def schedule(func: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """Return any PrimFunc made from tensor expressions, scheduled: a kernel for each sum and for each result."""
    sch = s_tir.Schedule(func)
    _inline_producers(sch)
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        schedule_block(sch, block, target)
    return sch.mod["main"]


def sum_cycles(results: int, terms: int, nbytes: int, target: Target, *, rounded: bool) -> float:
    """Return clocks of the sums of products that `schedule` schedules or of the bytes, whichever takes longer, and half of the other's.

    `rounded`: whether a second kernel rounds the sums to another type.
    """
    gpu = target.gpu
    if terms >= _LONG_SUM and results < gpu.sms * gpu.threads_sm:
        threads = _sharers(terms, gpu.warp)
        whole = -(-terms // threads) * threads
        sums = point_cycles(gpu, gpu.sms * gpu.threads_sm, _SHARED_TERM * results * whole)
        sums += results * _SHARED_BLOCK / min(results, gpu.sms)
    else:
        sums = max(point_cycles(gpu, results, _TERM * results * terms), _ALONE * terms)
    memory = memory_cycles(gpu, nbytes)
    launches = (2 if rounded else 1) * LAUNCH_SECONDS * gpu.clock_hz
    return max(sums, memory) + min(sums, memory) / 2 + launches


def _sharers(terms: int, warp: int) -> int:
    """Return the threads that share one long sum."""
    return _THREADS if terms >= 4 * _THREADS else warp


def schedule_transpose(func: tirx.PrimFunc, block: int, target: Target) -> tirx.PrimFunc:
    """Return the move of an image between memory orders, scheduled; writes run along memory."""
    return schedule(func, target)


def schedule_channels(func: tirx.PrimFunc, picks: Picks, target: Target) -> tirx.PrimFunc:
    """Return a move of channels, scheduled; neighbouring threads write neighbouring channels."""
    return schedule(func, target)


def _inline_producers(sch: s_tir.Schedule) -> None:
    results = {sch.get(b).name_hint for b in sch.get_output_blocks(sch.get_sblock("root"))}
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        info = sch.get(block)
        if not _reduces(info) and info.name_hint not in results and not is_once(info):
            sch.compute_inline(block)


def _reduces(info: Any) -> bool:
    return any(v.iter_type == tirx.IterVar.CommReduce for v in info.iter_vars)


def schedule_block(sch: s_tir.Schedule, block: Any, target: Target) -> Any:
    """Bind one block's loops to a grid of its own; return the loop over threads."""
    loops = sch.get_loops(block)
    if not loops:
        sch.add_unit_loop(block)
        loops = sch.get_loops(block)
    kinds = [v.iter_type for v in sch.get(block).iter_vars] or [tirx.IterVar.DataPar]
    spatial = [x for x, k in zip(loops, kinds, strict=True) if k != tirx.IterVar.CommReduce]
    reduced = [x for x, k in zip(loops, kinds, strict=True) if k == tirx.IterVar.CommReduce]
    if not spatial:
        spatial = [sch.add_unit_loop(reduced[0])]
    sch.reorder(*spatial, *reduced)
    results = _volume(sch, spatial)
    fused = sch.fuse(*spatial) if len(spatial) > 1 else spatial[0]
    gpu = target.gpu
    if reduced and _volume(sch, reduced) >= _LONG_SUM and results < gpu.sms * gpu.threads_sm:
        return _share_sum(sch, fused, reduced, target)
    per_block = min(_THREADS, -(-results // gpu.warp) * gpu.warp)
    outer, thread = sch.split(fused, [None, per_block])
    sch.bind(outer, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    return thread


def _share_sum(sch: s_tir.Schedule, fused: Any, reduced: list, target: Target) -> Any:
    """Let one warp, or a block of warps for long sums, add up each result; terms next to each other go to neighbouring threads."""
    terms = sch.fuse(*reduced) if len(reduced) > 1 else reduced[0]
    threads = _sharers(_volume(sch, [terms]), target.gpu.warp)
    rest, thread = sch.split(terms, [None, threads])
    sch.reorder(fused, thread, rest)
    sch.bind(fused, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    return thread


def _volume(sch: s_tir.Schedule, loops: list) -> int:
    return math.prod(int(sch.get(loop).extent) for loop in loops)
