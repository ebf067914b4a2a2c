"""Which tiles a product of `rows` may have: what fits threads, registers and shared memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from convc.ir.types import numpy_dtype
from convc.schedules.cuda.cluster import ClusterSum
from convc.schedules.cuda.model import resident_blocks
from convc.schedules.cuda.rows import CHANNELS, PIXELS
from convc.schedules.cuda.wgmma import WARPS
from convc.schedules.plan import Knobs
from convc.schedules.vector_gemm import lanes
from convc.target import Gpu

__all__ = [
    "cluster_of",
    "cluster_sum_of",
    "fills_stages",
    "group_of",
    "resident_blocks_of",
    "row_registers",
    "row_shared_bytes",
    "row_tiles",
    "warps_of",
]

# (pixels, channels) of a warp: channels by two instructions, whose weights one ldmatrix reads.
_WARPS: Final = tuple(itertools.product((16, 32, 64), (16, 32, 64)))
_BLOCK_PIXELS: Final = (16, 32, 64, 128, 256)
_BLOCK_CHANNELS: Final = (16, 32, 64, 128, 256)
# Bytes of a row.
_STEPS: Final = (64, 128)
_STAGES: Final = (2, 3, 4)
_MOST_WARPS: Final = 8
_WARP: Final = 32

# Of warpgroups: a block's tile is one to four of 64 pixels.
_GROUP_PIXELS: Final = (64, 128, 256)
_GROUP_STEPS: Final = (128, 256)
_GROUP_STAGES: Final = (2, 3, 4, 5)

# Registers of a thread beside sums and operands (ptxas: 31 to 52; of a warpgroup's, which has no operands in registers, up to 46).
_OTHER_REGISTERS: Final = 52
_MOST_REGISTERS: Final = 232


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
    """Return a block's bytes of shared memory: both operands of a step, `stages` times, or what others of its cluster write in their place.

    Example:
        >>> tile = {"pixels": 128, "channels": 256, "step": 32, "stages": 2, "warp_pixels": 16, "warp_channels": 256}
        >>> row_shared_bytes(tile, "float16"), row_shared_bytes({**tile, "cluster": 4}, "float16")
        (49152, 98304)
    """
    rows = knobs["pixels"] + knobs["channels"]
    steps = rows * knobs["step"] * numpy_dtype(dtype).itemsize * knobs["stages"]
    return max(steps, cluster_sum_of(knobs).room_bytes)


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
    size = numpy_dtype(dtype).itemsize
    tiles = ({**tile, **alone} for tile in _warp_tiles(size))
    for tile in itertools.chain(tiles, _group_tiles(size) if warpgroups else ()):
        tile_pixels, tile_channels = tile["pixels"], tile["channels"]
        if tile_channels >= max(2 * _BLOCK_CHANNELS[0], 2 * channels):
            continue
        if tile_pixels >= max(2 * _BLOCK_PIXELS[0], 2 * pixels) or (
            exact and channels % tile_channels
        ):
            continue  # fmt: skip
        threads, copies = warps_of(tile) * gpu.warp, tile["step"] // lanes(dtype)
        whole = tile_pixels * copies % threads == 0 and tile_channels * copies % threads == 0
        if (
            whole
            and row_registers(tile) <= _MOST_REGISTERS
            and resident_blocks_of(gpu, tile, dtype)
        ):
            yield tile


def _warp_tiles(size: int) -> Iterator[Knobs]:
    blocks = itertools.product(_WARPS, _BLOCK_PIXELS, _BLOCK_CHANNELS, _STEPS, _STAGES)
    for (warp_pixels, warp_channels), pixels, channels, step, stages in blocks:
        warps = pixels / warp_pixels * (channels / warp_channels)
        if pixels % warp_pixels == channels % warp_channels == 0 and warps <= _MOST_WARPS:
            yield _knobs(pixels, channels, step // size, warp_pixels, warp_channels, stages)


def _group_tiles(size: int) -> Iterator[Knobs]:
    """Yield tiles of warpgroups, of elements of so many bytes: 16 pixels of each warp, and the channels of the block."""
    for pixels, channels, step, stages in itertools.product(
        _GROUP_PIXELS, _BLOCK_CHANNELS, _GROUP_STEPS, _GROUP_STAGES
    ):
        yield {**_knobs(pixels, channels, step // size, PIXELS, channels, stages), "group": WARPS}


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


def cluster_of(knobs: Knobs) -> int:
    """Return how many blocks add up their parts of a sum in their shared memory; 1: none does.

    Example:
        >>> cluster_of({"split": 4}), cluster_of({"split": 4, "cluster": 4})
        (1, 4)
    """
    return knobs.get("cluster", 1)


def cluster_sum_of(knobs: Knobs) -> ClusterSum:
    """Return how those blocks do it.

    Example:
        >>> tile = {"pixels": 128, "channels": 128, "warp_pixels": 16, "warp_channels": 128}
        >>> cluster_sum_of({**tile, "cluster": 2})
        ClusterSum(blocks=2, threads=256, sums=64)
    """
    threads = warps_of(knobs) * _WARP
    return ClusterSum(cluster_of(knobs), threads, knobs["pixels"] * knobs["channels"] // threads)


def fills_stages(tile: Knobs, depth: int) -> bool:
    """Whether a sum of so many terms has the steps that its pipeline needs.

    A product that goes on behind the next copies has as many as are in shared memory.
    """
    apart = group_of(tile) > 1 and tile["stages"] > 2
    return -(-depth // tile["step"]) >= (tile["stages"] if apart else 1)


def warps_of(knobs: Knobs) -> int:
    """Return the warps of a block."""
    return (knobs["pixels"] // knobs["warp_pixels"]) * (knobs["channels"] // knobs["warp_channels"])


def resident_blocks_of(gpu: Gpu, knobs: Knobs, dtype: str) -> int:
    """Return how many blocks of a tile run on a multiprocessor at once; 0 if none fits."""
    threads = warps_of(knobs) * gpu.warp
    return resident_blocks(gpu, threads, row_registers(knobs), row_shared_bytes(knobs, dtype))
