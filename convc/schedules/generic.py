"""Convolution of any kind, as its definition reads: the fallback that takes everything.

THE ALGORITHM   y[n, k, p...] = sum over c, r... of x[n, c, p stride + r dilation - pad] w[k, c, r...], zero outside the data;
                transposed: y[n, k, p...] = sum over c, r... of x[n, c, i] w[c, k, r...] where i stride = p + pad - r dilation
                on plain tensors
WHEN            always: 1-D, 2-D, 3-D, any group, dilation and element type, transposed, weights known only at run time
COST            C/group R S FMAs an output point (transposed: of which only one in stride^rank is not a multiplication by zero)
ACCURACY        one chain of C/group R S multiply-adds in the accumulator's type, float32 for narrower operands; then one rounding
SOURCE          ONNX Conv-11, ConvTranspose-11
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from tvm import te, tirx

from convc.schedules.algorithm import Operands, Problem
from convc.schedules.layout import PLAIN, Halo
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.scalar import apply_steps
from convc.target import Target

__all__ = ["ALGORITHM", "Generic"]


class Generic:
    """See the module's text."""

    name = "generic"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return None: it takes everything."""
        return None

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return how many output channels share a data load: a divisor of K/group, so that a tile stays in one group."""
        per_group = problem.spec.out_channels // problem.spec.group
        return {"channels": max(d for d in (1, 2, 4, 8) if per_group % d == 0)}

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield the divisors of K/group up to 16."""
        per_group = problem.spec.out_channels // problem.spec.group
        yield from ({"channels": d} for d in (1, 2, 4, 8, 16) if per_group % d == 0)

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return FMA cycles at the few percent of peak that this reaches: unaligned or gathered loads, short vectors."""
        spec = problem.spec
        flops, efficiency = spec.flops, 0.3 if max(spec.strides) == 1 else 0.1
        # Vectors run along the last axis: 1x1 on a map of one point, 960 -> 240 channels, is 5 GFLOP/s.
        row, lanes = spec.output[-1], target.lanes
        efficiency *= row / (-(-row // lanes) * lanes)
        if spec.transposed:
            # Every tap of every output point is tested: 512 channels of 4 x 4 from one point took 16 ms, 1.6 GFLOP/s.
            points, taps = math.prod(spec.output[2:]), math.prod(spec.weight)
            flops, efficiency = 2 * spec.data[0] * points * taps, 0.014
        return max(flops / target.flops_per_cycle / efficiency, spec.nbytes / target.core.data)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return plain layouts."""
        return Operands(PLAIN, Halo(), PLAIN)

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return the weights as they are."""
        return np.ascontiguousarray(weight)

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result."""
        spec = problem.spec
        x = te.placeholder(spec.data, spec.dtype, name="data")
        w = te.placeholder(spec.weight, spec.dtype, name="weight")
        extras = []
        for step in problem.epilogue:
            if step.takes_operand:
                shape = (spec.out_channels,) if step.name == "bias" else spec.output
                extras.append(te.placeholder(shape, spec.dtype, name=step.name))
        acc = _transposed(problem, x, w) if spec.transposed else _forward(problem, x, w)
        wide = problem.accumulator

        def bias(y: te.Tensor, b: te.Tensor) -> te.Tensor:
            return te.compute(
                y.shape, lambda n, k, *p: y(n, k, *p) + b[k].astype(wide), name="bias_add"
            )

        y = te.compute(acc.shape, lambda *i: acc(*i), name="unpack")
        y = apply_steps(y, problem.epilogue, [_cast(e, wide) for e in extras], bias)
        return [x, w, *extras, _cast(y, spec.dtype)]


def _cast(x: te.Tensor, dtype: str) -> te.Tensor:
    return x if x.dtype == dtype else te.compute(x.shape, lambda *i: x(*i).astype(dtype), "cast")


def _reduction(problem: Problem) -> tuple[te.Tensor, list[te.Tensor]]:
    spec = problem.spec
    channels = te.reduce_axis((0, spec.in_channels // spec.group), "c")
    return channels, [te.reduce_axis((0, n), f"r{i}") for i, n in enumerate(spec.kernel)]


def _forward(problem: Problem, x: te.Tensor, w: te.Tensor) -> te.Tensor:
    spec, wide = problem.spec, problem.accumulator
    n = spec.rank
    begins, ends = spec.pads[:n], spec.pads[n:]
    source = x
    if any(spec.pads):
        extents = [e + b + a for e, b, a in zip(spec.data[2:], begins, ends, strict=True)]
        zero = tirx.const(0, spec.dtype)

        def padded(batch, c, *at):
            inside = tirx.all(
                *(
                    cond
                    for i, b, e in zip(at, begins, spec.data[2:], strict=True)
                    for cond in (i >= b, i < b + e)
                )
            )
            index = [i - b for i, b in zip(at, begins, strict=True)]
            return tirx.if_then_else(inside, x(batch, c, *index), zero)

        source = te.compute((*spec.data[:2], *extents), padded, name="pad")
    c, taps = _reduction(problem)
    group_c, group_k = spec.in_channels // spec.group, spec.out_channels // spec.group

    def value(batch, k, *at):
        index = [
            p * s + r * d for p, s, r, d in zip(at, spec.strides, taps, spec.dilations, strict=True)
        ]
        channel = k // group_k * group_c + c if spec.group > 1 else c
        product = source(batch, channel, *index).astype(wide) * w(k, c, *taps).astype(wide)
        return te.sum(product, axis=[c, *taps])

    return te.compute(spec.output, value, name="acc")


def _transposed(problem: Problem, x: te.Tensor, w: te.Tensor) -> te.Tensor:
    spec, wide = problem.spec, problem.accumulator
    c, taps = _reduction(problem)
    group_c, group_k = spec.in_channels // spec.group, spec.out_channels // spec.group
    zero = tirx.const(0, spec.dtype)

    def value(batch, k, *at):
        conditions, index = [], []
        for axis, (p, r) in enumerate(zip(at, taps, strict=True)):
            scaled = p + spec.pads[axis] - r * spec.dilations[axis]
            stride, extent = spec.strides[axis], spec.data[2 + axis]
            conditions += [scaled >= 0, scaled % stride == 0, scaled < extent * stride]
            index.append(scaled // stride)
        channel = k // group_k * group_c + c if spec.group > 1 else c
        inside = tirx.if_then_else(tirx.all(*conditions), x(batch, channel, *index), zero)
        weight = w(channel, k % group_k, *taps).astype(wide)
        return te.sum(inside.astype(wide) * weight, axis=[c, *taps])

    return te.compute(spec.output, value, name="acc")


ALGORITHM = Generic()
