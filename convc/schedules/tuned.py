"""Tuned records as the choice sees them: plain data by problem, and which other problem's records speak for one without any."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from convc.errors import ConvcError
from convc.schedules.algorithm import KIND, SEPARATOR, Problem
from convc.schedules.plan import Knobs

__all__ = ["APART", "Measurement", "Records", "Untuned", "distance", "geometries", "nearest"]

# Twice the channels on both sides, or a map of twice the width: further away a record says little about this shape.
FARTHEST: Final = 2.0

# The algorithm of a chain's record that says: in its place its layers were faster as kernels of their own.
APART: Final = "apart"


@dataclass(frozen=True, slots=True)
class Untuned:
    """The model's choice in the places where a setting was measured in a network, and what it took there."""

    algorithm: str
    knobs: Knobs
    seconds: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """One setting's measured time on this device, and its measured error relative to the greatest result.

    `untuned` is there where it was timed in a network, among other layers, and None where alone. The two cannot be compared.
    """

    algorithm: str
    knobs: Knobs
    seconds: float
    error: float
    untuned: Untuned | None = None


Records: TypeAlias = Mapping[str, tuple[Measurement, ...]]
"""Measurements by the problem's key, all of one device, one target and one number of threads.

Of a key all are from networks or all from alone. A key without any has been settled: in a network nothing was faster than by estimate."""


def geometries(records: Iterable[str], kind: str = "") -> list[tuple[str, Problem]]:
    """Return the keys of one kind with the convolutions whose geometry they name; a chain's names several, see `Bottleneck.key`.

    Args:
        records: keys.
        kind: what stands before `KIND` in them; "": convolutions.

    Example:
        >>> keys = ["conv2d-f32-n1c8h5w5-k4r3s3-st1x1-pd0.0.0.0-dl1x1-g1"]
        >>> keys.append(f"weight_gradient:{keys[0]}")
        >>> [[key for key, _ in geometries(keys, kind)] == keys[i : i + 1] for i, kind in enumerate(("", "weight_gradient"))]
        [True, True]
    """
    alone = ((key, key.rpartition(KIND)) for key in records if SEPARATOR not in key)
    found = [(key, geometry) for key, (of, _, geometry) in alone if of == kind]
    return [(key, problem) for key, geometry in found if (problem := _named(geometry)) is not None]


def _named(geometry: str) -> Problem | None:
    """Return the problem of that name, if there is one: a log may hold another convc's names, or damage that is still JSON."""
    try:
        return Problem.parse(geometry)
    except ConvcError:
        return None


def distance(one: Problem, other: Problem) -> float:
    """Return how far two problems are from each other, in doublings of their extents; infinite if they differ in kind.

    Example:
        >>> from convc.ir.spec import ConvSpec
        >>> a, b = (Problem(ConvSpec.of((1, c, 56, 56), (64, c, 3, 3))) for c in (64, 128))
        >>> distance(a, b)
        1.0
    """
    a, b = one.spec, other.spec
    kind = [
        (s.kernel, s.strides, s.dilations, s.transposed, s.dtype, s.group > 1, s.is_depthwise)
        for s in (a, b)
    ]
    if kind[0] != kind[1] or one.constant_weight != other.constant_weight:
        return math.inf
    extents = [(s.data[0], s.in_channels, s.out_channels, s.group, *s.output[2:]) for s in (a, b)]
    far = sum(abs(math.log2(x / y)) for x, y in zip(*extents, strict=True) if x and y)
    return far + 0.1 * (one.epilogue != other.epilogue) + 0.1 * (a.pads != b.pads)


def nearest(
    problem: Problem, known: Iterable[tuple[str, Problem]], *, same_shape: bool = False
) -> str | None:
    """Return the key of the nearest problem that has records, or None if all are too far.

    Args:
        problem: one without records.
        known: (key, problem) of those with records.
        same_shape: only problems that differ in the epilogue alone.
    """
    best: tuple[float, str] | None = None
    for key, other in known:
        if same_shape and other.spec != problem.spec:
            continue
        far = distance(problem, other)
        if far <= FARTHEST and (best is None or (far, key) < best):
            best = (far, key)
    return best[1] if best else None
