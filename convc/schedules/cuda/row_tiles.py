"""Which tiles a product of `rows` may have, and how long each takes: what fits threads, registers and shared memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Final

from convc.ir.types import numpy_dtype
from convc.schedules.cuda.model import resident_blocks, rounds_cycles
from convc.schedules.cuda.rows import CHANNELS, DEPTH, PIXELS
from convc.schedules.cuda.wgmma import WARPS
from convc.schedules.plan import Knobs
from convc.schedules.vector_gemm import lanes
from convc.target import Gpu

__all__ = [
    "ROWS_ADDING",
    "fills_stages",
    "group_of",
    "row_cycles",
    "row_registers",
    "row_shared_bytes",
    "row_tiles",
]

# (pixels, channels) of a warp: channels by two instructions, whose weights one ldmatrix reads.
_WARPS: Final = tuple(itertools.product((16, 32, 64), (16, 32, 64)))
_BLOCK_PIXELS: Final = (16, 32, 64, 128, 256)
_BLOCK_CHANNELS: Final = (16, 32, 64, 128, 256)
_STEPS: Final = (32, 64)
_STAGES: Final = (2, 3, 4)
_MOST_WARPS: Final = 8

# Of warpgroups: a block's tile is one to four of 64 pixels.
_GROUP_PIXELS: Final = (64, 128, 256)
_GROUP_STEPS: Final = (64, 128)
_GROUP_STAGES: Final = (2, 3, 4, 5)

# Registers of a thread beside sums and operands (ptxas: 31 to 52; of a warpgroup's, which has no operands in registers, up to 46).
_OTHER_REGISTERS: Final = 52
_MOST_REGISTERS: Final = 232

# Bytes that a multiprocessor reads from shared memory in a clock, and gets from L2: while all ask for some, and alone; instructions it
# issues.
_SHARED: Final = 107.0
_L2: Final = 52.0
_L2_ALONE: Final = 64.0
_ISSUE: Final = 4.0

# Instructions of a thread for one copy of 16 bytes: address, conditions, cp.async. A thread's load in a chain of them, in clocks. These
# and the bytes above are fitted to an H200 (2026-11-27): of 124 settings of 11 layers of ResNet-50 in float16 within a factor of 1.16
# (root mean square), and what the model takes is 1.09 times slower than the best of them in the geometric mean.
_COPY: Final = 14.0
_CHAIN: Final = 14.0

# How much longer rows of 16 bytes take to come from L2 where each pixel's lies apart from its neighbour's, as of strided convolutions.
# With it the 736 settings of ResNet-50's layers in float16 at batch 1 and 32 that an H200 ran (2026-11-27) are within a factor of 1.19
# (root mean square), without 1.32; those of the first layer took 2.1 times what the model said, now as long.
_APART: Final = 4.0

# Half-precision multiply-adds of a multiprocessor of 9.0 in a clock by wgmma; clocks from a warpgroup's last instruction to its sums.
_GROUP_MACS: Final = 2048.0
_GROUP_LATENCY: Final = 170.0


# See `launched_cycles`: 8 channels of a sum lie together. With this the 29 settings of split sums that an H200 ran, when that kernel read
# 4 bytes a load (2026-11-27), are within a factor of 1.09 (root mean square); reads of 16 bytes are not measured.
ROWS_ADDING: Final = 1.2


def row_registers(knobs: Knobs) -> int:
    """Return registers of a thread: sums, operands, the rest.

    Example:
        >>> row_registers({"warp_pixels": 64, "warp_channels": 32})
        140
    """
    m, n = knobs["warp_pixels"] // PIXELS, knobs["warp_channels"] // CHANNELS
    operands = 4 * m + 2 * n if group_of(knobs) == 1 else 0
    return 4 * m * n + operands + _OTHER_REGISTERS


def row_shared_bytes(knobs: Knobs, dtype: str) -> int:
    """Return shared memory of a block: both operands of a step, `stages` times."""
    rows = knobs["pixels"] + knobs["channels"]
    return rows * knobs["step"] * numpy_dtype(dtype).itemsize * knobs["stages"]


def row_tiles(
    gpu: Gpu, channels: int, pixels: int, dtype: str, *, exact: bool, warpgroups: bool
) -> Iterator[Knobs]:
    """Yield the legal tiles of products with so many channels and pixels, no tile twice as large as what it covers.

    Args:
        gpu: the device.
        channels: of one product.
        pixels: of one product.
        dtype: of the operands.
        exact: whether the channels' tile must divide the channels, since padding would be another product's.
        warpgroups: whether four warps may multiply together: only then there is a knob `group`, so that no record of such a tile is taken
            where it cannot be compiled.
    """
    alone: Knobs = {"group": 1} if warpgroups else {}
    tiles = ({**tile, **alone} for tile in _warp_tiles())
    for tile in itertools.chain(tiles, _group_tiles() if warpgroups else ()):
        tile_pixels, tile_channels = tile["pixels"], tile["channels"]
        if tile_channels >= max(2 * _BLOCK_CHANNELS[0], 2 * channels):
            continue
        if tile_pixels >= max(2 * _BLOCK_PIXELS[0], 2 * pixels) or (
            exact and channels % tile_channels
        ):
            continue  # fmt: skip
        threads, copies = _warps(tile) * gpu.warp, tile["step"] // lanes(dtype)
        whole = tile_pixels * copies % threads == 0 and tile_channels * copies % threads == 0
        if whole and row_registers(tile) <= _MOST_REGISTERS and _resident(gpu, tile, dtype):
            yield tile


def _warp_tiles() -> Iterator[Knobs]:
    blocks = itertools.product(_WARPS, _BLOCK_PIXELS, _BLOCK_CHANNELS, _STEPS, _STAGES)
    for (warp_pixels, warp_channels), pixels, channels, step, stages in blocks:
        warps = pixels / warp_pixels * (channels / warp_channels)
        if pixels % warp_pixels == channels % warp_channels == 0 and warps <= _MOST_WARPS:
            yield _knobs(pixels, channels, step, warp_pixels, warp_channels, stages)


def _group_tiles() -> Iterator[Knobs]:
    """Yield tiles of warpgroups: 16 pixels of each warp, and the channels of the block."""
    for pixels, channels, step, stages in itertools.product(
        _GROUP_PIXELS, _BLOCK_CHANNELS, _GROUP_STEPS, _GROUP_STAGES
    ):
        yield {**_knobs(pixels, channels, step, PIXELS, channels, stages), "group": WARPS}


def _knobs(
    pixels: int, channels: int, step: int, warp_pixels: int, warp_channels: int, stages: int
) -> Knobs:
    return {
        "pixels": pixels,
        "channels": channels,
        "step": step,
        "warp_pixels": warp_pixels,
        "warp_channels": warp_channels,
        "math": 1,
        "split": 1,
        "stages": stages,
    }


def group_of(knobs: Knobs) -> int:
    """Return how many warps multiply together."""
    return knobs.get("group", 1)


def fills_stages(tile: Knobs, depth: int) -> bool:
    """Whether a sum of so many terms has the steps that its pipeline needs.

    A product that goes on behind the next copies has as many as are in shared memory.
    """
    apart = group_of(tile) > 1 and tile["stages"] > 2
    return -(-depth // tile["step"]) >= (tile["stages"] if apart else 1)


def _warps(knobs: Knobs) -> int:
    return (knobs["pixels"] // knobs["warp_pixels"]) * (knobs["channels"] // knobs["warp_channels"])


def _resident(gpu: Gpu, knobs: Knobs, dtype: str) -> int:
    threads = _warps(knobs) * gpu.warp
    return resident_blocks(gpu, threads, row_registers(knobs), row_shared_bytes(knobs, dtype))


def row_cycles(
    gpu: Gpu,
    count: int,
    channels: int,
    pixels: int,
    depth: int,
    knobs: Knobs,
    dtype: str,
    *,
    apart: bool = False,
) -> float:
    """Return clocks of `count` products of padded extents on the device's tensor cores.

    A multiprocessor works on its resident blocks side by side; a step of all of them takes as long as the busiest unit, or as one
    block's own chain of loads and products. `apart`: whether the data of neighbouring pixels lie apart.
    """
    resident = _resident(gpu, knobs, dtype)
    if not resident:
        return math.inf
    size = numpy_dtype(dtype).itemsize
    m, n = knobs["warp_pixels"] // PIXELS, knobs["warp_channels"] // CHANNELS
    warps, instructions = _warps(knobs), knobs["step"] // DEPTH
    nbytes = (knobs["pixels"] + knobs["channels"]) * knobs["step"] * size
    copies = nbytes / (size * lanes(dtype))
    products = knobs["pixels"] * knobs["channels"] * knobs["step"]
    issue = copies * _COPY / gpu.fp32_lanes
    alone = _CHAIN * copies / (warps * gpu.warp)
    if group_of(knobs) > 1:
        multiply = products / _GROUP_MACS
        groups = warps // group_of(knobs)
        moved = groups * instructions * DEPTH * size * (PIXELS * WARPS + knobs["channels"])
        # That a product of three steps or more in shared memory goes on behind the next copies is not in it: no device measured that
        # yet, and until then such a tile can only tie, behind the one with two steps.
        alone += multiply + _GROUP_LATENCY
    else:
        multiply = products / (gpu.tf32_macs * 4 / size)
        reads = instructions * (m + n / 2)
        # An ldmatrix.x4 reads 512 bytes.
        moved = 512 * warps * reads
        issue += warps * (instructions * m * n + reads) / _ISSUE
        alone += _CHAIN * reads
    shared = (moved + nbytes) / _SHARED
    blocks = count * (channels // knobs["channels"]) * (pixels // knobs["pixels"])
    rows = (_APART if apart else 1.0) * knobs["pixels"] + knobs["channels"]
    fetched = rows * knobs["step"] * size
    fetch = fetched / min(_L2_ALONE, _L2 * gpu.sms / min(blocks, gpu.sms))
    *_, second, busiest = sorted((multiply, shared, issue, fetch))
    steps = depth / knobs["step"]
    return rounds_cycles(gpu, blocks, resident, steps, busiest + second / 2, alone, {**knobs, "ahead": 0})  # fmt: skip
