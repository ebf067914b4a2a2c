"""THE SCHEDULE of `rows`, `term_rows`: block tiles in shared memory by cp.async, `stages` steps deep; a warp's in its lanes' registers.

for z, tile of channels, tile of pixels (one thread block); warp, lane (threadIdx.x):
    acc = 0
    for step of the sum:
        shared patch = ...; shared weight = ...         all threads, stages - 1 steps ahead, or `product.overlap`
        acc += patch weight                             one call by all lanes of a warp together, `ldmatrix.RowProduct`, or of four,
                                                        `wgmma.WarpgroupProduct`
    y = epilogue(acc)                                   two neighbouring channels at once
"""

from __future__ import annotations

from typing import Final

from tvm import s_tir, tirx
from tvm.ir import Range

from convc.schedules.cuda.adding import add_blocks
from convc.schedules.cuda.cluster_call import meet
from convc.schedules.cuda.ldmatrix import RowProduct
from convc.schedules.cuda.product import Block, Loop, blocks_of, overlap, pipeline, schedule_with
from convc.schedules.cuda.row_tiles import group_of
from convc.schedules.cuda.warp_call import Region, region, replace_by_call, wait_apart
from convc.schedules.cuda.wgmma import WarpgroupProduct
from convc.schedules.plan import Knobs
from convc.schedules.vector_gemm import lanes
from convc.target import Target

__all__ = ["BLOCKS", "row_product", "schedule"]

# That `row_product` schedules, of a convolution.
BLOCKS: Final = ("patch", "acc", "met", "own_add", "own", "flat")

# Sized by the kernel that asks for it: up to 227 KiB of a block on sm_90, where "shared" ends at 48.
_SCOPE = "shared.dyn"


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `vector_gemm.compute` with `rows.product` scheduled."""
    return schedule_with(row_product, BLOCKS, func, knobs, target, add_blocks)


def row_product(sch: s_tir.Schedule, knobs: Knobs, out: Block | None) -> None:
    """Schedule the blocks `patch`, `acc`, `own_add`, `own` and `flat`, and `weight` where it is computed: by terms.

    Args:
        sch: the schedule.
        knobs: `pixels`, `channels`, `step` of a block's tile; `warp_pixels`, `warp_channels` of a warp's; `stages`; `group` of warps.
        out: the one consumer of the sums, which becomes part of the kernel; None: the sums are stored.
    """
    names = [sch.get(block).name_hint for block in blocks_of(sch)]
    last, by_terms = "acc" if out is None else "own", "weight" in names
    dtype = str(sch.get(sch.get_sblock("patch")).writes[0].source.dtype)
    sch.cache_write(sch.get_sblock(last), 0, "local")
    sch.reverse_compute_inline(sch.get_sblock("flat"))
    store, acc, patch = (sch.get_sblock(name) for name in (f"{last}_local", "acc", "patch"))
    z, m, a, k, b, *inner = sch.get_loops(store)
    fragment, e = 5 + len(inner), lanes(dtype)
    rows, cols = knobs["pixels"] // knobs["warp_pixels"], knobs["channels"] // knobs["warp_channels"]  # fmt: skip
    share = knobs["warp_channels"] // (knobs["split"] if "met" in names else 1)
    m_block, m_warp, m = sch.split(m, [None, rows, knobs["warp_pixels"] // 8])
    k_block, k_warp, k = sch.split(k, [None, cols, share // e])
    sch.reorder(z, k_block, m_block, m_warp, k_warp, a, b, m, k, *inner)
    sch.bind(z, "blockIdx.z")
    sch.bind(k_block, "blockIdx.y")
    sch.bind(m_block, "blockIdx.x")
    thread = sch.fuse(m_warp, k_warp, a, b)
    sch.bind(thread, "threadIdx.x")
    # The loop that ends a pipeline of three stages or more has to be written out: its waits count down, and are part of the instruction.
    sch.annotate(thread, "pragma_unroll_explicit", 1)
    # Two channels at a time, of bytes four: the residual read and the result written at once, what lies between one by one, since
    # TVM prints a Select of vectors wrongly (it declares the condition with the type of the result).
    for name in ("own", "own_add"):
        if name in names:
            block = sch.get_sblock(name)
            sch.set_scope(block, 0, "local")
            sch.compute_at(block, k, preserve_unit_loops=True)
            lane = _together(sch, sch.get_loops(block)[-len(inner) :])
            sch.vectorize(lane) if name == "own_add" else sch.unroll(lane)
    # By terms what lies together are pixels.
    lane = _together(sch, inner)
    sch.unroll(lane) if by_terms else sch.vectorize(lane)
    if "met" in names:
        meet(sch, thread, knobs["split"], rows * cols * 32)
    sch.set_scope(acc, 0, "local")
    sch.compute_at(acc, thread, preserve_unit_loops=True)
    *tile, step, t, h, term = sch.get_loops(acc)[-fragment - 4 :]
    sch.reorder(step, *tile, t, h, term)
    sch.set_scope(patch, 0, _SCOPE)
    sch.compute_at(patch, step, preserve_unit_loops=True)
    if by_terms:
        weight = sch.get_sblock("weight")
        sch.set_scope(weight, 0, _SCOPE)
    else:
        weight = sch.cache_read(acc, 1, _SCOPE)
    sch.compute_at(weight, step, preserve_unit_loops=True)
    rests = [_fill(sch, block, rows * cols * 32) for block in (patch, weight)]
    for loop in (m, k):
        sch.unroll(loop)
    init = sch.decompose_reduction(acc, step)
    for loop in sch.get_loops(init)[1 - fragment :]:
        sch.unroll(loop)
    made = _product(dtype, knobs, by_terms)
    _replace(sch, made, fragment + 2)
    if made.apart:
        wait_apart(sch, step, made.name)
        overlap(sch, step, rests, knobs["stages"])
    else:
        pipeline(sch, step, (patch, weight), rests, {**knobs, "ahead": 0})
    if out is not None:
        # Last: with the condition of padded tiles, TVM no longer sees that the loops are affine.
        sch.reverse_compute_inline(out)


def _together(sch: s_tir.Schedule, loops: list[Loop]) -> Loop:
    """Return one loop over what a lane has beside each other."""
    return sch.fuse(*loops) if len(loops) > 1 else loops[0]


def _fill(sch: s_tir.Schedule, block: Block, threads: int) -> Loop:
    """Let all threads of a block fill shared memory, neighbours neighbouring rows of 16 bytes."""
    *loops, lane = sch.get_loops(block)[-3:]
    rest, thread = sch.split(sch.fuse(*loops), [None, threads])
    sch.bind(thread, "threadIdx.x")
    sch.vectorize(lane)
    return rest


def _product(dtype: str, knobs: Knobs, by_terms: bool) -> RowProduct | WarpgroupProduct:
    step, pixels, channels = knobs["step"], knobs["pixels"], knobs["channels"]
    if group_of(knobs) > 1:
        return WarpgroupProduct(dtype, step, pixels, channels, knobs["stages"] > 2, by_terms)
    return RowProduct(dtype, knobs["warp_pixels"], knobs["warp_channels"], step, pixels, channels, by_terms)  # fmt: skip


def _replace(sch: s_tir.Schedule, made: RowProduct | WarpgroupProduct, loops: int) -> None:
    """Put the warp's call in the place of so many innermost loops of `acc_update`."""

    def operands(acc: Region, patch: Region, weight: Region) -> tuple[Region, Region]:
        z, pixels, _, channels, *_ = acc.region
        e = lanes(str(patch.source.dtype))
        if made.by_terms:
            terms = Range(made.depth)
            return (
                region(patch, *patch.region[:2], pixels, terms, Range(e)),
                region(weight, *weight.region[:2], channels, terms, Range(e)),
            )
        rows = Range.from_min_extent(pixels.min * 8, pixels.extent * 8)
        cols = Range.from_min_extent(channels.min * e, channels.extent * e)
        return (
            region(patch, *patch.region[:3], rows, Range(e)),
            region(weight, z, weight.region[1], cols, Range(e)),
        )

    replace_by_call(sch, loops, ("patch", "weight"), operands, made.call, made.source)
