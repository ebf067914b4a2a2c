"""How long `fft` takes: products, transforms, the streams of U, what a block passes on beyond L2, and how threads share it."""

from __future__ import annotations

from typing import Final, NamedTuple

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.fft_stages import planes_of
from convc.schedules.fft_transform import column_filter, column_forward, row_forward
from convc.schedules.overlap_save import Tiling
from convc.schedules.plan import Knobs
from convc.schedules.rank import raised
from convc.schedules.register_tile import Tile, tile_cycles
from convc.schedules.sharing import PARALLEL, launches, shared_out, shares, turns
from convc.schedules.span import Span
from convc.schedules.spectrum import is_depthwise
from convc.target import Target

__all__ = ["cycles", "filter_cycles", "span_of", "tiling_of"]

# Cycles of one step of a transform's program, by the longer axis: beyond 24 points values spill and tiles leave L1.
# Measured on Zen 4 as whole depthwise kernels at 128 channels, 56 x 56.
_CYCLES_PER_STEP: Final = {
    1: 0.5, 2: 0.5, 8: 0.5, 12: 0.5, 16: 0.65, 20: 0.62, 24: 0.7, 32: 0.95, 40: 0.9, 48: 1.15, 64: 1.3,
}  # fmt: skip

# Dense transforms scatter their results over planes: times this. Measured on Zen 4 at 64 channels, 56 x 56.
_STORED: Final = 1.5

# Filters' transforms at run time, beyond those of data and U's way to memory. Measured on a core of Emerald Rapids, 64 to 256 channels,
# 5 to 15 taps: 1.4 to 1.8.
_FILTERS: Final = 1.6

# U is many times the weights: in a network it comes from memory, not from L3 as in the measurements. Others are preferred when close.
_CAUTION: Final = 1.1


def tiling_of(problem: Problem, knobs: Knobs) -> Tiling:
    """Return the tiles of a convolution by transforms of the knobs' lengths."""
    return Tiling.of(raised(problem.spec), knobs["t_h"], knobs["t_w"])


def span_of(spec: ConvSpec, knobs: Knobs) -> Span:
    """Return which blocks of the data a tile's vectors of results read."""
    return Span.of(spec, knobs["data_block"], knobs["vectors"] * knobs["block"])


def cycles(problem: Problem, target: Target, knobs: Knobs) -> float:
    """Return the cycles of products and transforms, and of what the caches cannot hide."""
    spec, tiling = raised(problem.spec), tiling_of(problem, knobs)
    c_blocks = -(-spec.in_channels // knobs["data_block"]) * tiling.parts
    k_blocks = -(-spec.out_channels // knobs["block"])
    t_h, t_w, m_h = tiling.high.t, tiling.wide.t, tiling.high.m
    rows, column = len(row_forward(t_w).steps), len(column_forward(t_h, 4).steps)
    step = max(_CYCLES_PER_STEP[t] for t in (t_h, t_w))
    bins = tiling.bins * t_h
    if is_depthwise(spec):
        per_tile = ((t_h + m_h) * rows + 2 * tiling.bins * column + 6 * bins) * step
        moved = spec.data[0] * k_blocks * tiling.tiles * per_tile
        evenly = turns(spec.data[0] * k_blocks * tiling.high.tiles // knobs["rows"], target)
        return max(moved, spec.nbytes / target.core.data) * evenly * _CAUTION
    tiles, blocks = knobs["rows"] * tiling.wide.tiles, tiling.high.tiles // knobs["rows"]
    C, K = c_blocks * knobs["data_block"], k_blocks * knobs["block"]
    summed = tiling.parts * span_of(spec, knobs).blocks * knobs["data_block"]
    core, memory = target.core, target.memory_bytes
    tile = Tile(1, knobs["points"], knobs["vectors"])
    products = knobs["products"] * bins * summed
    products *= tile_cycles(target, tile, 1, tiles, k_blocks, knobs["block"])
    # Each block of tiles streams all of U: from memory the first time, then from where it fits.
    u_bytes = 4 * bins * planes_of(knobs) * summed * K
    beyond = core.l3 if u_bytes < target.l3_bytes / 2 else memory * 2 / 3
    again = core.l2 if u_bytes < target.l2_bytes / 2 else beyond
    stream = u_bytes / min(memory, again) + u_bytes * (blocks - 1) / again
    share = _shares(tiling, knobs, (spec.data[0], c_blocks, k_blocks), target)
    # What sharing costs would make a kernel of little work seem worth sharing.
    if share.launches > 1 and (alone := cycles(problem, target.with_cores(1), knobs)) <= PARALLEL:
        return alone
    moved = t_h * rows * c_blocks * share.data + m_h * rows * k_blocks * share.results
    moved += tiling.bins * column * (c_blocks + k_blocks) * share.bins
    moved *= tiling.tiles * step * _STORED
    # S and Z of a block are written and read again; beyond L2 that costs time of its own.
    passed = 4 * tiles * t_w * (t_h * C + m_h * K)
    if passed > target.l2_bytes / 2:
        moved += 2 * blocks * passed / (core.l3 if passed < target.l3_bytes / 2 else memory)
    elif share.launches > 1:
        # Each thread reads what the others wrote.
        moved += 2 * blocks * passed / core.l3
    # Threads that have no part leave the memory to the others.
    products = core.together(products * blocks * share.bins, stream)
    return (spec.data[0] * (products + moved) + launches(share.launches - 1, target)) * _CAUTION


class _Shares(NamedTuple):
    """How many times as long as evenly shared work the parts of a block take, on its data, for its bins and results; and launches."""

    data: float
    bins: float
    results: float
    launches: int


def _shares(tiling: Tiling, knobs: Knobs, counts: tuple[int, int, int], target: Target) -> _Shares:
    """Return how threads share out dense work on so many images, and blocks of channels of data and results."""
    images, c_blocks, k_blocks = counts
    blocks = images * tiling.high.tiles // knobs["rows"]
    if target.cores == 1 or shared_out(blocks, target):
        evenly = turns(blocks, target)
        return _Shares(evenly, evenly, evenly, 1)
    tiles = knobs["rows"] * tiling.wide.tiles
    rows = knobs["rows"] // tiling.high.images
    data, results = shares((c_blocks, tiles), target), shares((k_blocks, rows), target)
    return _Shares(data, turns(tiling.bins, target), results, 3 * blocks)


def filter_cycles(problem: Problem, target: Target, knobs: Knobs) -> float:
    """Return the cycles of the kernel that transforms filters known at run time: programs, and U written."""
    spec, tiling = raised(problem.spec), tiling_of(problem, knobs)
    t_h, t_w, alone = tiling.high.t, tiling.wide.t, is_depthwise(spec)
    form = 3 if not alone and planes_of(knobs) == 3 else 2
    row = len(row_forward(t_w, tiling.wide.taps).steps)
    column = len(column_filter(t_h, tiling.high.taps, form).steps)
    summed = 1 if alone else tiling.parts * span_of(spec, knobs).blocks * knobs["data_block"]
    filters = -(-spec.out_channels // knobs["block"]) * summed
    step = max(_CYCLES_PER_STEP[t] for t in (t_h, t_w))
    work = filters * (tiling.high.taps * row + tiling.bins * column) * step
    work *= 1.0 if alone else _STORED
    moved = 4 * filters * knobs["block"] * tiling.bins * t_h * form / target.memory_bytes
    return (1.0 if alone else _FILTERS) * (work + moved)
