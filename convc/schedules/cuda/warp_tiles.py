"""Which tiles a product on tensor cores may have, and how long each takes: what fits threads, registers and shared memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Final

from convc.schedules.cuda.fragments import CHANNELS, PIXELS, WORDS, elements_of
from convc.schedules.cuda.mma import row_words
from convc.schedules.cuda.model import resident_blocks, rounds_cycles
from convc.schedules.cuda.tiles import overlaps, vector_of
from convc.schedules.plan import Knobs
from convc.target import Gpu

__all__ = ["shared_bytes", "warp_cycles", "warp_registers", "warp_tiles"]

# (channels, pixels) of a warp.
_WARPS: Final = (
    (64, 32),
    (32, 64),
    (64, 64),
    (32, 32),
    (16, 64),
    (64, 16),
    (32, 16),
    (16, 32),
    (16, 16),
)
_BLOCK_CHANNELS: Final = (16, 32, 64, 128)
_BLOCK_PIXELS: Final = (16, 32, 64, 128, 256)
# Words of a step.
_STEPS: Final = (8, 16, 32)
_MOST_WARPS: Final = 8

# Without asking for more, a kernel has so much shared memory.
_SHARED: Final = 48 << 10

# Registers of a thread beside sums and operands (ptxas: 30 to 60).
_OTHER_REGISTERS: Final = 48

# ptxas takes up to a tenth more than the estimate, and a thread has 255.
_MOST_REGISTERS: Final = 224

# Bytes that a multiprocessor gets from L2 in a clock while all ask for some (5.5 TB/s of an H100).
_L2: Final = 24.0

# Warp instructions that a multiprocessor issues in a clock.
_ISSUE: Final = 4.0

# A thread's load or store in a chain of them, a warp's instruction by itself; an element looked up and a vector of weights copied, in
# lanes of float32 units. Fitted to 12 settings of two layers in float16 on an H200: within 1.15 but for split sums, which are faster.
_CHAIN: Final = 12.0
_MMA: Final = 8.0
_LOOKUP: Final = 40.0
_COPY: Final = 20.0


def warp_registers(knobs: Knobs, dtype: str) -> int:
    """Return registers of a thread: sums, operands (twice where they are split), loads that wait, the rest.

    Example:
        >>> tile = {"channels": 128, "pixels": 128, "warp_channels": 64, "warp_pixels": 32, "step": 16, "math": 3, "ahead": 0}
        >>> warp_registers(tile, "float32")
        160
    """
    m, n = knobs["warp_channels"] // CHANNELS, knobs["warp_pixels"] // PIXELS
    operands = 4 * m + 2 * n
    waiting = 0
    if knobs["ahead"]:
        threads = 32 * (knobs["channels"] // (16 * m)) * (knobs["pixels"] // (8 * n))
        waiting = (knobs["channels"] + knobs["pixels"]) * knobs["step"] // elements_of(dtype) // threads  # fmt: skip
    return 4 * m * n + operands * (2 if knobs["math"] > 1 else 1) + waiting + _OTHER_REGISTERS


def shared_bytes(knobs: Knobs, dtype: str) -> int:
    """Return shared memory of a block: both operands of a step, `stages` times."""
    words = knobs["step"] // elements_of(dtype)
    return 4 * words * (knobs["channels"] + row_words(knobs["pixels"])) * knobs["stages"]


def warp_tiles(
    gpu: Gpu,
    channels: int,
    pixels: int,
    dtype: str,
    *,
    math: int,
    exact: bool,
    together: int = 1,
) -> Iterator[Knobs]:
    """Yield the legal tiles of products with so many channels and pixels, no tile twice as large as what it covers.

    Args:
        gpu: the device.
        channels: of one product.
        pixels: of one product.
        dtype: of the operands.
        math: products for each of them.
        exact: whether the channels' tile must divide the channels, since padding would be another product's.
        together: pixels that can be loaded at once.
    """
    for warp_channels, warp_pixels in _WARPS:
        for tile_channels in _BLOCK_CHANNELS:
            if tile_channels % warp_channels or tile_channels >= max(2 * CHANNELS, 2 * channels):
                continue
            if exact and channels % tile_channels:
                continue
            for tile_pixels in _BLOCK_PIXELS:
                if tile_pixels % warp_pixels or tile_pixels >= max(4 * PIXELS, 2 * pixels):
                    continue
                warps = (tile_channels // warp_channels) * (tile_pixels // warp_pixels)
                if warps > _MOST_WARPS:
                    continue
                for words, (stages, ahead) in itertools.product(_STEPS, overlaps(4 // elements_of(dtype))):  # fmt: skip
                    knobs = {
                        "pixels": tile_pixels,
                        "channels": tile_channels,
                        "step": words * elements_of(dtype),
                        "warp_pixels": warp_pixels,
                        "warp_channels": warp_channels,
                        "math": math,
                        "split": 1,
                        "stages": stages,
                        "ahead": ahead,
                        "vector": vector_of(tile_pixels * words, 32 * warps, together),
                    }
                    shared = shared_bytes(knobs, dtype)
                    threads = warps * gpu.warp
                    whole_copies = tile_channels * words % (4 * threads) == 0 and tile_pixels * words % threads == 0  # fmt: skip
                    if warp_registers(knobs, dtype) > _MOST_REGISTERS:
                        continue
                    if shared <= _SHARED and whole_copies and resident_blocks(gpu, threads, warp_registers(knobs, dtype), shared):  # fmt: skip
                        yield knobs


def warp_cycles(
    gpu: Gpu, products: int, channels: int, pixels: int, depth: int, knobs: Knobs, dtype: str
) -> float:
    """Return clocks of products of padded extents on the device's tensor cores.

    A multiprocessor works on its resident blocks side by side; a step of all of them takes as long as the busiest unit, or as one
    block's own chain of loads and products.
    """
    e = elements_of(dtype)
    words = knobs["step"] // e
    m, n = knobs["warp_channels"] // CHANNELS, knobs["warp_pixels"] // PIXELS
    warps = (knobs["channels"] // knobs["warp_channels"]) * (
        knobs["pixels"] // knobs["warp_pixels"]
    )
    resident = resident_blocks(
        gpu, warps * gpu.warp, warp_registers(knobs, dtype), shared_bytes(knobs, dtype)
    )
    if not resident:
        return math.inf
    many, threads = knobs["math"], warps * gpu.warp
    instructions = words // WORDS
    multiply = knobs["channels"] * knobs["pixels"] * knobs["step"] * many / (gpu.tf32_macs * e)
    looked_up = knobs["pixels"] * words * e / knobs["vector"]
    copied = knobs["channels"] * words / 4
    shared = warps * instructions * (4 * m + 2 * n)
    shared += (looked_up * _LOOKUP + copied * _COPY) / gpu.fp32_lanes
    split = (4 * m + 2 * n) * 3 + 4 * m * n if many > 1 else 0
    issue = warps * instructions * (m * n * many + m + 2 * n + split) / _ISSUE
    fetch = 4.0 * words * (knobs["channels"] + knobs["pixels"]) / _L2
    *_, second, busiest = sorted((multiply, shared, issue, fetch))
    loads = 2 * (looked_up + copied) / threads + instructions * (m + 2 * n)
    alone = _CHAIN * loads + _MMA * instructions * m * n * many
    blocks = products * (channels // knobs["channels"]) * (pixels // knobs["pixels"])
    steps = depth / knobs["step"]
    return rounds_cycles(gpu, blocks, resident, steps, busiest + second / 2, alone, knobs)
