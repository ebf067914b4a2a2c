"""THE SCHEDULE of every matrix product on a device: block tiles in shared memory, thread tiles in registers.

for z, tile of channels, tile of pixels (one thread block):
    for each part of four channels, of four pixels, of a thread (virtual threads)       so that a warp reads shared memory in rows
        acc = 0
    for step of the sum:
        shared patch = ...; shared weight = ...         all threads; see `pipeline`
        for i in step, channel, pixel:  acc += ...      unrolled
    y = epilogue(acc)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm import s_tir, tirx

from convc.schedules.cuda.any_op import schedule_block
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = [
    "Block",
    "Loop",
    "blocks_of",
    "inline_all_but",
    "overlap",
    "pipeline",
    "schedule",
    "schedule_with",
    "share_copy",
    "tile_product",
]

Loop = Any  # s_tir's handles of loops and blocks have no public classes
Block = Any
# (schedule, loop over steps, threads, knobs) -> copies to shared memory, and their loops within a thread
Staging: TypeAlias = Callable[[s_tir.Schedule, Loop, int, Knobs], tuple[tuple[Block, Block], list[Loop]]]  # fmt: skip

# What one thread reads of a row at once.
_VECTOR = 4


def blocks_of(sch: s_tir.Schedule) -> list[Block]:
    """Return all blocks but the root, producers first."""
    return list(sch.get_child_blocks(sch.get_sblock("root")))


def inline_all_but(sch: s_tir.Schedule, keep: tuple[str, ...]) -> Block:
    """Inline every block but the named ones and the last, which is returned."""
    *earlier, last = blocks_of(sch)
    for block in earlier:
        if sch.get(block).name_hint not in keep:
            sch.compute_inline(block)
    return last


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.implicit_gemm` scheduled."""
    return schedule_with(tile_product, ("patch", "acc"), func, knobs, target)


def schedule_with(
    product: Callable[[s_tir.Schedule, Knobs, Block | None], None],
    blocks: tuple[str, ...],
    func: tirx.PrimFunc,
    knobs: Knobs,
    target: Target,
    adding: Callable[[s_tir.Schedule, Block, Block], None] | None = None,
) -> tirx.PrimFunc:
    """Return a PrimFunc whose product is scheduled by `product`: one kernel, and where sums are in parts a second one, `total`.

    Args:
        product: takes the schedule, the knobs and the one consumer of the sums, None if the sums are stored.
        blocks: those that `product` schedules; every other one but the last is inlined.
        func: of `schedules.implicit_gemm`.
        knobs: the product's.
        target: a device's.
        adding: schedules `total` where it has a consumer; by default each thread has a result.
    """
    sch = begin(func)
    out = inline_all_but(sch, (*blocks, "total"))
    if all(sch.get(block).name_hint != "total" for block in blocks_of(sch)):
        product(sch, knobs, out)
        return sch.mod["main"]
    product(sch, knobs, None)
    total = sch.get_sblock("total")
    if sch.get(total).same_as(sch.get(out)):
        schedule_block(sch, total, target)
    elif adding is not None:
        adding(sch, total, out)
    else:
        sch.set_scope(total, 0, "local")
        sch.compute_at(total, schedule_block(sch, out, target), preserve_unit_loops=True)
    return sch.mod["main"]


def tile_product(
    sch: s_tir.Schedule, knobs: Knobs, out: Block | None, staged: Staging | None = None
) -> None:
    """Schedule the blocks `patch` and `acc`.

    Args:
        sch: the schedule.
        knobs: `pixels`, `channels`, `step` of a block's tile; `thread_pixels`, `thread_channels` of a thread's; `stages`, `ahead`;
            `vector` pixels loaded at once.
        out: the one consumer of the sums, which becomes part of the kernel; None: the sums are stored.
        staged: brings a step's operands to shared memory; by default patches are looked up and packed weights copied.
    """
    acc = sch.get_sblock("acc")
    sch.cache_write(acc, 0, "local")
    store = sch.get_sblock("acc_local")
    if out is not None:
        sch.reverse_compute_inline(out)
    acc = sch.get_sblock("acc")
    z, k, m = sch.get_loops(store)
    rows, cols = knobs["thread_channels"], knobs["thread_pixels"]
    threads = (knobs["channels"] // rows) * (knobs["pixels"] // cols)
    k_block, k_part, k_thread, k_in = sch.split(k, _parts(knobs["channels"], rows))
    m_block, m_part, m_thread, m_in = sch.split(m, _parts(knobs["pixels"], cols))
    sch.reorder(z, k_block, m_block, k_part, m_part, k_thread, m_thread, k_in, m_in)
    # More than 65535 tiles fit only the first axis of a grid.
    sch.bind(z, "blockIdx.z")
    sch.bind(k_block, "blockIdx.y")
    sch.bind(m_block, "blockIdx.x")
    sch.bind(sch.fuse(k_part, m_part), "vthread.x")
    thread = sch.fuse(k_thread, m_thread)
    sch.bind(thread, "threadIdx.x")
    sch.compute_at(acc, thread, preserve_unit_loops=True)
    *_, k, m, step, i = sch.get_loops(acc)
    sch.reorder(step, i, k, m)
    copies, rests = (staged or _staged)(sch, step, threads, knobs)
    for loop in (i, k, m, k_in, m_in):
        sch.unroll(loop)
    sch.decompose_reduction(acc, step)
    pipeline(sch, step, copies, rests, knobs)


def _staged(
    sch: s_tir.Schedule, step: Loop, threads: int, knobs: Knobs
) -> tuple[tuple[Block, Block], list[Loop]]:
    """Let threads look up the patches of a step and copy its packed weights; return both blocks and the loops within a thread."""
    acc, patch = sch.get_sblock("acc"), sch.get_sblock("patch")
    sch.set_scope(patch, 0, "shared")
    sch.compute_at(patch, step, preserve_unit_loops=True)
    weight = sch.cache_read(acc, 0, "shared")
    sch.compute_at(weight, step, preserve_unit_loops=True)
    together = math.gcd(_VECTOR, knobs["channels"])
    rests = [
        share_copy(sch, patch, 4, threads, knobs["vector"]),
        share_copy(sch, weight, 3, threads, together),
    ]
    return (patch, weight), rests


def pipeline(
    sch: s_tir.Schedule,
    step: Loop,
    copies: tuple[Block, Block],
    loops: Sequence[Loop],
    knobs: Knobs,
) -> None:
    """Let the loop over steps load what the next one needs while it computes.

    Args:
        sch: the schedule.
        step: the loop; its blocks are `copies` and the product, in this order.
        copies: to shared memory.
        loops: of the copies within a thread, to be unrolled.
        knobs: `stages` 2: two steps are in shared memory, copied by cp.async. `ahead` 1: the next one waits in registers, its loads come
            before the product and its stores behind it.
    """
    # TVM moves copies through registers only out of plain loops; nvcc unrolls those too.
    for loop in () if knobs["ahead"] else loops:
        sch.unroll(loop)
    if knobs["stages"] > 1:
        sch.annotate(step, "software_pipeline_stage", [0, 0, knobs["stages"] - 1])
        sch.annotate(step, "software_pipeline_order", [0, 1, 2])
        sch.annotate(step, "software_pipeline_async_stages", [0])
    elif knobs["ahead"]:
        for copy in copies:
            sch.annotate(copy, "tirx.manifest_shared_memory_local_stage", 1)
        sch.annotate(step, "software_pipeline_stage", [0, 0, 0, 0, 1])
        sch.annotate(step, "software_pipeline_order", [0, 3, 1, 4, 2])


def overlap(sch: s_tir.Schedule, step: Loop, loops: Sequence[Loop], stages: int) -> None:
    """Let the loop over steps load while the product of the step before, which its call only begins, is still being made.

    One step of those in shared memory is being multiplied, one is written, the others are ready or on their way: the product of a step
    begins `stages` - 2 steps behind its copies, and is waited for one step later.

    The copies come first: with the product before them an H200 took 1.05 to 1.59 times as long in 27 of 32 settings of three steps
    (2026-11-27).

    Args:
        sch: the schedule.
        step: the loop; its blocks are two copies, the product, and the wait for it.
        loops: of the copies within a thread, to be unrolled.
        stages: steps in shared memory, 3 at least.
    """
    for loop in loops:
        sch.unroll(loop)
    sch.annotate(step, "software_pipeline_stage", [0, 0, stages - 2, stages - 1])
    sch.annotate(step, "software_pipeline_order", [0, 1, 3, 2])
    sch.annotate(step, "software_pipeline_async_stages", [0])


def _parts(tile: int, thread: int) -> list[int | None]:
    """Return [tiles, parts of a thread, threads, elements of a part]."""
    parts = max(1, thread // _VECTOR)
    return [None, parts, tile // thread, thread // parts]


def share_copy(sch: s_tir.Schedule, block: Block, axes: int, threads: int, vector: int) -> Loop:
    """Let all threads of a block fill shared memory, neighbours neighbouring elements."""
    loops = sch.get_loops(block)
    loop = sch.fuse(*loops[-axes:])
    rest, thread, lane = sch.split(loop, [None, threads, vector])
    sch.bind(thread, "threadIdx.x")
    if vector > 1:
        sch.vectorize(lane)
    return rest
