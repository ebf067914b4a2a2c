"""Phases of a transposed convolution: each residue of an output position modulo the stride is a small convolution of stride 1.

With u = p + pad, p = i stride + f, an output reads the taps r with (u - r dilation) divisible by the stride: every `period`-th one from
the first, period = stride / gcd(stride, dilation), T = ceil(R / period) of them.

Source:
    Shi et al., arXiv:1609.07009 (sub-pixel equivalence)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import tirx

from convc.ir.spec import ConvSpec
from convc.schedules.rank import raised

__all__ = ["Phases", "by_phase", "is_even", "phased", "phases_of"]


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


def phases_of(spec: ConvSpec) -> list[Phases]:
    """Return the phases of each spatial axis."""
    return [Phases.of(spec, axis) for axis in range(spec.rank)]


def is_even(spec: ConvSpec) -> bool:
    """Whether every phase has as many results: then they are written in their places."""
    return not any(p % s for p, s in zip(spec.output[2:], spec.strides, strict=True))


def by_phase(weight: np.ndarray, first: int, phases: Sequence[Phases]) -> np.ndarray:
    """Return weights whose axes of taps, from `first` on and last, are split into axes of phases and, behind those, of a phase's taps.

    Example:
        >>> spec = ConvSpec.of((1, 8, 4), (8, 8, 4), strides=(2,), transposed=True)
        >>> by_phase(np.arange(4.0), 0, phases_of(spec)).tolist()
        [[0.0, 2.0], [1.0, 3.0]]
    """
    # A tap beyond the filter reads the zero behind its end.
    split = np.pad(weight, (*((0, 0),) * first, *((0, 1),) * len(phases)))
    for axis, own in enumerate(phases):
        # Each pass makes the axis of taps into one of phases, in front, and one of a phase's taps.
        taps = [own.numbers(phase) for phase in range(own.stride)]
        split = np.moveaxis(np.take(split, taps, first + 2 * axis), first + 2 * axis, first + axis)
    return split
