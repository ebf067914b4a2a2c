"""Depthwise convolution of half precision on a device, data and result in blocks of 8 channels: 16 bytes a load and a store.

THE ALGORITHM   y[n, k, p, q, e] = epilogue(sum over r, s of x[n, k, p stride + r dilation - pad, ..., e] w[k, r, s, e])
WHEN            group = C = K, 1-D to 3-D, any stride, dilation and padding, float16 and bfloat16
COST            the bytes of data and result; a thread adds up 8 channels of a few results of one column
ACCURACY        one chain of R S multiply-adds in float32, one rounding
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles, point_cycles
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised, raised_weight
from convc.schedules.vector_gemm import lanes
from convc.target import Target

__all__ = ["ALGORITHM", "DepthwiseBlocked", "window_of", "window_rows"]

_TYPES: Final = ("float16", "bfloat16")

# What a thread may hold without spilling: at an estimate of 240 ptxas took 248 registers, at 432 it spilled 1624 bytes.
_REGISTERS: Final = 176

# A warp's load of 16 bytes each takes as long as so many of 4. With half of the lesser of loads and memory it is what an H200 took for
# 144 channels of 56 x 56 at batch 32 with one row (35.7 us; 2026-11-27); of 12 settings of each of eight layers of MobileNetV2, with up to
# four rows, it takes one 1.04 times slower than the best in the geometric mean, 1.13 at most (another H200, the same day).
_WIDE: Final = 4

# How much longer loads take a row of taps at a time, which waits for them: 30 settings took 2.0 to 2.8 times as long as without this.
_ROW_BY_ROW: Final = 4

# Rows of results, and whether all taps are held. With four rows and one row of taps ptxas kept an array in local memory.
_TILES: Final = ((1, 1), (2, 1), (4, 1), (1, 0), (2, 0))


class DepthwiseBlocked:
    """See the module's text."""

    name = "depthwise_blocked"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        if spec.transposed:
            return Unsupported("convolution must not be transposed")
        if not (spec.group == spec.in_channels == spec.out_channels):
            return Unsupported(
                f"group must equal C and K; got group = {spec.group}, C = {spec.in_channels}, K = {spec.out_channels}"
            )
        if spec.dtype not in _TYPES:
            return Unsupported(f"element type must be {' or '.join(_TYPES)}; got {spec.dtype}")
        if problem.accumulator != "float32":
            return Unsupported(f"sums must be of float32; got {problem.accumulator}")
        if self._registers(problem, 1, held=0) > _REGISTERS:
            return Unsupported(f"a row of taps must fit a thread's registers; got {spec.kernel[-1]} taps")  # fmt: skip
        return indexed(spec, lanes(spec.dtype))

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the setting that the model finds fastest."""
        return min(self.space(problem, target), key=lambda k: self.cycles(problem, target, k))

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield rows of a thread, all taps held in its registers or one row of them, and threads of a block."""
        spec = raised(problem.spec)
        for rows, held in _TILES:
            if rows <= spec.output[-2] and self._registers(problem, rows, held=held) <= _REGISTERS:
                for threads in (64, 128, 256):
                    yield {"rows": rows, "held": held, "threads": threads}

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return clocks of the loads of 16 bytes or of memory, whichever takes longer, and half of the other's."""
        spec, gpu = raised(problem.spec), target.gpu
        e = lanes(spec.dtype)
        rows, taps = knobs["rows"], math.prod(spec.kernel)
        points = spec.data[0] * -(-spec.out_channels // e) * math.prod(spec.output[2:])
        threads = points / spec.output[-2] * -(-spec.output[-2] // rows)
        # Rows of data are shared by the results of a column only where all of them are held.
        loads = window_rows(spec, rows) * taps / spec.kernel[-2] if knobs["held"] else rows * taps
        wide = _WIDE * (1 if knobs["held"] else _ROW_BY_ROW)
        work = point_cycles(gpu, threads, threads * (loads + taps) * wide)
        less, more = sorted((work, memory_cycles(gpu, spec.nbytes)))
        return more + less / 2 + LAUNCH_SECONDS * gpu.clock_hz

    @staticmethod
    def _registers(problem: Problem, rows: int, *, held: int) -> int:
        """Return registers of a thread: two elements in each of window and filter, a sum in each, the rest."""
        spec = raised(problem.spec)
        half, across = lanes(spec.dtype) // 2, (spec.kernel[-1] - 1) * spec.dilations[-1] + 1
        if held:
            planes = math.prod(
                (r - 1) * d + 1 for r, d in zip(spec.kernel[:-2], spec.dilations[:-2], strict=True)
            )
            window, taps = window_rows(spec, rows) * across * planes, math.prod(spec.kernel)
        else:
            window, taps = rows * across, spec.kernel[-1]
        return half * (window + taps) + 2 * half * rows + 32

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return blocks of 16 bytes, without a halo."""
        block = Layout(lanes(problem.spec.dtype))
        return Operands(block, Halo(), block)

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return the filters as [block][taps...][channel in it], zeros beyond the last channel."""
        e = lanes(problem.spec.dtype)
        whole = raised_weight(np.pad(weight, [(0, -len(weight) % e), *((0, 0),) * (weight.ndim - 1)]))  # fmt: skip
        blocks = whole.reshape(-1, e, *whole.shape[2:])
        return np.ascontiguousarray(np.moveaxis(blocks, 1, -1))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result; blocks `window`, `acc`."""
        # A kernel sees blocks of a line as an image of height 1, see `View.raised`.
        spec, e = raised(problem.spec), lanes(problem.spec.dtype)
        n, c, *extents = spec.data
        blocks, wide = -(-c // e), problem.accumulator
        x = te.placeholder((n, blocks, *extents, e), spec.dtype, name="data")
        w = te.placeholder((blocks, *spec.kernel, e), spec.dtype, name="weight")
        result = (n, blocks, *spec.output[2:], e)
        extras = blocked_extras(problem, blocks, e, result)
        window = window_of(x, spec, 0)
        taps = [te.reduce_axis((0, r), f"r{i}") for i, r in enumerate(spec.kernel)]

        def term(n: Any, k: Any, *at: Any) -> Any:
            *points, lane = at
            steps = zip(points, spec.strides, taps, spec.dilations, strict=True)
            places = [p * stride + r * dilation for p, stride, r, dilation in steps]
            left = window(n, k, *places, lane).astype(wide)
            return te.sum(left * w(k, *taps, lane).astype(wide), axis=taps)

        acc = te.compute(result, term, name="acc")
        y = te.compute(result, lambda *i: acc(*i), name="unpack")
        return [x, w, *extras, blocked_result(y, problem, extras)]


def window_rows(spec: ConvSpec, rows: int) -> int:
    """Return the rows of data that so many rows of results read, of one plane; of a convolution of two axes at least."""
    return (rows - 1) * spec.strides[-2] + (spec.kernel[-2] - 1) * spec.dilations[-2] + 1


def window_of(x: te.Tensor, spec: ConvSpec, fill: int) -> te.Tensor:
    """Return blocked data as far as the results' taps reach, `fill` outside of it: block `window`."""
    n, blocks, *_, lanes = x.shape
    begins = spec.pads[: spec.rank]
    axes = zip(spec.output[2:], spec.strides, spec.kernel, spec.dilations, strict=True)
    reach = [(out - 1) * stride + (taps - 1) * apart + 1 for out, stride, taps, apart in axes]

    def seen(n: Any, k: Any, *at: Any) -> Any:
        *places, lane = at
        index = [p - begin for p, begin in zip(places, begins, strict=True)]
        inside = []
        for i, begin, extent, last in zip(index, begins, spec.data[2:], reach, strict=True):
            inside += [i >= 0] if begin else []
            inside += [i < extent] if last - begin > extent else []
        value = x(n, k, *index, lane)
        if not inside:
            return value
        return tirx.if_then_else(tirx.all(*inside), value, tirx.const(fill, x.dtype))

    return te.compute((n, blocks, *reach, lanes), seen, name="window")


ALGORITHM = DepthwiseBlocked()
