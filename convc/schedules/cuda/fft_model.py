"""How long the kernels of `cuda.fft` take, and what a block of threads transforms at once: what fits its shared memory and threads.

Not measured on a device yet: work, memory and launches are counted as everywhere in `cuda.model`, and the estimate is raised by
`_CAUTION`, so that another algorithm, whose numbers are fitted, is preferred when close.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.cuda import fragments
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles
from convc.schedules.cuda.warp_tiles import warp_cycles
from convc.schedules.divisors import greatest_divisor
from convc.schedules.fft_transform import (
    column_filter,
    column_forward,
    column_inverse,
    column_product,
    row_forward,
    row_inverse,
)
from convc.schedules.matrices import Matrices
from convc.schedules.overlap_save import Tiling
from convc.schedules.plan import Knobs
from convc.schedules.rank import raised
from convc.schedules.spectrum import is_depthwise
from convc.schedules.straight_line import Program
from convc.target import Gpu

__all__ = [
    "Transforms",
    "dense_cycles",
    "depthwise_cycles",
    "filter_cycles",
    "filters_together",
    "groups_of",
    "products_of",
    "tiles_together",
]

# Shared memory of a block, of the 48 KiB that it has without asking for more; its threads.
_SHARED: Final = 40 << 10
_THREADS: Final = 256
_TOGETHER: Final = 32

# Words that a multiprocessor moves between registers and shared memory in a clock, and that come from L1.
_SHARED_WORDS: Final = 32.0
_LOADS: Final = 22.0

# Clocks of a step of one thread's program where nothing else runs; of two phases' barriers and loads.
_STEP_CLOCKS: Final = 3.0
_PHASES: Final = 2000.0

# Estimates of kernels that no device has run are raised by this.
_CAUTION: Final = 1.5


@dataclass(frozen=True, slots=True)
class Transforms:
    """One tile's transforms.

    Attributes:
        tiling: the tiles.
        bins: complex bins of a tile.
        forward, inverse: operations on one channel of a tile.
        longest: of a thread's two programs one way.
    """

    tiling: Tiling
    bins: int
    forward: int
    inverse: int
    longest: int

    @staticmethod
    def of(spec: ConvSpec, knobs: Knobs) -> Transforms:
        """Return the transforms of a convolution.

        Example:
            >>> spec = ConvSpec.of((1, 64, 56, 56), (64, 64, 5, 5), pads=(2, 2, 2, 2))
            >>> made = Transforms.of(spec, {"t_h": 16, "t_w": 16, "products": 3})
            >>> made.tiling.tiles, made.bins
            (25, 128)
        """
        return _transforms(spec, knobs["t_h"], knobs["t_w"], knobs.get("products", 4))


@cache
def _transforms(spec: ConvSpec, t_h: int, t_w: int, products: int) -> Transforms:
    tiling = Tiling.of(raised(spec), t_h, t_w)
    m_h, m_w = tiling.high.m, tiling.wide.m
    rows = (row_forward(t_w), row_inverse(t_w, m_w))
    columns = (column_forward(t_h, products, negated=False), column_inverse(t_h, m_h, products))
    if is_depthwise(spec):
        columns = (Program(0, (), ()), column_product(t_h, m_h))
    there, back = ((len(r.steps), len(c.steps)) for r, c in zip(rows, columns, strict=True))
    return Transforms(
        tiling,
        tiling.bins * t_h,
        t_h * there[0] + tiling.bins * there[1],
        m_h * back[0] + tiling.bins * back[1],
        max(sum(there), sum(back)),
    )


def products_of(spec: ConvSpec, knobs: Knobs) -> Matrices:
    """Return the extents of the products: three for each bin, or one of twice as many channels in and out."""
    made, three = Transforms.of(spec, knobs), knobs["products"] == 3
    tiling, bins, twice = made.tiling, made.bins, 1 if three else 2
    channels, depth = twice * spec.out_channels, twice * spec.in_channels * tiling.parts
    pixels = spec.data[0] * tiling.tiles

    def whole(extent: int, tile: int) -> int:
        return -(-extent // tile) * tile

    return Matrices(
        1, bins * (3 if three else 1), 1, channels, depth, pixels,
        whole(channels, knobs["channels"]), whole(depth, knobs["step"]), whole(pixels, knobs["pixels"]),
        knobs["step"], (), (),
    )  # fmt: skip


def tiles_together(tiling: Tiling, tiles: int) -> int:
    """Return how many tiles of one channel a block transforms: a divisor of so many."""
    words = tiling.high.t * tiling.wide.t
    most = min(_SHARED // (4 * words), _THREADS // tiling.bins, _TOGETHER)
    return greatest_divisor(tiles, max(1, most))


def groups_of(spec: ConvSpec, knobs: Knobs) -> tuple[int, int]:
    """Return of how many channels, and of how many tiles of a row, a block makes results: divisors of their numbers."""
    tiling = Transforms.of(spec, knobs).tiling
    words = tiling.high.m * tiling.wide.t
    if is_depthwise(spec):
        words += tiling.high.t * tiling.wide.t
    most = min(_SHARED // (4 * words), _THREADS // max(tiling.bins, tiling.high.m), _TOGETHER)
    cols = greatest_divisor(tiling.wide.tiles, max(1, most))
    return greatest_divisor(spec.out_channels, max(1, most // cols)), cols


def filters_together(spec: ConvSpec, knobs: Knobs) -> int:
    """Return how many filters a block transforms where they are known at run time: side by side in memory, a divisor of their number."""
    tiling = Transforms.of(spec, knobs).tiling
    most = min(_SHARED // (4 * tiling.high.taps * tiling.wide.t), _THREADS // tiling.bins)
    if is_depthwise(spec):
        return greatest_divisor(spec.out_channels, max(1, min(most, _TOGETHER)))
    # Of the lanes' words of an instruction.
    return greatest_divisor(fragments.CHANNELS * fragments.WORDS, max(1, most))


def _transform_cycles(
    gpu: Gpu,
    tiles: float,
    threads: float,
    operations: float,
    words: float,
    loads: float,
    longest: int,
) -> float:
    """Return clocks of transforms of so many tiles of a channel, each by so many threads.

    Args:
        gpu: the device.
        tiles: of all channels.
        threads: of one.
        operations: on one.
        words: through shared memory for one.
        loads: and stores of one.
        longest: steps of one thread.
    """  # fmt: skip
    filled = min(1.0, tiles * threads / (gpu.sms * gpu.threads_sm / 2))
    one = operations / gpu.fp32_lanes + words / _SHARED_WORDS + loads / _LOADS
    return max(tiles * one / gpu.sms / max(filled, 1 / 16), _STEP_CLOCKS * longest + _PHASES)


def dense_cycles(problem: Problem, gpu: Gpu, knobs: Knobs) -> float:
    """Return clocks of the three kernels."""
    spec, made = problem.spec, Transforms.of(problem.spec, knobs)
    p, tiling = products_of(spec, knobs), made.tiling
    planes = 3 if knobs["products"] == 3 else 2
    V = 4 * p.products * p.padded_depth * p.padded_pixels
    M = 4 * p.products * p.padded_channels * p.padded_pixels
    U = 4 * p.products * p.padded_depth * p.padded_channels
    words, kept = tiling.high.t * tiling.wide.t, tiling.high.m * tiling.wide.t
    before, behind = spec.in_channels * tiling.parts * p.padded_pixels, spec.out_channels * p.pixels
    forward = _transform_cycles(
        gpu, before, tiling.bins, made.forward, 2 * words, words + planes * made.bins, made.longest
    )
    inverse = _transform_cycles(
        gpu, behind, tiling.bins, made.inverse, 2 * kept, planes * made.bins + tiling.high.m * tiling.wide.m, made.longest
    )  # fmt: skip
    multiplied = warp_cycles(
        gpu, p.products, p.padded_channels, p.padded_pixels, p.padded_depth, knobs, "float32"
    )
    result = 4 * math.prod(spec.output) * (1 + sum(s.name == "add" for s in problem.epilogue))
    work = max(forward, memory_cycles(gpu, 4 * math.prod(spec.data) + V))
    work += max(multiplied, memory_cycles(gpu, U + V + M))
    work += max(inverse, memory_cycles(gpu, M + result))
    return _CAUTION * work + 3 * LAUNCH_SECONDS * gpu.clock_hz


def depthwise_cycles(problem: Problem, gpu: Gpu, knobs: Knobs) -> float:
    """Return clocks of the one kernel."""
    spec, made = problem.spec, Transforms.of(problem.spec, knobs)
    tiling = made.tiling
    (t_h, m_h), (t_w, m_w) = ((a.t, a.m) for a in (tiling.high, tiling.wide))
    tiles = spec.data[0] * tiling.tiles * spec.out_channels
    work = _transform_cycles(
        gpu, tiles, tiling.bins, made.forward + made.inverse, 2 * t_w * (t_h + m_h),
        t_w * t_h + 2 * made.bins + m_h * m_w, 2 * made.longest,
    )  # fmt: skip
    nbytes = spec.nbytes + 8 * made.bins * spec.out_channels
    return _CAUTION * max(work, memory_cycles(gpu, nbytes)) + LAUNCH_SECONDS * gpu.clock_hz


def filter_cycles(problem: Problem, gpu: Gpu, knobs: Knobs) -> float:
    """Return clocks of the kernel that transforms filters known at run time: each for every element that the products read of a bin."""
    spec, tiling = problem.spec, Transforms.of(problem.spec, knobs).tiling
    (R, S), (t_h, t_w) = ((tiling.high.taps, tiling.wide.taps), (tiling.high.t, tiling.wide.t))
    bins = tiling.bins * t_h
    if is_depthwise(spec):
        form, filters, written = 2, spec.out_channels, 2 * bins
    else:
        p, form = products_of(spec, knobs), knobs["products"]
        filters, written = p.padded_depth * p.padded_channels, p.products
    row, column = len(row_forward(t_w, S).steps), len(column_filter(t_h, R, form).steps)
    work = _transform_cycles(
        gpu, filters, tiling.bins, R * row + tiling.bins * column, 2 * R * t_w, R * S + written, row + column
    )  # fmt: skip
    nbytes = 4 * (math.prod(spec.weight) + filters * written)
    return _CAUTION * max(work, memory_cycles(gpu, nbytes)) + LAUNCH_SECONDS * gpu.clock_hz
