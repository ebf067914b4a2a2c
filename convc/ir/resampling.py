"""How an image is read between its points: coordinates, filters, and the tables of places and weights that they make.

Interpolation is separable, so that every mode, coordinate rule and antialiasing filter is a table of places and weights per axis,
computed here in exact fractions: by the importer, and by a loaded module for a height and width that it is given.

Source:
    ONNX Resize-19; Keys, Cubic Convolution Interpolation, 1981 (equation 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

__all__ = ["COORDINATES", "HALF", "MODES", "ROUNDINGS", "Axis", "Rules", "table"]

HALF: Final = Fraction(1, 2)
# mode -> points that a result is made of where nothing is smoothed.
MODES: Final = {"nearest": 1, "linear": 2, "cubic": 4}


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: extents of operand and result, the scale between them, and where tf_crop_and_resize cuts (0 to 1)."""

    extent: int
    result: int
    scale: Fraction
    crop: tuple[Fraction, Fraction] = (Fraction(0), Fraction(1))

    @property
    def ideal(self) -> Fraction:
        """The result's extent before it was rounded down."""
        return self.extent * self.scale


def _half_pixel(i: int, a: Axis) -> Fraction:
    return (i + HALF) / a.scale - HALF


def _symmetric(i: int, a: Axis) -> Fraction:
    return Fraction(a.extent, 2) * (1 - a.result / a.ideal) + _half_pixel(i, a)


def _align_corners(i: int, a: Axis) -> Fraction:
    return i * (a.extent - 1) / (a.ideal - 1) if a.ideal != 1 else Fraction(0)


def _crop(i: int, a: Axis) -> Fraction:
    begin, end = a.crop
    if a.ideal == 1:
        return (begin + end) * (a.extent - 1) / 2
    return begin * (a.extent - 1) + i * (end - begin) * (a.extent - 1) / (a.ideal - 1)


# (result index, axis) -> operand coordinate. Source: ONNX Resize-19.
COORDINATES: Final[dict[str, Callable[[int, Axis], Fraction]]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda i, a: _half_pixel(i, a) if a.result > 1 else Fraction(0),
    "asymmetric": lambda i, a: i / a.scale,
    "align_corners": _align_corners,
    "tf_half_pixel_for_nn": lambda i, a: (i + HALF) / a.scale,
    "tf_crop_and_resize": _crop,
}
ROUNDINGS: Final[dict[str, Callable[[Fraction], int]]] = {
    "round_prefer_floor": lambda x: math.ceil(x - HALF),
    "round_prefer_ceil": lambda x: math.floor(x + HALF),
    "floor": math.floor,
    "ceil": math.ceil,
    "simple": lambda x: math.floor(x),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """How coordinates become places and weights."""

    coordinate: str
    mode: str
    rounding: str = "floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False

    def filter(self, t: float) -> float:
        """Return the weight at a distance of t points: the triangle, or Keys' cubic."""
        t, a = abs(t), self.cubic
        if self.mode == "linear":
            return max(0.0, 1 - t)
        if t <= 1:
            return ((a + 2) * t - (a + 3)) * t * t + 1
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a if t < 2 else 0.0

    def nearest(self, axis: Axis) -> np.ndarray:
        """Return the place of every result."""
        position = COORDINATES[self.coordinate]
        places = (ROUNDINGS[self.rounding](position(i, axis)) for i in range(axis.result))
        return np.array([min(max(p, 0), axis.extent - 1) for p in places], np.int64)

    def most_taps(self, scale: Fraction) -> int:
        """Return how many points a result is made of at most, at this scale or a greater one.

        Example:
            >>> Rules("half_pixel", "linear").most_taps(Fraction(1, 4))
            2
            >>> Rules("half_pixel", "linear", antialias=True).most_taps(Fraction(1, 4))
            9
        """
        plain = MODES[self.mode]
        if self.mode == "nearest" or not self.antialias or scale >= 1:
            return plain
        return 2 * math.ceil(plain / 2 / scale) + 1

    def taps(self, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
        """Return places (int32) and weights, (results, taps); places beyond the data read its edge."""
        if self.mode == "nearest":
            places = self.nearest(axis).astype(np.int32)[:, None]
            return places, np.ones(places.shape)
        squeeze = min(float(axis.scale), 1.0) if self.antialias else 1.0
        reach = (1 if self.mode == "linear" else 2) / squeeze
        rows = []
        for i in range(axis.result):
            x = COORDINATES[self.coordinate](i, axis)
            first, last = math.ceil(float(x) - reach), math.floor(float(x) + reach)
            row = [(p, self.filter(float(p - x) * squeeze)) for p in range(first, last + 1)]
            if self.exclude_outside:
                row = [(p, w) for p, w in row if 0 <= p < axis.extent]
            total = sum(w for _, w in row)
            if (self.antialias or self.exclude_outside) and total:
                row = [(p, w / total) for p, w in row]
            rows.append([(p, w) for p, w in row if w])
        count = max(1, *map(len, rows))
        places, weights = np.zeros((axis.result, count), np.int32), np.zeros((axis.result, count))
        for i, row in enumerate(rows):
            for t, (p, w) in enumerate(row):
                places[i, t], weights[i, t] = min(max(p, 0), axis.extent - 1), w
        return places, weights

    def outside(self, axis: Axis) -> np.ndarray:
        """Return which results lie beyond the data, for tf_crop_and_resize."""
        position = COORDINATES[self.coordinate]
        return np.array([not 0 <= position(i, axis) <= axis.extent - 1 for i in range(axis.result)])


def table(rules: Rules, scale: float, extent: int, result: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places and weights, (result, points) each; a scale of 0 is the ratio of the extents.

    Example:
        >>> places, weights = table(Rules("half_pixel", "linear"), 0.0, 2, 4)
        >>> places.tolist(), weights.tolist()
        ([[0, 0], [0, 1], [0, 1], [1, 1]], [[0.25, 0.75], [0.75, 0.25], [0.25, 0.75], [0.75, 0.25]])
    """
    exact = Fraction(scale) if scale else Fraction(result, extent)
    return rules.taps(Axis(extent, result, exact))
