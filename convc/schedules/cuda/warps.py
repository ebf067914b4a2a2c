"""THE SCHEDULE of products on tensor cores: block tiles in shared memory, a warp's tile in the registers of its lanes.

for z, tile of channels, tile of pixels (one thread block); warp, lane (threadIdx.x):
    acc = 0
    for step of the sum:
        shared patch = ...; shared weight = ...         all threads; weights 16 bytes at once; see `product.pipeline`
        acc += weight patch                             one call of `mma.WarpProduct`, by all lanes of a warp together
    y = epilogue(acc)

A lane's sums are a box of `acc`, so that everything but the product is an ordinary schedule; the loops of the product are then replaced.
"""

from __future__ import annotations

from tvm import s_tir, tirx
from tvm.ir import Range

from convc.schedules.cuda.fragments import PIXELS, elements_of
from convc.schedules.cuda.mma import WarpProduct, row_words
from convc.schedules.cuda.product import Block, Loop, Staging, pipeline, schedule_with
from convc.schedules.cuda.warp_call import Region, region, replace_by_call
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["schedule", "warp_product"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `implicit_gemm.compute` with `fragments.product` scheduled."""
    return schedule_with(warp_product, ("patch", "acc", "flat"), func, knobs, target)


def warp_product(
    sch: s_tir.Schedule, knobs: Knobs, out: Block | None, staged: Staging | None = None
) -> None:
    """Schedule the blocks `patch`, `acc` and `flat`.

    Args:
        sch: the schedule.
        knobs: `channels`, `pixels`, `step` of a block's tile; `warp_channels`, `warp_pixels` of a warp's; `math`, `stages`, `ahead`;
            `vector` pixels loaded at once.
        out: the one consumer of the sums, which becomes part of the kernel; None: the sums are stored.
        staged: brings a step's operands to shared memory; by default patches are looked up and packed weights copied.
    """
    dtype = str(sch.get(sch.get_sblock("patch")).writes[0].source.dtype)
    e = elements_of(dtype)
    words = knobs["step"] // e
    acc = sch.get_sblock("acc")
    sch.cache_write(acc, 0, "local")
    sch.reverse_compute_inline(sch.get_sblock("flat"))
    store, acc, patch = (sch.get_sblock(name) for name in ("acc_local", "acc", "patch"))
    z, k, a, m, b, pair = sch.get_loops(store)
    rows, cols = knobs["channels"] // knobs["warp_channels"], knobs["pixels"] // knobs["warp_pixels"]  # fmt: skip
    k_block, k_warp, k = sch.split(k, [None, rows, knobs["warp_channels"] // 8])
    m_block, m_warp, m = sch.split(m, [None, cols, knobs["warp_pixels"] // PIXELS])
    sch.reorder(z, k_block, m_block, k_warp, m_warp, a, b, k, m, pair)
    sch.bind(z, "blockIdx.z")
    sch.bind(k_block, "blockIdx.y")
    sch.bind(m_block, "blockIdx.x")
    thread = sch.fuse(k_warp, m_warp, a, b)
    sch.bind(thread, "threadIdx.x")
    sch.compute_at(acc, thread, preserve_unit_loops=True)
    *tile, step, s, h, word, j = sch.get_loops(acc)[-11:]
    sch.reorder(step, *tile, s, h, word, j)
    copies, rests = (staged or _staged)(sch, step, rows * cols * 32, knobs)
    sch.storage_align(patch, 0, axis=2, factor=32 * e, offset=(row_words(knobs["pixels"]) * e) % (32 * e))  # fmt: skip
    for loop in (k, m, pair):
        sch.unroll(loop)
    init = sch.decompose_reduction(acc, step)
    for loop in sch.get_loops(init)[-6:]:
        sch.unroll(loop)
    kind = "tf32" if dtype == "float32" and knobs["math"] == 1 else dtype
    tile = (knobs["warp_channels"], knobs["warp_pixels"], words)
    _replace(sch, WarpProduct(kind, *tile, knobs["channels"], knobs["pixels"]))
    pipeline(sch, step, copies, rests, knobs)
    if out is not None:
        # Last: with the condition of padded tiles, TVM no longer sees that the loops are affine.
        sch.reverse_compute_inline(out)


def _staged(
    sch: s_tir.Schedule, step: Loop, threads: int, knobs: Knobs
) -> tuple[tuple[Block, Block], list[Loop]]:
    """Let threads look up the patches of a step and copy its packed weights; return both blocks and the loops within a thread."""
    acc, patch = sch.get_sblock("acc"), sch.get_sblock("patch")
    sch.set_scope(patch, 0, "shared")
    sch.compute_at(patch, step, preserve_unit_loops=True)
    weight = sch.cache_read(acc, 0, "shared")
    sch.compute_at(weight, step, preserve_unit_loops=True)
    element = int(sch.get(sch.get_loops(weight)[-1]).extent)
    rests = [*_look_up(sch, patch, threads, knobs["vector"]), _copy(sch, weight, threads, 4 * element)]  # fmt: skip
    return (patch, weight), rests


def _look_up(sch: s_tir.Schedule, patch: Block, threads: int, vector: int) -> tuple[Loop, ...]:
    """Let all threads of a block fill shared memory with patches, neighbours neighbouring words."""
    *loops, element = sch.get_loops(patch)[-5:]
    rest, thread, lane = sch.split(sch.fuse(*loops), [None, threads, vector])
    sch.bind(thread, "threadIdx.x")
    if vector == 1:
        return rest, sch.fuse(lane, element)
    sch.vectorize(sch.fuse(lane, element))
    return (rest,)


def _copy(sch: s_tir.Schedule, weight: Block, threads: int, vector: int) -> Loop:
    """Let all threads of a block copy weights to shared memory, neighbours neighbouring vectors."""
    loop = sch.fuse(*sch.get_loops(weight)[-6:])
    rest, thread, lane = sch.split(loop, [None, threads, vector])
    sch.bind(thread, "threadIdx.x")
    sch.vectorize(lane)
    return rest


def _replace(sch: s_tir.Schedule, made: WarpProduct) -> None:
    """Put the warp's call in the place of the loops of `acc_update`."""

    def operands(acc: Region, weight: Region, patch: Region) -> tuple[Region, Region]:
        z, k, _, p, *_ = acc.region
        e = weight.source.shape[-1]
        tiles = Range.from_min_extent(k.min // 2, k.extent // 2)
        pixels = Range.from_min_extent(p.min * PIXELS, p.extent * PIXELS)
        return (
            region(weight, z, weight.region[1], tiles, Range(32), Range(4), Range(e)),
            region(patch, z, *patch.region[1:3], pixels, Range(e)),
        )

    replace_by_call(sch, 10, ("weight", "patch"), operands, made.name, made.source)
