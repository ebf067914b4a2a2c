"""Weight gradient of a convolution in groups of few channels on a device, depthwise ones among them: sums in a thread's registers.

THE ALGORITHM   dw[k, i, r, s] = sum over n, p, q of dy[n, k, p, q] x[n, c, p stride + r dilation - pad, q stride + s dilation - pad],
                c = (k / filters of a group) channels of a group + i
                part = a thread's sum over its columns of a few points, of all channels of its unit under a tile of taps: a unit is a
                group, or in half precision a block of 8 channels that holds whole groups, 16 bytes a load
                sums = the parts of a block's threads, one after the other, in shared memory; total = those of all blocks of a unit
                and tile, one after the other, by a second kernel
WHEN            1-D, 2-D, 3-D, every float type, any stride, dilation and padding; groups of few products a tap
COST            C/group R S K multiply-adds a point of dy; x is read once a tile of taps for all points of a column, dy once a tile
ACCURACY        chains of a thread's points, of a block's threads, of the blocks, in the sums' type, always in this order
SOURCE          Georganas et al., SC'18, section II-J, with one channel in the place of a block
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Final

from convc.ir.ops.conv import accumulator
from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules.algorithm import Operands
from convc.schedules.cuda.grouped_sums import HALF, Units, columns_of, compute, steps_of, tiles_of
from convc.schedules.cuda.indices import INDICES
from convc.schedules.cuda.model import (
    launched_cycles,
    memory_cycles,
    resident_blocks,
    rounds_cycles,
)
from convc.schedules.cuda.thread_sums import SHARED, schedule
from convc.schedules.cuda.weight_products import fastest_of, refusal
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import Properties, sum_error
from convc.schedules.rank import raised
from convc.target import Target

__all__ = ["NAME", "ON_REQUEST", "compute", "cycles", "gradient_layout", "knobs", "knobs_within", "operands", "properties", "schedule", "space", "supports"]  # fmt: skip

NAME: Final = "grouped"
ON_REQUEST: Final = ""

_TYPES: Final = ("float32", "float16", "bfloat16", "float64")

# Sums that a thread may hold, and registers that it may take by `_registers`: where that says 168 and 200 ptxas took 166 and 250.
_SUMS: Final = 96
_REGISTERS: Final = 180
_OTHER_REGISTERS: Final = 40

# Loads from L1 that a multiprocessor finishes in a clock, one of 16 bytes as four; instructions of a load, with its address and conditions,
# and of a column; clocks that a thread waits for each of its loads, and of an addition in the chain over threads. Of nine settings of each
# of three layers in three types (H200, 2026-11-27) the one so taken is 1.07 times slower than the best in the geometric mean, 1.19 at most,
# where it was 1.24 and 2.36 with one wait of 350 clocks for all loads of a column.
_LOADS: Final = 14.0
_WIDE: Final = 4
_LOAD: Final = 5
_COLUMN: Final = 30
_LATENCY: Final = 60.0
_ADD: Final = 8

# Points of a column that a thread takes at once: so many share the rows of data between them.
_ROWS: Final = (1, 2, 4, 7)
_THREADS: Final = (64, 128, 256)
_SPLITS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def supports(spec: ConvSpec, target: Target) -> Unsupported | None:
    """Return why the convolution's weight gradient is not computed this way, or None.

    Args:
        spec: the forward convolution.
        target: the machine.
    """
    if spec.group == 1:
        return Unsupported("groups must be several; got 1")
    sums = Units.of(spec).filters * spec.weight[1]
    if sums > _SUMS:
        return Unsupported(f"sums of one tap must be at most {_SUMS}; got {sums}")
    if (refused := refusal(spec, _TYPES)) is not None:
        return refused
    if not any(True for _ in space(spec, target)):
        return Unsupported(f"a row of taps must fit {_REGISTERS} registers; got none that does")
    return None


def space(spec: ConvSpec, target: Target) -> Iterator[Knobs]:
    """Yield tiles of taps and columns of points that a thread's registers hold, threads of a block, and parts of the sum."""
    spec = raised(spec)
    units, (*_, R, S) = Units.of(spec), spec.kernel
    of_tap = units.filters * spec.weight[1]
    for tap_rows, tap_columns, rows in itertools.product(_tiles_of(R), _tiles_of(S), _ROWS):
        if (tap_rows > 1 and tap_columns < S) or spec.output[-2] % rows:
            continue
        # Rows of data between those that a dilated filter reads would be loaded in vain.
        if rows > 1 and (spec.dilations[-2] > 1 or spec.strides[-2] >= tap_rows):
            continue
        tile = {"block": units.block, "tap_rows": tap_rows, "tap_columns": tap_columns, "rows": rows}  # fmt: skip
        if of_tap * tap_rows * tap_columns > _SUMS or _registers(spec, tile) > _REGISTERS:
            continue
        for threads, split in itertools.product(_THREADS, _SPLITS):
            knobs = {**tile, "threads": threads, "split": split}
            if _shared_bytes(spec, knobs) > SHARED or _blocks(spec, knobs) >= INDICES:
                continue
            if split == 1 or columns_of(spec, rows) >= threads * split:
                yield knobs


def _tiles_of(taps: int) -> list[int]:
    """Return the extents that a tile of taps may have on an axis: those with the least left over, for each number of tiles."""
    return sorted({-(-taps // n) for n in range(1, taps + 1)}, reverse=True)


def _of_thread(spec: ConvSpec, knobs: Knobs) -> int:
    """Return the sums of a thread."""
    return Units.of(spec).filters * spec.weight[1] * knobs["tap_rows"] * knobs["tap_columns"]


def _window(spec: ConvSpec, knobs: Knobs) -> int:
    """Return the points of data that a thread reads for a column."""
    rows, taps = knobs["rows"], knobs["tap_rows"]
    return (taps if rows == 1 else (rows - 1) * spec.strides[-2] + taps) * knobs["tap_columns"]


def _registers(spec: ConvSpec, knobs: Knobs) -> int:
    """Return registers of a thread: sums, and a column of both operands as it is loaded."""
    units = Units.of(spec)
    loaded = units.channels * _window(spec, knobs) + units.filters * knobs["rows"]
    words = numpy_dtype(spec.dtype).itemsize / 4 if units.block else max(1, numpy_dtype(spec.dtype).itemsize // 4)  # fmt: skip
    wide = numpy_dtype(accumulator(spec.dtype)).itemsize // 4
    return int(wide * _of_thread(spec, knobs) + words * loaded) + _OTHER_REGISTERS


def _shared_bytes(spec: ConvSpec, knobs: Knobs) -> int:
    wide = numpy_dtype(accumulator(spec.dtype)).itemsize
    return wide * _of_thread(spec, knobs) * (knobs["threads"] + 1)


def _blocks(spec: ConvSpec, knobs: Knobs) -> int:
    """Return the thread blocks: of units, tiles of taps and parts."""
    return Units.of(spec).count * math.prod(tiles_of(spec, knobs)) * knobs["split"]


def _nbytes(spec: ConvSpec, knobs: Knobs) -> int:
    return (
        numpy_dtype(accumulator(spec.dtype)).itemsize
        * _blocks(spec, knobs)
        * _of_thread(spec, knobs)
    )


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return the setting that the model finds fastest."""
    return knobs_within(spec, target, Policy())


def knobs_within(spec: ConvSpec, target: Target, policy: Policy) -> Knobs:
    """Return the fastest of those whose sums keep the policy's limit, or of those with the fewest where none do."""
    whole = raised(spec)
    return fastest_of(
        space(spec, target), lambda k: cycles(spec, target, k), lambda k: _nbytes(whole, k), policy
    )


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return clocks of sums and loads or of memory, whichever takes longer, half of the other's, and of the launches."""
    spec, gpu = raised(spec), target.gpu
    units, half, threads = Units.of(spec), spec.dtype in HALF, knobs["threads"]
    shared, held = _shared_bytes(spec, knobs), _of_thread(spec, knobs)
    resident = resident_blocks(gpu, threads, _registers(spec, knobs), shared)
    if not resident:
        return math.inf
    read, gradients = _window(spec, knobs), knobs["rows"]
    elements = units.channels * read + units.filters * gradients
    loads = read + gradients if units.block else elements
    wide = 2 if accumulator(spec.dtype) == "float64" else 1
    issued = wide * held * gradients + (elements if half else 0) + _LOAD * loads + _COLUMN
    step = max(threads * issued / gpu.fp32_lanes, threads * loads * (_WIDE if units.block else wide) / _LOADS)  # fmt: skip
    steps, adding = steps_of(spec, knobs), threads * -(-held // threads)
    busy = steps * step + threads * (held + adding) / gpu.fp32_lanes
    alone = steps * (issued + _LATENCY * loads) + held + _ADD * adding
    work = rounds_cycles(gpu, _blocks(spec, knobs), resident, 1, busy, alone, {"stages": 2})
    less, more = sorted((work, memory_cycles(gpu, spec.nbytes)))
    return launched_cycles(gpu, more + less / 2, spec.nbytes, _nbytes(spec, knobs))


def properties(spec: ConvSpec, knobs: Knobs) -> Properties:
    """Return them: the chain of a thread, that over a block's threads, and that over the parts."""
    whole = raised(spec)
    chain = steps_of(whole, knobs) * knobs["rows"] + knobs["threads"] + knobs["split"]
    return Properties(spec.flops, _nbytes(whole, knobs), sum_error(chain))


def operands(spec: ConvSpec, knobs: Knobs) -> Operands:
    """Return plain layouts, or blocks of 16 bytes without a halo: zeros stand for what lies outside."""
    return Operands(gradient_layout(knobs), Halo(), PLAIN)


def gradient_layout(knobs: Knobs) -> Layout:
    """Return the layout of dy."""
    return Layout(knobs["block"])
