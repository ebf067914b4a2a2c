"""Convolution as a matrix product whose right side is never stored: each of its elements is looked up in the data when needed.

THE ALGORITHM   acc[z, k, m] = sum over i of w[z, i, k] patch[z, i, m]    z: group, phase of a transposed one, part of the sum
                patch[z, i, m] = x[n, c, p stride + r dilation - pad, ...], 0 outside; i = (r..., c) or (c, r...), m = (n, p...)
                y[n, k, p...] = epilogue(acc)                             on plain tensors
WHEN            1-D, 2-D, 3-D, any stride, dilation, padding and group; transposed by phases if strides divide the result
COST            C/group R S FMAs an output point; the ends of tiles are padded with zeros
ACCURACY        one chain of C/group R S multiply-adds for each of `split` parts, in the accumulator's type
SOURCE          Chetlur et al., arXiv:1410.0759 (implicit GEMM); Shi et al., arXiv:1609.07009 (phases)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.matrices import Matrices, gather, unravel
from convc.schedules.packing import Read, within
from convc.schedules.plain_epilogue import finish, plain_extras
from convc.schedules.plan import Knobs

__all__ = ["Lookup", "Product", "compute", "lookup", "pack", "packed_at", "product", "together"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27
# (z, where a step of the sum begins, place in the step, pixel) -> element
Lookup: TypeAlias = Callable[[Expr, Expr, Expr, Expr], Expr]
Product: TypeAlias = tuple[te.Tensor, te.Tensor]  # packed weights, sums [z][k][m]


def _taps_first(spec: ConvSpec, knobs: Knobs) -> bool:
    """Whether the sum runs over taps, then channels: then a step of it has one tap, and its address is one for all threads."""
    return (spec.in_channels // spec.group) % knobs["step"] == 0


def _in_turn(spec: ConvSpec, knobs: Knobs) -> int:
    """Return how many channels a sum that has taps first takes through all taps before the next ones.

    All of them; those of a step where a knob `cached` says that patches come through L1, where what a tap brought lies until the next.
    """
    return knobs["step"] if knobs.get("cached") else spec.in_channels // spec.group


def _tap_and_channel(spec: ConvSpec, knobs: Knobs, taps: int, i: Expr) -> tuple[Expr, Expr]:
    """Return whose the term i of a sum is that has taps first."""
    many, all_of_them = _in_turn(spec, knobs), spec.in_channels // spec.group
    if many == all_of_them:
        return i // many, i % many
    return i // many % taps, i // (many * taps) * many + i % many


def pack(weight: np.ndarray, spec: ConvSpec, knobs: Knobs) -> np.ndarray:
    """Return weights as [split * phase * group][depth][channels], padded with zeros."""
    m = Matrices.of(spec, knobs)
    rank, per_group = spec.rank, spec.in_channels // spec.group
    if spec.transposed:
        padded = np.zeros((*weight.shape[:2], *(t * s for t, s in zip(m.taps, spec.strides, strict=True))), weight.dtype)  # fmt: skip
        padded[(slice(None), slice(None), *(slice(r) for r in spec.kernel))] = weight
        pairs = [n for t, s in zip(m.taps, spec.strides, strict=True) for n in (t, s)]
        parts = padded.reshape(spec.group, per_group, m.channels, *pairs)
        # Residue f of the result has the taps whose phase is (f + pad) mod stride.
        for axis, stride in enumerate(spec.strides):
            order = [(f + spec.pads[axis]) % stride for f in range(stride)]
            parts = np.take(parts, order, axis=4 + 2 * axis)
        phases = [4 + 2 * i for i in range(rank)]
        taps = [3 + 2 * i for i in range(rank)]
        w = parts.transpose(*phases, 0, 1, *taps, 2)  # [phases...][group][c][taps...][k]
        w = w.reshape(m.phases * m.groups, per_group, *m.taps, m.channels)
    else:
        w = weight.reshape(m.groups, m.channels, per_group, *spec.kernel)
        w = np.moveaxis(w, 1, -1)
    if _taps_first(spec, knobs):
        many = _in_turn(spec, knobs)
        w = w.reshape(len(w), per_group // many, many, *m.taps, m.channels)
        w = np.moveaxis(w, 2, -2)
    w = w.reshape(m.phases * m.groups, m.depth, m.channels)
    whole = np.zeros(
        (m.phases * m.groups, m.split * m.padded_depth, m.padded_channels), weight.dtype
    )
    whole[:, : m.depth, : m.channels] = w
    parts = whole.reshape(m.phases * m.groups, m.split, m.padded_depth, m.padded_channels)
    return np.ascontiguousarray(parts.swapaxes(0, 1)).reshape(
        m.products, m.padded_depth, m.padded_channels
    )


def packed_at(spec: ConvSpec, knobs: Knobs, read: Read) -> Callable[[Expr, Expr, Expr], Expr]:
    """Return the element (z, i, k) of what `pack` makes, of weights that are read at run time.

    Args:
        spec: the convolution.
        knobs: its tile.
        read: the weight at its first two indices and its taps.
    """
    m = Matrices.of(spec, knobs)
    per_group, taps = spec.in_channels // spec.group, math.prod(m.taps)

    def element(z: Expr, i: Expr, k: Expr) -> Expr:
        group = z % m.groups
        if m.split > 1:
            i = z // (m.groups * m.phases) * m.padded_depth + i
        bounds = [(k, m.channels, m.padded_channels), (i, m.depth, m.split * m.padded_depth)]
        tap, c = _tap_and_channel(spec, knobs, taps, i) if _taps_first(spec, knobs) else (i % taps, i // taps)  # fmt: skip
        at: Sequence[Expr] = unravel(tap, m.taps)
        if not spec.transposed:
            return within(bounds, read(group * m.channels + k, c, at), spec.dtype)
        phase = unravel(z // m.groups % m.phases, spec.strides)
        at = [
            t * stride + _first_tap(f, stride, pad)
            for t, f, stride, pad in zip(at, phase, spec.strides, spec.pads, strict=False)
        ]
        ends = [t * stride for t, stride in zip(m.taps, spec.strides, strict=True)]
        bounds += zip(at, spec.kernel, ends, strict=True)
        return within(bounds, read(group * per_group + c, k, at), spec.dtype)

    return element


def _first_tap(phase: Expr, stride: int, pad: int) -> Expr:
    """Return (phase + pad) % stride, which TVM 0.27 would simplify to phase inside of an index: strides 3, pads 1."""
    rest = pad % stride
    return tirx.Select(phase < stride - rest, phase + rest, phase + (rest - stride)) if rest else phase  # fmt: skip


def together(spec: ConvSpec) -> int:
    """Return how many neighbouring pixels lie side by side in the data wherever they begin at a multiple of so many: 4 or 1.

    Example:
        >>> [together(ConvSpec.of((1, 8, 6, h), (8, 8, 1, 1))) for h in (6, 7)]
        [4, 1]
    """
    single = max(*spec.kernel, *spec.strides) == 1 and max(spec.pads) == 0 and not spec.transposed
    return 4 if single and math.prod(spec.data[2:]) % 4 == 0 else 1


def lookup(
    spec: ConvSpec, m: Matrices, knobs: Knobs, x: Callable[..., Expr], fill: int = 0
) -> Lookup:
    """Return the right side of the products as a function; `start` is a multiple of the knob `step`, and `place` below it.

    Both are apart, since a step may have one tap, whose address and conditions are then computed once. Outside of the data lies `fill`.
    """
    per_group = spec.in_channels // spec.group
    taps = math.prod(m.taps)

    def patch(z: Expr, start: Expr, place: Expr, pixel: Expr) -> Expr:
        conditions = []
        if m.padded_pixels != m.pixels:
            # The same for all of a vector of neighbouring pixels, so that it is one test.
            wide = together(spec)
            conditions.append(pixel // wide < m.pixels // wide)
        group = z % m.groups
        phase = unravel(z // m.groups % m.phases, spec.strides) if m.phases > 1 else None
        if m.split > 1:
            start = z // (m.groups * m.phases) * m.padded_depth + start
        if _taps_first(spec, knobs):
            tap, first = _tap_and_channel(spec, knobs, taps, start)
            c = first + place
            if m.split * m.padded_depth != m.depth:
                # The sum ends where a step does.
                conditions.append(start < m.depth)
        else:
            i = start + place
            c, tap = i // taps, i % taps
            if m.split * m.padded_depth != m.depth:
                conditions.append(i < m.depth)
        n, *at = unravel(pixel, (1, *m.points))
        index = []
        for axis, (p, r) in enumerate(zip(at, unravel(tap, m.taps), strict=True)):
            stride, extent, pad = spec.strides[axis], spec.data[2 + axis], spec.pads[axis]
            if spec.transposed:
                first = (phase[axis] + pad) // stride if phase is not None else pad
                position = p + first - r
                low = 1 - m.taps[axis]
                high = m.points[axis] - 1 + (stride - 1 + pad) // stride
            else:
                position = p * stride + r * spec.dilations[axis] - pad
                low = -pad
                high = (m.points[axis] - 1) * stride + (m.taps[axis] - 1) * spec.dilations[axis] - pad  # fmt: skip
            conditions += [position >= 0] if low < 0 else []
            conditions += [position < extent] if high >= extent else []
            index.append(position)
        element = x(n, group * per_group + c, *index)
        if not conditions:
            return element
        return tirx.if_then_else(tirx.all(*conditions), element, tirx.const(fill, spec.dtype))

    return patch


def product(m: Matrices, element: Lookup, dtype: str, accumulator: str) -> Product:
    """Return w [z][i][k] and the products [z][k][m] of w and patch [z][i][m], summed in `accumulator`; blocks `patch`, `acc`."""
    w = te.placeholder((m.products, m.padded_depth, m.padded_channels), dtype, name="weight")
    steps = m.padded_depth // m.step
    patch = te.compute(
        (m.products, steps, m.step, m.padded_pixels),
        lambda z, s, i, p: element(z, s * m.step, i, p),
        name="patch",
    )
    s, i = te.reduce_axis((0, steps), "s"), te.reduce_axis((0, m.step), "i")

    def term(z: Expr, k: Expr, p: Expr) -> Expr:
        left = w[z, s * m.step + i, k].astype(accumulator)
        return te.sum(left * patch[z, s, i, p].astype(accumulator), axis=[s, i])

    acc = te.compute((m.products, m.padded_channels, m.padded_pixels), term, name="acc")
    return w, acc


def compute(
    problem: Problem,
    knobs: Knobs,
    multiply: Callable[[Matrices, Lookup, str, str], Product] = product,
) -> list[te.Tensor]:
    """Return data, weight, extras..., result; `multiply`'s blocks, with a split sum `total`, and the epilogue.

    Args:
        problem: the convolution.
        knobs: its tile, as in `Matrices.of`.
        multiply: makes packed weights and products of (extents, elements of the right side, their type, the sums' type).
    """
    spec = problem.spec
    m = Matrices.of(spec, knobs)
    x = te.placeholder(spec.data, spec.dtype, name="data")
    extras = plain_extras(problem)
    w, acc = multiply(m, lookup(spec, m, knobs, x), spec.dtype, problem.accumulator)

    y = gather(spec, m, spec.output, lambda n, k, *p: (n, k, p), lambda *i: acc(*i))
    return [x, w, *extras, finish(y, problem, extras)]
