"""The analytic model of kernels on a device: what ranks algorithms and knobs where nothing was measured.

A launch takes the longer of two: its multiprocessors' work, in whole waves of blocks, or its bytes at the memory's speed. Not yet
compared with a device; only ratios decide.
"""

from __future__ import annotations

import math

from convc.schedules.plan import Knobs
from convc.target import Gpu

__all__ = ["LAUNCH_SECONDS", "STEP_CYCLES", "launched_cycles", "memory_cycles", "point_cycles", "product_cycles", "resident_blocks", "tile_registers", "tile_shared_bytes"]  # fmt: skip

# From the end of one kernel to the first instruction of the next in a stream.
LAUNCH_SECONDS = 2.5e-6

# Warps that hide the latency of shared memory and of multiply-adds on one multiprocessor.
_ENOUGH_WARPS = 8

# Two barriers and a loop's end, as far as other blocks do not hide them.
STEP_CYCLES = 40.0

# From a load's issue to its data, from L2 mostly.
_LATENCY = 700.0

# Registers of a thread beside its tile: addresses, predicates, loop counters (ptxas: 45 to 52 for tiles of 4 x 4 to 8 x 8).
_OTHER_REGISTERS = 50

# Instructions for one element looked up in the data: its conditions, the load, the store to shared memory.
_LOOKUP = 6.0

# Loads from L1 that a multiprocessor finishes in a clock: one of a whole warp; clocks of a load in a thread alone, several in flight.
_LOADS = 32.0
_LOAD_CLOCKS = 6.0

# Of the peak bandwidth, what a kernel that streams reaches.
_STREAM = 0.85


def tile_registers(rows: int, cols: int) -> int:
    """Return registers of a thread with so many accumulators: those, the operands of a step, and the rest.

    Example:
        >>> tile_registers(8, 8)
        130
    """
    return rows * cols + rows + cols + _OTHER_REGISTERS


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


def launched_cycles(gpu: Gpu, work: float, nbytes: float, partial: float) -> float:
    """Return clocks of one launch, and of a second that adds up `partial` bytes of sums which the first one stores, if there are any."""
    first = max(work, memory_cycles(gpu, nbytes + partial))
    launch = LAUNCH_SECONDS * gpu.clock_hz
    return first + launch + (memory_cycles(gpu, partial) + launch if partial else 0.0)


def product_cycles(
    gpu: Gpu, products: int, channels: int, pixels: int, depth: int, knobs: Knobs, *, lookup: bool
) -> float:
    """Return clocks of products of padded extents on the device's float32 units.

    Args:
        gpu: the device.
        products: how many.
        channels: of one, whole tiles.
        pixels: of one, whole tiles.
        depth: of one, whole steps.
        knobs: the tile.
        lookup: whether the right side is looked up element by element, not copied in vectors.
    """
    rows, cols = knobs["thread_channels"], knobs["thread_pixels"]
    threads = (knobs["channels"] // rows) * (knobs["pixels"] // cols)
    resident = resident_blocks(
        gpu, threads, tile_registers(rows, cols), tile_shared_bytes(knobs, 4)
    )
    if not resident:
        return math.inf
    blocks = products * (channels // knobs["channels"]) * (pixels // knobs["pixels"])
    warps = -(-threads // gpu.warp)
    # Per step of one thread: rows x cols multiply-adds, and as vectors of four the loads of both operands.
    per_step = rows * cols + 2.0 * (rows + cols) / 4
    issue = threads * per_step * knobs["step"] / gpu.fp32_lanes
    elements = knobs["pixels"] * knobs["step"] * (_LOOKUP if lookup else 1.0)
    elements += knobs["channels"] * knobs["step"] / 2
    issue += elements / gpu.fp32_lanes
    rounds = -(-blocks // gpu.sms)
    # While fewer warps are there than hide the latency, a multiprocessor waits.
    side_by_side = min(resident, rounds)
    busy = min(1.0, warps * side_by_side / _ENOUGH_WARPS)
    step = issue / busy + STEP_CYCLES
    # Loads that nothing overlaps are waited for in every step, while other blocks go on.
    overlapped = knobs["stages"] > 1 or knobs["ahead"]
    alone = max(step, _LATENCY) if overlapped else step + _LATENCY
    return rounds * (depth / knobs["step"]) * max(step, alone / side_by_side) + 600


def point_cycles(gpu: Gpu, threads: float, loads: float) -> float:
    """Return clocks of threads that wait for nothing but their loads from L1, so many in all.

    With half of the threads that fit, loads go at full rate; with few, each thread waits for its own, one after the other.
    """
    filled = min(1.0, threads / (gpu.sms * gpu.threads_sm / 2))
    return max(loads / (_LOADS * gpu.sms * max(filled, 1 / 16)), _LOAD_CLOCKS * loads / threads)
