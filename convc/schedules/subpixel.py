"""Transposed convolution by phases: each residue of the output position modulo the stride is a small stride-1 convolution.

THE ALGORITHM   with u = p + pad, p = i stride + f, an output reads the taps r with (u - r dilation) divisible by the stride: every
                `period`-th one from the first, period = stride / gcd(stride, dilation), T = ceil(R / period) of them:
                y[n, k, p, q] = sum over c, t of x[n, c, i + first(f) - t step] w[c, k, r(f) + t period]    step = dilation / gcd
                on x as NCHW[a]c, y as NCHW[b]c, w as [K/(v b)][phases][C/a][T][T][a][v b]; all axes alike
                groups: each vector of results reads the blocks that its groups' inputs lie in, see `span`
                one point of data: each result is a phase, see `phased`
WHEN            transposed
COST            T^2 C/group FMAs an output point: no zero is inserted; taps beyond R are zeros, at most period - 1 of R an axis. Where the
                output is no multiple of the strides, the phases are written apart and copied together
ACCURACY        one chain of C/group T^2 fused multiply-adds
SOURCE          Shi et al., arXiv:1609.07009 (sub-pixel equivalence)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import (
    Operands,
    Problem,
    channel_block,
    channel_blocks,
    row_chunks,
    row_shares,
)
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised, raised_weight
from convc.schedules.register_tile import Tile, best_tile, good_tiles, tile_cycles
from convc.schedules.requirements import packed_images
from convc.schedules.span import Span, swapped
from convc.target import Target

__all__ = ["ALGORITHM", "Phases", "Subpixel", "phased"]


@dataclass(frozen=True, slots=True)
class Phases:
    """The phases of one axis.

    Attributes:
        stride: how many phases there are.
        count: results of a phase; of some the last one lies beyond the output.
        taps: taps of each phase.
        period: from one tap of a phase to the next.
        step: from the data of one tap to that of the next, backwards.
        firsts: each phase's first tap and the data point under it at the phase's first result; None without taps.
        data: points of the data.
        kernel: taps of the whole filter.
    """

    stride: int
    count: int
    taps: int
    period: int
    step: int
    firsts: tuple[tuple[int, int] | None, ...]
    data: int
    kernel: int

    @staticmethod
    def of(spec: ConvSpec, axis: int) -> Phases:
        """Return the phases of a spatial axis.

        Example:
            >>> spec = ConvSpec.of((1, 8, 4, 4), (8, 8, 4, 4), strides=(2, 2), pads=(1, 1, 1, 1), transposed=True)
            >>> Phases.of(spec, 0).firsts
            ((1, 0), (0, 1))
        """
        stride, dilation, kernel = spec.strides[axis], spec.dilations[axis], spec.kernel[axis]
        common = math.gcd(stride, dilation)
        period = stride // common
        firsts = []
        for phase in range(stride):
            position = phase + spec.pads[axis]
            tap = next((r for r in range(period) if (position - r * dilation) % stride == 0), None)
            first = None if tap is None else (tap, (position - tap * dilation) // stride)
            firsts.append(first)
        return Phases(
            stride,
            -(-spec.output[2 + axis] // stride),
            -(-kernel // period),
            period,
            dilation // common,
            tuple(firsts),
            spec.data[2 + axis],
            kernel,
        )

    @property
    def before(self) -> int:
        """How far the phases read before the data."""
        reach = (self.taps - 1) * self.step
        return max(0, *(reach - first[1] for first in self.firsts if first))

    @property
    def after(self) -> int:
        """How far they read behind it."""
        return max(0, *(self.count + first[1] - self.data for first in self.firsts if first))

    def point(self, i: Any, phase: Any, tap: Any) -> Any:
        """Return where a result's tap reads the data with its border."""
        # A phase without taps has zero weights; it reads what a phase with taps does, which lies within the border.
        some = next(first for first in self.firsts if first)
        at = [self.before + (first or some)[1] for first in self.firsts]
        start = at[-1]
        for index in range(self.stride - 2, -1, -1):
            if at[index] != at[-1]:
                start = tirx.Select(phase == index, at[index], start)
        return i + start - tap * self.step

    def numbers(self, phase: int) -> list[int]:
        """Return which of the filter's taps a phase has; -1 for a zero."""
        first = self.firsts[phase]
        if first is None:
            return [-1] * self.taps
        taps = range(first[0], first[0] + self.taps * self.period, self.period)
        return [tap if tap < self.kernel else -1 for tap in taps]


def phased(spec: ConvSpec) -> ConvSpec:
    """Return the convolution with at least two spatial axes whose phases are computed.

    Along an axis with one point of data any stride is right, as nothing lies a stride further. As great a one as there are results gives
    each its own tap; with the stride 1 all but one of a result's taps read zeros: 100 -> 512 channels of 4 x 4 from one point, a
    generator's first layer, took 16 times the FMAs.

    Example:
        >>> first = ConvSpec.of((1, 100, 1, 1), (100, 512, 4, 4), transposed=True)
        >>> phased(first).strides, phased(first).output == first.output
        ((4, 4), True)
    """
    spec = raised(spec)
    axes = zip(spec.strides, spec.dilations, spec.data[2:], spec.output[2:], strict=True)
    strides = tuple(
        max(stride, results) if points == dilation == 1 else stride
        for stride, dilation, points, results in axes
    )
    return replace(spec, strides=strides)


def _phases(spec: ConvSpec) -> list[Phases]:
    return [Phases.of(spec, axis) for axis in range(spec.rank)]


def _is_even(spec: ConvSpec) -> bool:
    """Whether every phase has as many results: then they are written in their places."""
    return not any(p % s for p, s in zip(spec.output[2:], spec.strides, strict=True))


def _span(spec: ConvSpec, knobs: Knobs) -> Span:
    return Span.of(spec, knobs["data_block"], knobs["vectors"] * knobs["block"])


class Subpixel:
    """See the module's text."""

    name = "subpixel"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        return packed_images(problem, transposed=True, most_axes=3)

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return tile and blocks; the tile lies in one phase."""
        spec = phased(problem.spec)
        block = channel_block(spec.out_channels, target)
        vectors = -(-spec.out_channels // block)
        *_, high, wide = _phases(spec)
        options = []
        # A tile of more vectors may read the inputs of more groups.
        for widest in (4,) if spec.group == 1 else (1, 2, 3, 4):
            tile = best_tile(
                target, high.count, wide.count, vectors, block=block, max_vectors=widest
            )
            knobs = {
                "data_block": channel_block(spec.in_channels, target),
                "block": block,
                "rows": tile.rows,
                "cols": tile.cols,
                "vectors": tile.vectors,
                "chunks": row_chunks(spec, target, tile.rows, high.count),
            }
            options.append((self.cycles(problem, target, knobs), -widest, knobs))
        return min(options, key=lambda option: option[:2])[2]

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every block and good tile of one phase."""
        spec = phased(problem.spec)
        *_, high, wide = _phases(spec)
        data_blocks = channel_blocks(spec.in_channels, target)
        for block in channel_blocks(spec.out_channels, target):
            vectors = -(-spec.out_channels // block)
            for tile in good_tiles(target, high.count, wide.count, vectors, block=block):
                shares = row_shares(target, tile.rows, high.count)
                for data_block, chunks in itertools.product(data_blocks, shares):
                    yield {
                        "data_block": data_block,
                        "block": block,
                        "rows": tile.rows,
                        "cols": tile.cols,
                        "vectors": tile.vectors,
                        "chunks": chunks,
                    }

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return FMA cycles of all tiles of all phases, and the copy of phases that were written apart."""
        spec = phased(problem.spec)
        tile = Tile(knobs["rows"], knobs["cols"], knobs["vectors"])
        *outer, high, wide = phases = _phases(spec)
        steps = spec.data[0] * _span(spec, knobs).blocks * knobs["data_block"]
        steps *= math.prod(p.taps * p.stride for p in phases) * math.prod(p.count for p in outer)
        vectors = -(-spec.out_channels // knobs["block"])
        compute = steps * tile_cycles(target, tile, high.count, wide.count, vectors, knobs["block"])
        if not _is_even(spec):
            compute += 2 * math.prod(spec.output) / knobs["block"]
        return max(compute, spec.nbytes / target.core.data)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        spec = phased(problem.spec)
        phases = _phases(spec)
        border = Halo.of([p.before for p in phases], [p.after for p in phases])
        data, result = Layout(knobs["data_block"], border), Layout(knobs["block"])
        return Operands(data, border, result, split=spec.strides if _is_even(spec) else None)

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return w as [K/(v b)][phases][C/a][T][T][a][v b], a phase for each residue of the output's position."""
        spec = phased(problem.spec)
        span, phases, a = _span(spec, knobs), _phases(spec), knobs["data_block"]
        weight = swapped(raised_weight(weight), spec.group)
        # A tap beyond the filter reads the zero behind its end.
        padded = np.pad(weight, ((0, 0), (0, 0), *((0, 1),) * spec.rank))
        spread = span.spread(padded)
        vectors, wide = spread.shape[:2]
        packed = spread.reshape(vectors, wide, span.blocks, a, *spread.shape[3:])
        for axis, own in enumerate(phases):
            # Each pass makes the axis of taps into one of phases, in front, and one of a phase's taps.
            taps = [own.numbers(phase) for phase in range(own.stride)]
            packed = np.moveaxis(np.take(packed, taps, 4 + 2 * axis), 4 + 2 * axis, 4 + axis)
        order = np.moveaxis(packed, (3, 1), (-2, -1))  # [K/(v b)][C/a][phases][T][T][a][v b]
        return np.ascontiguousarray(np.moveaxis(order, 1, 1 + spec.rank))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result; blocks `acc` and, for phases that are written apart, `phases`.

        The result is (N, K/b, P/sh, sh, Q/sw, sw, b), which is NCHW[b]c with H and W split, unless the phases are written apart.
        """
        spec = phased(problem.spec)
        a, b, v = knobs["data_block"], knobs["block"], knobs["vectors"]
        rank, phases, span = spec.rank, _phases(spec), _span(spec, knobs)
        N, K, *points = spec.output
        border = self.operands(problem, target, knobs).border
        blocks = -(-K // b)
        vectors = -(-blocks // v)
        extents = border.around(spec.data[2:])
        x = te.placeholder((N, span.all_blocks, *extents, a), spec.dtype, name="data")
        taps = [p.taps for p in phases]
        w = te.placeholder(
            (vectors, *spec.strides, span.blocks, *taps, a, v * b), spec.dtype, name="weight"
        )
        counts = [p.count for p in phases]
        if _is_even(spec):
            points = [extent for pair in zip(counts, spec.strides, strict=True) for extent in pair]
        result = (N, blocks, *points, b)
        extras = blocked_extras(problem, blocks, b, result)
        co, ci = te.reduce_axis((0, span.blocks), "co"), te.reduce_axis((0, a), "ci")
        r = [te.reduce_axis((0, p.taps), f"r{i}") for i, p in enumerate(phases)]

        def product(n: Any, k: Any, *at: Any) -> Any:
            f, i, lane = at[:rank], at[rank : 2 * rank], at[-1]
            axes = zip(phases, i, f, r, strict=True)
            position = [own.point(at, phase, tap) for own, at, phase, tap in axes]
            value = x(n, span.first(k) + co, *position, ci) * w(k, *f, co, *r, ci, lane)
            return te.sum(value, axis=[co, *r, ci])

        acc = te.compute((N, vectors, *spec.strides, *counts, v * b), product, name="acc")
        if _is_even(spec):

            def places(at: tuple[Any, ...]) -> tuple[Any, ...]:
                return (*at[1::2], *at[::2])

        else:
            acc = te.compute(acc.shape, lambda *i: acc(*i), name="phases")

            def places(at: tuple[Any, ...]) -> tuple[Any, ...]:
                pairs = list(zip(at, spec.strides, strict=True))
                return (*(p % s for p, s in pairs), *(p // s for p, s in pairs))

        y = te.compute(
            result,
            lambda n, k, *at: acc(n, k // v, *places(at[:-1]), k % v * b + at[-1]),
            name="unpack",
        )
        return [x, w, *extras, blocked_result(y, problem, extras)]


ALGORITHM = Subpixel()
