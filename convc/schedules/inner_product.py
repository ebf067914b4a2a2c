"""Convolution by inner products: vectors run over input channels, for layers of so few output channels that vectors of those are padding.

THE ALGORITHM   s[n, k, p, q, lane] = sum over c, r, s of x[n, c, p', q', lane] w[k, c, r, s, lane]       p' = p stride + r dilation
                y[n, k, p, q] = sum over lanes of s[n, k, p, q, lane], half of them added to the other half until one is left
                on x as NCHW[a]c, y as NCHW, w as [K/t][C/a][R][S][t][a]
                transposed: each phase so, with its own taps, see `phases`; w as [K/t][phases][C/a][T][T][t][a]
WHEN            one group; at least half a vector of input channels
COST            C R S / a FMAs of whole vectors an output element, C in whole blocks, and log2 a additions of parts of one; `direct` takes
                C R S FMAs for each a output channels
ACCURACY        a chain of C R S / a fused multiply-adds, then log2 a additions: |error| <= C R S eps (|x| * |w|)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from tvm import te

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import (
    Operands,
    Problem,
    channel_block,
    channel_blocks,
    gathered_halo,
    row_chunks,
    row_shares,
)
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.layout import Halo, Layout
from convc.schedules.phases import by_phase, is_even, phased, phases_of
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised, raised_weight
from convc.schedules.register_tile import Tile, good_tiles, tile_cycles
from convc.schedules.requirements import packed_images
from convc.schedules.sharing import turns
from convc.schedules.span import swapped
from convc.target import Target

__all__ = ["ALGORITHM", "InnerProduct"]

# More output channels fill vectors of their own.
_MOST_CHANNELS: Final = 16


class InnerProduct:
    """See the module's text."""

    name = "inner_product"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        refusal = packed_images(problem, transposed=spec.transposed, one_group=True, most_axes=3)
        if refusal is not None:
            return refusal
        if spec.out_channels > _MOST_CHANNELS:
            return Unsupported(
                f"output channels must be at most {_MOST_CHANNELS}; got {spec.out_channels}"
            )
        least = target.lanes // 2
        if spec.in_channels < least:
            return Unsupported(
                f"input channels must be at least {least}, half a vector; got {spec.in_channels}"
            )
        return None

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the tile that the model finds fastest; on ties that of more channels, which reads the data less often, then wider."""
        spec = _seen(problem.spec)
        a, rows = channel_block(spec.in_channels, target), _points(spec)[-2]
        options = []
        for tile in _tiles(spec, target, a):
            knobs = _knobs(tile, a, row_chunks(spec, target, tile.rows, rows))
            cycles = self.cycles(problem, target, knobs)
            options.append((cycles, -tile.vectors, tile.rows, -tile.cols, knobs))
        return min(options, key=lambda option: option[:4])[4]

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every block and good tile."""
        spec = _seen(problem.spec)
        rows = _points(spec)[-2]
        for a in channel_blocks(spec.in_channels, target):
            for tile in _tiles(spec, target, a):
                for chunks in row_shares(target, tile.rows, rows):
                    yield _knobs(tile, a, chunks)

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return the cycles of all tiles' FMAs, or loads, and of the sums across lanes; or of the data's way, once for every group."""
        spec, a, core = _seen(problem.spec), knobs["data_block"], target.core
        *outer, rows, cols = _points(spec)
        tile = Tile(knobs["rows"], knobs["cols"], knobs["channels"])
        filters, groups = math.prod(_filters(spec)), -(-spec.out_channels // tile.vectors)
        places = spec.data[0] * math.prod(outer) * filters
        steps = -(-spec.in_channels // a) * math.prod(_taps(spec))
        fmas = tile_cycles(target, tile, rows, cols, spec.out_channels, a)
        # Data are whole vectors here, no scalars.
        each = 1 + tile.vectors / (tile.rows * tile.cols)
        loads = groups * rows * cols * each / core.loads_of(target.lanes, a)
        across = core.across * rows * cols * spec.out_channels
        read = 4 * math.prod(spec.data)
        way = core.l2 if read <= target.l2_bytes else core.data
        stream = max(groups * filters * read / way, spec.nbytes / core.data)
        cycles = max(places * (steps * max(fmas, loads) + across), stream)
        return cycles * turns(_shared_units(spec, knobs), target)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts; the result's block of one channel is plain memory."""
        spec = _seen(problem.spec)
        if not spec.transposed:
            border = gathered_halo(problem.spec)
            return Operands(Layout(knobs["data_block"], border), border, Layout(1))
        phases = phases_of(spec)
        border = Halo.of([p.before for p in phases], [p.after for p in phases])
        split = spec.strides if is_even(spec) else None
        return Operands(Layout(knobs["data_block"], border), border, Layout(1), split)

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return w as [K/t][phases][C/a][taps][t][a], padded with zeros."""
        spec, a, t = _seen(problem.spec), knobs["data_block"], knobs["channels"]
        weight = raised_weight(weight)
        if spec.transposed:
            weight = swapped(weight, 1)
        K, C, *taps = weight.shape
        groups, blocks = -(-K // t), -(-C // a)
        around = ((0, groups * t - K), (0, blocks * a - C), *((0, 0),) * len(taps))
        packed = np.pad(weight, around).reshape(groups, t, blocks, a, *taps)
        packed = by_phase(packed, 4, phases_of(spec)) if spec.transposed else packed
        packed = np.moveaxis(packed, (1, 3), (-2, -1))  # [K/t][C/a][phases][taps][t][a]
        return np.ascontiguousarray(np.moveaxis(packed, 1, 1 + len(_filters(spec))))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result; blocks `acc`, `across` its lanes, and `phases` if they are written apart."""
        spec, a, t = _seen(problem.spec), knobs["data_block"], knobs["channels"]
        N, K, *points = spec.output
        phases = phases_of(spec) if spec.transposed else []
        filters, taps, counts = _filters(spec), _taps(spec), _points(spec)
        blocks = -(-spec.in_channels // a)
        extents = self.operands(problem, target, knobs).border.around(spec.data[2:])
        x = te.placeholder((N, blocks, *extents, a), spec.dtype, name="data")
        packed = (-(-K // t), *filters, blocks, *taps, t, a)
        w = te.placeholder(packed, spec.dtype, name="weight")
        even = spec.transposed and is_even(spec)
        if even:
            points = [e for pair in zip(counts, spec.strides, strict=True) for e in pair]
        result = (N, K, *points, 1)
        extras = blocked_extras(problem, K, 1, result)
        co = te.reduce_axis((0, blocks), "co")
        r = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(taps)]

        def product(n: Any, o: Any, *at: Any) -> Any:
            f, i, (k, lane) = at[: len(filters)], at[len(filters) : -2], at[-2:]
            if phases:
                axes = zip(phases, i, f, r, strict=True)
                position = [own.point(at, phase, tap) for own, at, phase, tap in axes]
            else:
                steps = zip(i, spec.strides, r, spec.dilations, strict=True)
                position = [p * stride + tap * dilation for p, stride, tap, dilation in steps]
            value = x(n, co, *position, lane) * w(o, *f, co, *r, k, lane)
            return te.sum(value, axis=[co, *r])

        acc = te.compute((N, -(-K // t), *filters, *counts, t, a), product, name="acc")
        total = across = te.compute(acc.shape[:-1], lambda *i: _across(acc, i, a), name="across")
        if spec.transposed and not even:
            total = te.compute(total.shape, lambda *i: across(*i), name="phases")

        def places(at: tuple[Any, ...]) -> tuple[Any, ...]:
            """Return phases and results of a phase."""
            if not spec.transposed:
                return at
            if even:
                return (*at[1::2], *at[::2])
            pairs = list(zip(at, spec.strides, strict=True))
            return (*(p % s for p, s in pairs), *(p // s for p, s in pairs))

        y = te.compute(
            result,
            lambda n, k, *at: total(n, k // t, *places(at[:-1]), k % t),
            name="unpack",
        )
        return [x, w, *extras, blocked_result(y, problem, extras)]


def _across(acc: te.Tensor, at: tuple[Any, ...], lanes: int) -> Any:
    """Return the sum of a vector's lanes, half of them added to the other half until one is left."""
    sums = [acc(*at, lane) for lane in range(lanes)]
    while len(sums) > 1:
        half = len(sums) // 2
        sums = [low + high for low, high in zip(sums[:half], sums[half:], strict=True)]
    return sums[0]


def _seen(spec: ConvSpec) -> ConvSpec:
    return phased(spec) if spec.transposed else raised(spec)


def _filters(spec: ConvSpec) -> tuple[int, ...]:
    """Return how many phases each axis has; none if the convolution has none."""
    return spec.strides if spec.transposed else ()


def _taps(spec: ConvSpec) -> tuple[int, ...]:
    return tuple(p.taps for p in phases_of(spec)) if spec.transposed else spec.kernel


def _points(spec: ConvSpec) -> tuple[int, ...]:
    """Return the results of a phase along each axis."""
    return tuple(p.count for p in phases_of(spec)) if spec.transposed else spec.output[2:]


def _tiles(spec: ConvSpec, target: Target, block: int) -> list[Tile]:
    rows, cols = _points(spec)[-2:]
    channels = range(1, spec.out_channels + 1)
    return good_tiles(target, rows, cols, spec.out_channels, block=block, vectors=channels)


def _shared_units(spec: ConvSpec, knobs: Knobs) -> int:
    """Return how many equal parts the schedule shares out: parts of the rows; or groups of channels, phases and, undivided, tile rows."""
    *outer, rows, _ = _points(spec)
    if knobs.get("chunks", 1) > 1:
        return spec.data[0] * knobs["chunks"]
    groups = -(-spec.out_channels // knobs["channels"])
    units = spec.data[0] * groups * math.prod(_filters(spec)) * math.prod(outer)
    return units * (1 if rows % knobs["rows"] else rows // knobs["rows"])


def _knobs(tile: Tile, block: int, chunks: int) -> Knobs:
    return {
        "data_block": block,
        "rows": tile.rows,
        "cols": tile.cols,
        "channels": tile.vectors,
        "chunks": chunks,
    }


ALGORITHM = InnerProduct()
