"""How long a product of `rows` takes: the analytic model of half-precision kernels whose operands lie in rows of 16 bytes.

A multiprocessor works on its resident blocks side by side; a step of all of them takes as long as its busiest unit and a share of the
second, or as one block's own chain: its copies' instructions, their way from L2, of which the other steps in shared memory hide some, and
its product. The sums of each block are stored at its end.

The constants are fitted to an H200 (2026-11-27): 736 settings of 46 layers of ResNet-50 in float16, at batch 1 and 32, within a factor of
1.14 (root mean square), and of the settings of a layer the model takes one 1.055 times slower than the best in the geometric mean, 1.28 at
most. Fitted to two thirds of the layers, four times anew, it is as good on those left out: 1.154 and 1.056.
Those kernels had a fence behind copies, which the present ones have not: 43 settings of 12 layers at batch 32 by wgmma take 0.85 times
as long as the model says, 27 with patches through L1 0.91, within factors of 1.25 and 1.19. Of 22 layers by the present ones what it takes
is 1.08 times slower than the best of 14 settings at batch 32 (1.31 at most) and of 10 at batch 1 (1.34).
"""

from __future__ import annotations

import math
from typing import Final

from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules.cuda.model import launched_cycles, memory_cycles
from convc.schedules.cuda.row_tiles import (
    cluster_of,
    cluster_sum_of,
    group_of,
    resident_blocks_of,
    warps_of,
)
from convc.schedules.cuda.rows import CHANNELS, PIXELS, depth_of
from convc.schedules.cuda.wgmma import WARPS
from convc.schedules.plan import Knobs
from convc.schedules.vector_gemm import lanes
from convc.target import Gpu

__all__ = ["launched_rows", "patch_rate", "row_cycles"]

# Bytes that a multiprocessor gets from L2 in a clock: neighbouring rows of 16 bytes; of patches under several taps, whose rows of pixels
# begin at odd pixels and end at the border, so that sectors of 32 bytes are read by half; of every second pixel, whose rows are the halves
# of sectors, so that a copy moves 16 bytes alone. Fitted; half-used sectors explain a factor of 2, the last is nearly 5.
_L2: Final = 64.0
_L2_TAPS: Final = 30.0
_L2_APART: Final = 13.5

# Bytes that a multiprocessor reads from and writes to shared memory in a clock; instructions it issues; bytes of sums it stores.
_SHARED: Final = 128.0
_ISSUE: Final = 4.0
_STORED: Final = 32.0

# Instructions of a thread for one copy of 16 bytes: address, conditions, cp.async. A thread's copy or ldmatrix in a chain of them, in
# clocks. Clocks of a copy from L2 without its bytes' own time.
_COPY: Final = 14.0
_CHAIN: Final = 13.5
_WAIT: Final = 75.0

# Of a step: two barriers, a loop's end, and what of copies and products no other block hides.
_STEP: Final = 150.0

# Of a step's time on the second busiest unit what shows; where the product goes on behind the next copies, which is why three steps of
# wgmma in shared memory take 0.93 times as long as two (133 pairs). Of the lesser of units and chain.
_SECOND: Final = 0.5
_SECOND_BEHIND: Final = 0.15
_LESSER: Final = 0.05

# Of the lesser of work and memory: among settings that wait for memory alike, the one with less work. Other algorithms' models have no
# such share, so it is small against what sets algorithms apart.
_TIE: Final = 1e-3

# Half-precision multiply-adds of a multiprocessor of 9.0 in a clock by wgmma; clocks from a warpgroup's last instruction to its sums.
_GROUP_MACS: Final = 2048.0
_GROUP_LATENCY: Final = 190.0

# Parts of a multiprocessor, of which a warp by itself has one.
_PARTS: Final = 4

# From a launch to a block's first step and from the last one's end; of split sums, for each copy of a thread ahead of the first product:
# where a part of the sum begins is known at run time only.
_START: Final = 340.0
_PART_COPY: Final = 50.0

# Of a cluster, which no device of ours has measured: bytes that a multiprocessor sends to others in a clock, clocks of a barrier.
# Luo et al., arXiv:2501.12084, have 3.3 TB/s of an H800's 114 multiprocessors in clusters of 2, 2.8 of 4, and some 190 clocks of latency.
_SENT: Final = 14.0
_CLUSTER_BARRIER: Final = 300.0
# Multiprocessors lie in groups of 16 or 18, and a cluster in one group: of more than 2 blocks some of those do not fill.
_GROUP_SMS: Final = 16

# See `launched_cycles`: 8 channels of a sum lie together, read 16 bytes a load.
_ADDING: Final = 0.8


def patch_rate(spec: ConvSpec, knobs: Knobs) -> float:
    """Return bytes of patches that a multiprocessor gets from L2 in a clock; through L1 (knob `cached`) whole sectors, each once.

    Example:
        >>> patch_rate(ConvSpec.of((1, 64, 56, 56), (64, 64, 1, 1), strides=(2, 2), dtype="float16"), {})
        13.5
    """
    if knobs.get("cached"):
        return _L2
    if spec.strides[-1] > 1 and not spec.transposed:
        return _L2_APART
    return _L2_TAPS if math.prod(spec.kernel) > 1 else _L2


def row_cycles(
    gpu: Gpu, count: int, channels: int, pixels: int, depth: int, knobs: Knobs, dtype: str, *, rate: float, stored: int
) -> float:  # fmt: skip
    """Return clocks of `count` products of padded extents on the device's tensor cores.

    Args:
        gpu: the device.
        count: how many.
        channels: of one, whole tiles.
        pixels: of one, whole tiles.
        depth: of one, whole steps.
        knobs: the tile, and in how many parts a sum is.
        dtype: of the operands.
        rate: see `patch_rate`.
        stored: bytes of a sum where it is stored; what a cluster hands around is counted besides.
    """
    resident = resident_blocks_of(gpu, knobs, dtype)
    if not resident:
        return math.inf
    size = numpy_dtype(dtype).itemsize
    m, n = knobs["warp_pixels"] // PIXELS, knobs["warp_channels"] // CHANNELS
    depth_of_one = depth_of(dtype)
    warps, instructions = warps_of(knobs), knobs["step"] // depth_of_one
    patches, weights = (knobs[side] * knobs["step"] * size for side in ("pixels", "channels"))
    copies = (patches + weights) / (size * lanes(dtype))
    chain = _CHAIN * copies / (warps * gpu.warp)
    products = knobs["pixels"] * knobs["channels"] * knobs["step"]
    issue = copies * _COPY / gpu.fp32_lanes
    if group_of(knobs) > 1:
        multiply = products / (_GROUP_MACS * 2 / size)
        groups = warps // group_of(knobs)
        moved = groups * instructions * depth_of_one * size * (PIXELS * WARPS + knobs["channels"])
        own = multiply + _GROUP_LATENCY
    else:
        multiply = products / (gpu.tf32_macs * 4 / size)
        reads = instructions * (m + n / 2)
        # An ldmatrix.x4 reads 512 bytes.
        moved = 512 * warps * reads
        issue += warps * (instructions * m * n + reads) / _ISSUE
        own = max(_CHAIN * reads, multiply * _PARTS * -(-warps // _PARTS) / warps)
    shared = (moved + patches + weights) / _SHARED
    fetch = patches / rate + weights / _L2
    behind = group_of(knobs) > 1 and knobs["stages"] > 2
    waited = (_WAIT + fetch) / (knobs["stages"] - (2 if behind else 1))
    alone = max(chain, own, waited) if behind else chain + max(own, waited)
    *_, second, busiest = sorted((multiply, shared, issue, fetch))
    step = busiest + (_SECOND_BEHIND if behind else _SECOND) * second
    steps = depth / knobs["step"]
    end = knobs["pixels"] * knobs["channels"] * stored / _STORED
    cluster, sms = cluster_of(knobs), gpu.sms
    if cluster > 1:
        end = end / cluster + cluster_sum_of(knobs).room_bytes / _SENT + 2 * _CLUSTER_BARRIER
        sms -= sms % _GROUP_SMS if cluster > 2 else 0

    def together(blocks: int) -> float:
        less, more = sorted((blocks * step, alone))
        return steps * (more + _LESSER * less + _STEP) + blocks * end

    blocks = count * (channels // knobs["channels"]) * (pixels // knobs["pixels"])
    whole, rest = divmod(-(-blocks // sms), resident)
    begin = _START
    if knobs["split"] > 1:
        begin += _PART_COPY * (knobs["stages"] - 1) * copies / (warps * gpu.warp)
    return begin + whole * together(resident) + (together(rest) if rest else 0.0)


def launched_rows(gpu: Gpu, work: float, nbytes: int, partial: int) -> float:
    """Return clocks of one launch, and of a second that adds up parts of sums: see `launched_cycles`.

    Bytes that fit L2 are there: the layer before wrote them (25 MB of a layer run again took no longer than 4.6 TB/s makes them).
    """
    memory = memory_cycles(gpu, nbytes + partial) if nbytes + partial > gpu.l2_bytes else 0.0
    less, more = sorted((work, memory))
    return launched_cycles(gpu, more + _TIE * less, 0, partial, _ADDING)
