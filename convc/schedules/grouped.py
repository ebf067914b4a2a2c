"""Grouped convolution with several groups in one block of channels: each lane multiplies its own group's inputs.

THE ALGORITHM   y[n, k, p, q] = sum over c < C/group, r, s of x[n, g(k) C/group + c, p stride + r dilation, ...] w[k, c, r, s]
                with g(k) = k div K/group, on x and y as NCHW[b]c. A block of b results reads the channels of b / (K/group) groups,
                all within one block of data:
                spread[c, j, lane] = x[j, g(lane) C/group + c]     one permutation of lanes, shared by all taps of a row
                y[q, lane] += spread[c, q stride + s dilation, lane] w[r, c, s, lane]
                on w as [K/b][R][C/group][S][b]. 3-D: a depth axis more.
WHEN            K/group divides a block, and the inputs of a block lie in one; group > 1, weights constant. A channel multiplier is
                the case C/group = 1
COST            C/group R S FMAs an output point, and a permutation for each input and filter row: with 3 x 3 taps and 7 points a
                strip 9 permutations for 21 FMAs
ACCURACY        one chain of C/group R S fused multiply-adds: |error| <= C/group R S eps (|x| * |w|)
SOURCE          ResNeXt, arXiv:1611.05431 (the layer)
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from tvm import te

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, Problem, channel_blocks, gathered_halo
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised, raised_weight
from convc.schedules.requirements import packed_images
from convc.target import Target

__all__ = ["ALGORITHM", "Grouped"]

# FMAs that are written out for one row of the filter: beyond, the code leaves the instruction cache.
_MOST_UNROLLED = 1024


# Cycles of the model's own, and where the permuted row does not stay in registers. On one core of an Intel Xeon, strips of 14, the
# least and the median of two runs, in us: 3x3 of 4 channels a group, 128 at 56 x 56, 168 and 250; of 8, 256 at 28 x 28, 225 and 334; of
# 16, 512 at 14 x 14, 144 and 199, where `direct` takes 205 and 192: as fast.
_MEASURED = 0.8
_SPILLED = 1.15


def _group(spec: ConvSpec) -> tuple[int, int]:
    """Return the channels of one group, in and out."""
    return spec.in_channels // spec.group, spec.out_channels // spec.group


def _inputs(spec: ConvSpec, block: int) -> int:
    """Return how many input channels the groups of one block of results have, or 0 if the block holds no whole groups."""
    c, k = _group(spec)
    return 0 if block % k else block // k * c


def _blocks(spec: ConvSpec, target: Target) -> Iterator[tuple[int, int]]:
    """Yield (block of data, block of results) such that a block of results reads from one block of data."""
    for block in channel_blocks(spec.out_channels, target):
        inputs = _inputs(spec, block)
        for data_block in channel_blocks(spec.in_channels, target):
            if inputs and data_block % inputs == 0:
                yield data_block, block


def _reach(spec: ConvSpec, cols: int) -> int:
    """Return how many points of a row a strip of `cols` results reads."""
    return (cols - 1) * spec.strides[-1] + spec.effective_kernel[-1]


def _border(spec: ConvSpec, cols: int) -> Halo:
    """Return how far whole strips read around the data."""
    strips = -(-spec.output[-1] // cols)
    read = (strips - 1) * cols * spec.strides[-1] + _reach(spec, cols)
    right = max(0, read - spec.pads[spec.rank - 1] - spec.data[-1])
    return gathered_halo(spec).union(Halo(right=right))


def _crowded(target: Target, cols: int, reach: int) -> bool:
    """Whether results, the permuted row and a vector of weights are more than the registers."""
    return cols + reach + 1 > target.registers


class Grouped:
    """See the module's text."""

    name = "grouped"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        refusal = packed_images(problem, most_axes=3)
        if refusal is not None:
            return refusal
        c, k = _group(spec)
        if spec.group == 1 or c == k == 1:
            return Unsupported(
                f"groups must be several, of more than one channel; got group = {spec.group}, C/group = {c}, K/group = {k}"
            )
        if not any(_blocks(spec, target)):
            return Unsupported(
                f"K/group must be a divisor of a block of channels whose inputs lie in one; got C/group = {c}, K/group = {k}"
            )
        return None

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the block and strip that the model finds fastest."""
        settings = list(self.space(problem, target))
        return min(settings, key=lambda knobs: self.cycles(problem, target, knobs))

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every pair of blocks and every strip of up to 14 points."""
        spec = raised(problem.spec)
        c, Q = _group(spec)[0], spec.output[-1]
        for data_block, block in _blocks(spec, target):
            for cols in range(1, Q + 1):
                if cols > 1 and (cols > 14 or c * spec.kernel[-1] * cols > _MOST_UNROLLED):
                    break
                yield {"data_block": data_block, "block": block, "cols": cols}

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return the cycles of FMAs, permutations and tails; or of the data's way from memory if that takes longer."""
        spec = raised(problem.spec)
        *rows, S = spec.kernel
        cols, c = knobs["cols"], _group(spec)[0]
        strips = -(-spec.output[-1] // cols) * math.prod(spec.output[2:-1]) * spec.data[0]
        blocks = -(-spec.out_channels // knobs["block"])
        steps = math.prod(rows) * c
        core, reach = target.core, _reach(spec, cols)
        issued = (S * cols + reach) / core.fmas_of(target.lanes, knobs["block"])
        per_step = max(issued, S * core.latency) * (
            _SPILLED if _crowded(target, cols, reach) else 1
        )
        cycles = strips * blocks * (steps * per_step + cols + 4) * _MEASURED
        return max(cycles, spec.nbytes / target.core.data)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = _border(problem.spec, knobs["cols"])
        return Operands(Layout(knobs["data_block"], border), border, Layout(knobs["block"]))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return w as [K/b][R][C/group][S][b], padded with zeros."""
        weight, b = raised_weight(weight), knobs["block"]
        k, c, *taps = weight.shape
        padded = np.zeros((-(-k // b) * b, c, *taps), weight.dtype)
        padded[:k] = weight
        blocked = padded.reshape(-1, b, c, *taps)
        return np.ascontiguousarray(np.moveaxis(blocked, (2, 1), (-2, -1)).swapaxes(-3, -2))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result; blocks `spread` and `acc`, then the epilogue."""
        spec = raised(problem.spec)
        a, b, cols = knobs["data_block"], knobs["block"], knobs["cols"]
        N, K, *points = spec.output
        (group_c, group_k), inputs = _group(spec), _inputs(spec, b)
        extents = _border(spec, cols).around(spec.data[2:])
        blocks, rank = -(-K // b), spec.rank
        x = te.placeholder((N, -(-spec.in_channels // a), *extents, a), spec.dtype, name="data")
        *rows, S = spec.kernel
        w = te.placeholder((blocks, *rows, group_c, S, b), spec.dtype, name="weight")
        extras = blocked_extras(problem, blocks, b, (N, blocks, *points, b))
        stride, dilation = spec.strides[-1], spec.dilations[-1]

        # Rows are named by result and tap, and points by strip: TVM 0.27 gets the region of sums of loops wrong.
        def spread(n, k, *at):
            p, r, (c, strip, j, lane) = at[: rank - 1], at[rank - 1 : 2 * rank - 2], at[-4:]
            axes = zip(p, spec.strides, r, spec.dilations, strict=False)
            row = [i * step + tap * apart for i, step, tap, apart in axes]
            lane = k * inputs % a + lane // group_k * group_c + c
            return x(n, k * inputs // a, *row, strip * cols * stride + j, lane)

        strips = -(-points[-1] // cols)
        shape = (N, blocks, *points[:-1], *rows, group_c, strips, _reach(spec, cols), b)
        own = te.compute(shape, spread, name="spread")
        r = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(rows)]
        c, s = te.reduce_axis((0, group_c), "c"), te.reduce_axis((0, S), "s")

        def product(n, k, *at):
            *p, q, lane = at
            j = q % cols * stride + s * dilation
            value = own(n, k, *p, *r, c, q // cols, j, lane) * w(k, *r, c, s, lane)
            return te.sum(value, axis=[*r, c, s])

        acc = te.compute((N, blocks, *points, b), product, name="acc")
        y = te.compute(acc.shape, lambda *i: acc(*i), name="unpack")
        return [x, w, *extras, blocked_result(y, problem, extras)]


ALGORITHM = Grouped()
