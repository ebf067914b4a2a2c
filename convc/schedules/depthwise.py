"""Depthwise convolution on channel blocks: every channel has its own filter, vectors run over channels.

THE ALGORITHM   y[n, c, p, q] = sum over r, s of x[n, c, p stride + r dilation, q stride + s dilation] w[c, r, s]
                on x and y as NCHW[b]c, w as [C/b][R][S][b]
                3-D: a depth axis more everywhere, its taps in the sum
                An axis whose filter is much longer than the data sums over the data, not the taps: every tap left out multiplies padding
                (27 x 27 taps on 14 x 14 points: 196 products an output, not 729), and the filter has a border of zeros, not the data.
WHEN            group = C = K
COST            min(R, H) min(S, W) FMAs an output point; data is loaded once per tile and reused from registers over the taps
ACCURACY        one chain of R S fused multiply-adds: |error| <= R S eps (|x| * |w|)
SOURCE          MobileNets, arXiv:1704.04861 (the layer)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

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
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised, raised_weight
from convc.schedules.requirements import packed_images
from convc.schedules.sharing import turns
from convc.target import Target

__all__ = ["ALGORITHM", "Depthwise", "sums_over_data"]


def _is_over_data(spec: ConvSpec, axis: int) -> bool:
    """Whether a spatial axis sums over the data's points, not over the filter's taps."""
    # A weight is loaded for every product then, so a few points fewer are no gain.
    return 4 * spec.data[2 + axis] <= 3 * spec.kernel[axis] and spec.dilations[axis] == 1


def sums_over_data(spec: ConvSpec) -> bool:
    """Whether any axis does, so that the filter has a border of zeros."""
    return any(_is_over_data(spec, axis) for axis in range(spec.rank))


def _sums(spec: ConvSpec) -> list[int]:
    """Return how many terms each axis sums."""
    return [
        spec.data[2 + axis] if _is_over_data(spec, axis) else taps
        for axis, taps in enumerate(spec.kernel)
    ]


def _border(spec: ConvSpec) -> Halo:
    """Return the border around the data: none where sums are over the data."""
    halo = gathered_halo(spec)
    over = [_is_over_data(spec, axis) for axis in range(spec.rank)]
    begins, ends = (
        [0 if none else n for none, n in zip(over, side(spec.rank), strict=True)]
        for side in (halo.begins, halo.ends)
    )
    return Halo.of(begins, ends)


def _filter_border(spec: ConvSpec) -> list[tuple[int, int]]:
    """Return the zeros around the filter: as far as a sum over the data reaches from the first and from the last result."""
    border = []
    for axis, taps in enumerate(spec.kernel):
        pad, reach = spec.pads[axis], (spec.output[2 + axis] - 1) * spec.strides[axis]
        ends = (max(0, reach - pad), max(0, spec.data[2 + axis] + pad - taps))
        border.append(ends if _is_over_data(spec, axis) else (0, 0))
    return border


class Depthwise:
    """See the module's text."""

    name = "depthwise"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        refusal = packed_images(problem, most_axes=3)
        if refusal is None and not spec.group == spec.in_channels == spec.out_channels:
            return Unsupported(
                f"group must equal C and K; got group = {spec.group}, C = {spec.in_channels}, K = {spec.out_channels}"
            )
        return refusal

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return a strip of one row: 7 to 14 points keep the taps' loads shared and the chains covered."""
        spec = raised(problem.spec)
        block = channel_block(spec.out_channels, target)
        cols = min(range(1, 15), key=lambda t: (-(-spec.output[-1] // t) * (t + 2), -t))
        chunks = row_chunks(spec, target, 1, spec.output[-2])
        return {"block": block, "rows": 1, "cols": min(cols, spec.output[-1]), "chunks": chunks}

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every block and strip of one or two rows whose points fit the registers with a vector of data and of weights."""
        spec = raised(problem.spec)
        P, Q = spec.output[-2:]
        for block in channel_blocks(spec.out_channels, target):
            for rows, cols in itertools.product((1, 2), range(1, Q + 1)):
                if rows > P or rows * cols > target.registers - 2:
                    continue
                # A strip that leaves most of its last one idle, or covers no latency.
                wasted = -(-Q // cols) * cols > 1.35 * Q
                if wasted or (rows * cols < 4 and cols < Q):
                    continue
                for chunks in row_shares(target, rows, P):
                    yield {"block": block, "rows": rows, "cols": cols, "chunks": chunks}

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return FMA cycles, or the loads' if more: a strip loads its row's points and the taps once."""
        spec = raised(problem.spec)
        *rows, S = _sums(spec)
        cols, R = knobs["cols"], math.prod(rows)
        strips = -(-spec.output[-1] // cols) * math.prod(spec.output[2:-1]) * spec.data[0]
        blocks = -(-spec.out_channels // knobs["block"])
        core, lanes, block = target.core, target.lanes, knobs["block"]
        fmas = S * cols / core.fmas_of(lanes, block)
        # Sums over the data load a point once, and its weight for every result.
        over_data = _is_over_data(spec, spec.rank - 1)
        loaded = S * (1 + cols) if over_data else (cols - 1) * spec.strides[-1] + 2 * S
        loads = loaded / core.loads_of(lanes, block)
        per_strip = R * max(fmas, loads) + cols / core.fmas_of(lanes, block)
        units = spec.data[0] * (knobs["chunks"] if knobs.get("chunks", 1) > 1 else blocks)
        cycles = max(strips * blocks * per_strip, spec.nbytes / target.core.data)
        return cycles * turns(units, target)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = _border(raised(problem.spec))
        return Operands(Layout(knobs["block"], border), border, Layout(knobs["block"]))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return w as [C/b][R][S][b], padded with zeros."""
        weight, b = raised_weight(weight), knobs["block"]
        k, _, *taps = weight.shape
        padded = np.zeros((-(-k // b) * b, *taps), weight.dtype)
        padded[:k] = weight[:, 0]
        padded = np.pad(padded, ((0, 0), *_filter_border(raised(problem.spec))))
        taps = padded.shape[1:]
        return np.ascontiguousarray(np.moveaxis(padded.reshape(-1, b, *taps), 1, -1))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result."""
        spec, b = raised(problem.spec), knobs["block"]
        N, K, *points = spec.output
        extents = _border(spec).around(spec.data[2:])
        border = _filter_border(spec)
        kernel = [b + taps + e for (b, e), taps in zip(border, spec.kernel, strict=True)]
        blocks = -(-K // b)
        x = te.placeholder((N, blocks, *extents, b), spec.dtype, name="data")
        w = te.placeholder((blocks, *kernel, b), spec.dtype, name="weight")
        extras = blocked_extras(problem, blocks, b, (N, blocks, *points, b))
        sums = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(_sums(spec))]

        def product(n, k, *at):
            *p, lane = at
            points, taps = [], []
            for axis, (i, r) in enumerate(zip(p, sums, strict=True)):
                first = i * spec.strides[axis]
                if _is_over_data(spec, axis):
                    points.append(r)
                    taps.append(r - first + spec.pads[axis] + border[axis][0])
                else:
                    points.append(first + r * spec.dilations[axis])
                    taps.append(r)
            return te.sum(x(n, k, *points, lane) * w(k, *taps, lane), axis=sums)

        acc = te.compute((N, blocks, *points, b), product, name="acc")
        y = te.compute(acc.shape, lambda *i: acc(*i), name="unpack")
        return [x, w, *extras, blocked_result(y, problem, extras)]


ALGORITHM = Depthwise()
