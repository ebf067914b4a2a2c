"""The analytic model of kernels on a device: what ranks algorithms and knobs where nothing was measured.

A launch takes the longer of two: its multiprocessors' work, in whole waves of blocks, or its bytes at the memory's speed. The numbers
are fitted to 771 settings of 53 layers on an H200 (2026-11-26): most times are right within a factor of 1.3, and of the settings that
were measured the model takes one 1.09 times slower than the best in the geometric mean; 2 times for groups of 8 channels.
"""

from __future__ import annotations

import math

from convc.schedules.plan import Knobs
from convc.target import Gpu

__all__ = ["ADDING", "LAUNCH_SECONDS", "launched_cycles", "memory_cycles", "point_cycles", "product_cycles", "resident_blocks", "rounds_cycles", "tile_registers", "tile_shared_bytes"]  # fmt: skip

# From the end of one kernel to the first instruction of the next in a stream or graph, and until its blocks are under way.
LAUNCH_SECONDS = 1.5e-6
_START = 1300.0

# Two barriers and a loop's end, as far as other blocks do not hide them.
_STEP = 75.0

# From a load's issue to its data, from L2 mostly.
_LATENCY = 350.0

# How much longer steps take than with cp.async, whose copies need no registers and no stores: 163 pairs of settings.
_EXPOSED = 1.18

# A load or store of one thread in a chain of them; an element that is looked up, in lanes of float32 units: conditions, load, store.
_CHAIN = 6.0
_LOOKUP = 60.0

# Vectors of four that a warp reads from shared memory, each so many clocks; of the second busiest unit's time, what shows.
_SHARED_LOAD = 0.875
_OVERLAP = 0.86

# Registers of a thread beside its tile: addresses, predicates, loop counters (ptxas: 45 to 52 for tiles of 4 x 4 to 8 x 8).
_OTHER_REGISTERS = 50

# Of a step's loads ptxas has so many on their way at most, if it has the registers.
_MOST_WAITING = 32

# Loads from L1 that a multiprocessor finishes in a clock: one of a whole warp; clocks of a load in a thread alone, several in flight.
_LOADS = 22.0
_LOAD_CLOCKS = 6.0

# Of the peak bandwidth, what a kernel that streams reaches: a copy on the H200 measured, 2.77 of 4.8 TB/s.
_STREAM = 0.58

# A kernel that adds up parts of sums reads each of them from where another one left it, a part after the other.
ADDING = 3.8


def tile_registers(knobs: Knobs) -> int:
    """Return registers of a thread: sums, operands, loads on their way or the addresses of copies, and the rest.

    Example:
        >>> tile_registers({"channels": 64, "pixels": 64, "step": 8, "thread_channels": 8, "thread_pixels": 8})
        146
    """
    rows, cols = knobs["thread_channels"], knobs["thread_pixels"]
    threads = (knobs["channels"] // rows) * (knobs["pixels"] // cols)
    loads = (knobs["channels"] + knobs["pixels"]) * knobs["step"] // threads
    return rows * cols + rows + cols + min(loads, _MOST_WAITING) + _OTHER_REGISTERS


def tile_shared_bytes(knobs: Knobs, itemsize: int) -> int:
    """Return shared memory of a block: both operands of a step, `stages` times."""
    return (knobs["pixels"] + knobs["channels"]) * knobs["step"] * itemsize * knobs["stages"]


def resident_blocks(gpu: Gpu, threads: int, registers: int, shared: int) -> int:
    """Return how many blocks run on a multiprocessor at once; 0 if none fits.

    Example:
        >>> from convc.target.cuda import gpu_of
        >>> resident_blocks(gpu_of(90), 256, 128, 16384)
        2
    """
    if threads > gpu.threads_block or shared > gpu.shared_bytes or registers > gpu.registers_thread:
        return 0
    limits = [gpu.blocks_sm, gpu.threads_sm // threads, gpu.registers_sm // (registers * threads)]
    if shared:
        limits.append(gpu.shared_sm_bytes // (shared + 1024))
    return min(limits)


def memory_cycles(gpu: Gpu, nbytes: float) -> float:
    """Return clocks that so many bytes take from device memory."""
    return nbytes / (_STREAM * gpu.bytes_per_second) * gpu.clock_hz


def launched_cycles(
    gpu: Gpu, work: float, nbytes: float, partial: float, adding: float = ADDING
) -> float:
    """Return clocks of one launch, and of a second that adds up `partial` bytes of sums which the first one stores, if there are any.

    Args:
        gpu: the device.
        work: clocks of the first.
        nbytes: that the first one reads and writes besides.
        partial: bytes of sums.
        adding: times as long as memory takes for them.
    """
    first = max(work, memory_cycles(gpu, nbytes + partial))
    launch = LAUNCH_SECONDS * gpu.clock_hz
    return first + launch + (adding * memory_cycles(gpu, partial) + launch if partial else 0.0)


def product_cycles(
    gpu: Gpu, products: int, channels: int, pixels: int, depth: int, knobs: Knobs
) -> float:
    """Return clocks of products of padded extents on the device's float32 units.

    Args:
        gpu: the device.
        products: how many.
        channels: of one, whole tiles.
        pixels: of one, whole tiles.
        depth: of one, whole steps.
        knobs: the tile.
    """
    rows, cols, depth_of_step = knobs["thread_channels"], knobs["thread_pixels"], knobs["step"]
    threads = (knobs["channels"] // rows) * (knobs["pixels"] // cols)
    resident = resident_blocks(gpu, threads, tile_registers(knobs), tile_shared_bytes(knobs, 4))
    if not resident:
        return math.inf
    warps = -(-threads // gpu.warp)
    looked_up = knobs["pixels"] * depth_of_step / knobs["vector"]
    copied = knobs["channels"] * depth_of_step
    operands = -(-rows // 4) + -(-cols // 4)
    multiply = warps * gpu.warp * rows * cols * depth_of_step / gpu.fp32_lanes
    multiply += (looked_up * _LOOKUP + copied / 2) / gpu.fp32_lanes
    shared = warps * depth_of_step * operands * _SHARED_LOAD
    step = max(multiply, shared) + _OVERLAP * min(multiply, shared)
    loads = (2 * looked_up + copied / 2) / threads + depth_of_step * operands
    alone = _CHAIN * loads + rows * cols * depth_of_step
    blocks = products * (channels // knobs["channels"]) * (pixels // knobs["pixels"])
    return rounds_cycles(gpu, blocks, resident, depth / depth_of_step, step, alone, knobs)


def rounds_cycles(
    gpu: Gpu, blocks: int, resident: int, steps: float, step: float, alone: float, knobs: Knobs
) -> float:
    """Return clocks of blocks that go through steps, `resident` of them side by side on a multiprocessor.

    Args:
        gpu: the device.
        blocks: in all.
        resident: on a multiprocessor at once.
        steps: of a block.
        step: clocks that one takes of a full multiprocessor.
        alone: clocks of one block's own chain of loads and products, which other blocks hide.
        knobs: `stages` and `ahead`, without which each step also waits for its loads from memory.
    """
    waited = 0.0 if knobs["stages"] > 1 or knobs["ahead"] else _LATENCY
    exposed = 1.0 if knobs["stages"] > 1 else _EXPOSED

    def together(count: int) -> float:
        return max(count * (step + _STEP), alone + waited + _STEP)

    whole, rest = divmod(-(-blocks // gpu.sms), resident)
    waves = whole * together(resident) + (together(rest) if rest else 0.0)
    return exposed * steps * waves + _START


def point_cycles(gpu: Gpu, threads: float, loads: float) -> float:
    """Return clocks of threads that wait for nothing but their loads from L1, so many in all.

    With half of the threads that fit, loads go at full rate; with few, each thread waits for its own, one after the other.
    """
    filled = min(1.0, threads / (gpu.sms * gpu.threads_sm / 2))
    return max(loads / (_LOADS * gpu.sms * max(filled, 1 / 16)), _LOAD_CLOCKS * loads / threads)
