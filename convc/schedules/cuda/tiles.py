"""Which tiles a product may have on a device: what fits its threads, registers and shared memory, so that no illegal kernel is proposed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from convc.schedules.cuda.model import resident_blocks, tile_registers, tile_shared_bytes
from convc.schedules.plan import Knobs
from convc.target import Gpu

__all__ = ["overlaps", "tiles", "vector_of"]

# (channels, pixels) of a thread.
_THREAD_TILES = ((8, 8), (8, 4), (4, 8), (4, 4), (4, 2), (2, 4))
_BLOCK = (16, 32, 64, 128)
_STEPS = (8, 16, 32)

# Loads of a thread that may wait in registers: with 20 of them ptxas spilled.
_WAITING = 16


def tiles(
    gpu: Gpu,
    channels: int,
    pixels: int,
    *,
    exact: bool = False,
    itemsize: int = 4,
    together: int = 1,
) -> Iterator[Knobs]:
    """Yield the legal tiles of products with so many channels and pixels, no tile twice as large as what it covers.

    Args:
        gpu: the device.
        channels: of one product.
        pixels: of one product.
        exact: whether the channels' tile must divide the channels, since padding would be another product's.
        itemsize: bytes of an element.
        together: pixels that can be loaded at once.
    """
    blocks = _divisors(channels) if exact else _BLOCK
    for rows, cols in _THREAD_TILES:
        for tile_channels in blocks:
            tall = rows if not exact else max(d for d in (1, 2, 4, 8) if d <= rows and tile_channels % d == 0)  # fmt: skip
            if tile_channels % tall or (not exact and tile_channels >= max(32, 2 * channels)):
                continue
            for tile_pixels in _BLOCK:
                if tile_pixels % cols or tile_pixels >= max(32, 2 * pixels):
                    continue
                threads = (tile_channels // tall) * (tile_pixels // cols)
                if threads > 256 or (threads < gpu.warp and not exact):
                    continue
                for step, (stages, ahead) in itertools.product(_STEPS, overlaps(itemsize)):
                    if ahead and (tile_channels + tile_pixels) * step > _WAITING * threads:
                        continue
                    knobs = {
                        "pixels": tile_pixels,
                        "channels": tile_channels,
                        "step": step,
                        "thread_pixels": cols,
                        "thread_channels": tall,
                        "split": 1,
                        "stages": stages,
                        "ahead": ahead,
                        "vector": vector_of(tile_pixels * step, threads, together),
                    }
                    shared = tile_shared_bytes(knobs, max(4, itemsize))
                    # Without asking for more, a kernel has 48 KiB.
                    if shared <= 48 << 10 and resident_blocks(gpu, threads, tile_registers(knobs), shared):  # fmt: skip
                        yield knobs


def vector_of(elements: int, threads: int, together: int) -> int:
    """Return how many elements a thread loads at once: all that lie together, if every thread then has the same number of loads."""
    return together if elements % (threads * together) == 0 else 1


def overlaps(itemsize: int) -> tuple[tuple[int, int], ...]:
    """Return (stages, ahead) of `product.pipeline`: no overlap, through registers, and where elements are words by cp.async."""
    return ((2, 0), (1, 1), (1, 0)) if itemsize >= 4 else ((1, 1), (1, 0))


def _divisors(extent: int) -> list[int]:
    return [d for d in range(1, min(extent, _BLOCK[-1]) + 1) if extent % d == 0]
