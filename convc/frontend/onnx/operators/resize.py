"""Upsample and Resize: whole factors repeat elements; any other nearest is a gather, linear and cubic a weighted sum, axis by axis.

Interpolation is separable, so that every mode, coordinate rule and antialiasing filter is a table of places and weights per axis,
computed here in exact fractions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.gather import take
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.linear import AxisAttributes
from convc.ir.ops.shape import ResizeAttributes

__all__ = ["ROWS"]

HALF: Final = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis: extents of operand and result, the scale between them, and where tf_crop_and_resize cuts (0 to 1)."""

    extent: int
    result: int
    scale: Fraction
    crop: tuple[Fraction, Fraction] = (Fraction(0), Fraction(1))

    @property
    def ideal(self) -> Fraction:
        """The result's extent before it was rounded down."""
        return self.extent * self.scale


def _half_pixel(i: int, a: _Axis) -> Fraction:
    return (i + HALF) / a.scale - HALF


def _symmetric(i: int, a: _Axis) -> Fraction:
    return Fraction(a.extent, 2) * (1 - a.result / a.ideal) + _half_pixel(i, a)


def _align_corners(i: int, a: _Axis) -> Fraction:
    return i * (a.extent - 1) / (a.ideal - 1) if a.ideal != 1 else Fraction(0)


def _crop(i: int, a: _Axis) -> Fraction:
    begin, end = a.crop
    if a.ideal == 1:
        return (begin + end) * (a.extent - 1) / 2
    return begin * (a.extent - 1) + i * (end - begin) * (a.extent - 1) / (a.ideal - 1)


# (result index, axis) -> operand coordinate. Source: ONNX Resize-19.
COORDINATES: Final[dict[str, Callable[[int, _Axis], Fraction]]] = {
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
class _Rules:
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

    def nearest(self, axis: _Axis) -> np.ndarray:
        """Return the place of every result."""
        position = COORDINATES[self.coordinate]
        places = (ROUNDINGS[self.rounding](position(i, axis)) for i in range(axis.result))
        return np.array([min(max(p, 0), axis.extent - 1) for p in places], np.int64)

    def taps(self, axis: _Axis) -> tuple[np.ndarray, np.ndarray]:
        """Return places (int32) and weights, (results, taps); places beyond the data read its edge."""
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

    def outside(self, axis: _Axis) -> np.ndarray:
        """Return which results lie beyond the data, for tf_crop_and_resize."""
        position = COORDINATES[self.coordinate]
        return np.array([not 0 <= position(i, axis) <= axis.extent - 1 for i in range(axis.result)])


def _write(
    node: OperatorNode, axes: list[_Axis], rules: _Rules, beyond: float | None = None
) -> Result:
    """Write the resampling of every axis that changes; `beyond` is the value outside the data, if there is one."""
    x = node.value()
    if rules.mode == "nearest":
        places = [rules.nearest(a) for a in axes]
        factors = [a.result // a.extent if a.result % a.extent == 0 else 0 for a in axes]
        repeats = all(
            f and np.array_equal(p, np.arange(a.result) // f)
            for a, f, p in zip(axes, factors, places, strict=True)
        )
        if repeats:
            whole = ResizeAttributes(tuple(factors))
            return x if set(factors) == {1} else node.emit("resize", [x], whole)
        for i, p in enumerate(places):
            x = take(node, x, p, i)
    else:
        # Shrink first, enlarge last: fewer points in between.
        for i in sorted(range(len(axes)), key=lambda i: axes[i].result / axes[i].extent):
            x = _resampled(node, x, axes[i], i, rules)
    if beyond is None:
        return x
    mask = np.zeros((1,) * len(axes), bool)
    for i, a in enumerate(axes):
        shape = [1] * len(axes)
        shape[i] = a.result
        mask = mask | rules.outside(a).reshape(shape)
    if not mask.any():
        return x
    value = node.literal(beyond, node.type().dtype, "extrapolation")
    return node.emit("where", [node.literal(mask, "bool", "outside"), value, x])


def _resampled(node: OperatorNode, x: str, axis: _Axis, index: int, rules: _Rules) -> str:
    places, weights = rules.taps(axis)
    own = np.arange(axis.result)[:, None]
    if axis.result == axis.extent and places.shape[1] == 1 and np.all(places == own):
        return x
    tables = [
        node.literal(places, "int32", f"places{index}"),
        node.literal(weights, node.step_type(x).dtype, f"weights{index}"),
    ]
    return node.step("resample", [x, *tables], AxisAttributes(index))


def _scaled(node: OperatorNode, scales: tuple[float, ...]) -> list[_Axis]:
    """Return the axes for one scale each; results are rounded down."""
    shape = node.type().shape
    if len(scales) != len(shape):
        raise InvalidModelError(
            f"{node.op_type} must have one scale per axis of {node.type()}; got {list(scales)}."
        )
    if not all(math.isfinite(s) and s > 0 for s in scales):
        raise InvalidModelError(f"{node.op_type} scales must be positive; got {list(scales)}.")
    exact = [Fraction(s) for s in scales]
    return [
        _checked(node, _Axis(n, math.floor(n * s), s)) for n, s in zip(shape, exact, strict=True)
    ]


# One axis longer than this is no image: its table would fill the memory of the machine that compiles it.
_LONGEST: Final = 1 << 20


def _checked(node: OperatorNode, axis: _Axis) -> _Axis:
    if not 0 < axis.result <= _LONGEST:
        raise InvalidModelError(
            f"{node.op_type} extents must be between 1 and {_LONGEST}; got {axis.result} for {node.type()}."
        )
    return axis


def upsample(node: OperatorNode) -> Result:
    """Write Upsample (also Resize-10): nearest or linear from the first point on, scales as attribute (version 7) or input."""
    mode = node.attributes.text("mode", "nearest", ("nearest", "linear"))
    if node.version < 9:
        scales = node.attributes.reals("scales")
    else:
        scales = tuple(map(float, node.constant(1).reshape(-1)))
    return _write(node, _scaled(node, scales), _Rules("asymmetric", mode))


def _axes(node: OperatorNode) -> list[_Axis]:
    """Return the axes as `scales` or `sizes` say."""
    a, shape = node.attributes, node.type().shape
    named = normalized_axes(node, a.integers("axes", tuple(range(len(shape)))), len(shape))
    policy = a.text("keep_aspect_ratio_policy", "stretch", ("stretch", "not_larger", "not_smaller"))
    has_scales = node.has(2) and node.type(2).size > 0
    if not has_scales and not node.has(3):
        raise InvalidModelError("Resize must have scales or sizes; both are missing.")
    given = node.constant(2 if has_scales else 3).reshape(-1)
    if len(given) != len(named):
        raise InvalidModelError(
            f"Resize must have {len(named)} scales or sizes; got {len(given)} for {node.type()}."
        )
    if has_scales:
        scales = [1.0] * len(shape)
        for axis, scale in zip(named, given, strict=True):
            scales[axis] = float(scale)
        return _scaled(node, tuple(scales))
    axes = [_Axis(n, n, Fraction(1)) for n in shape]
    ratios = [Fraction(int(s), max(1, shape[a])) for a, s in zip(named, given, strict=True)]
    for axis, size, ratio in zip(named, given, ratios, strict=True):
        result, scale = int(size), ratio
        if policy != "stretch":
            scale = min(ratios) if policy == "not_larger" else max(ratios)
            result = math.floor(scale * shape[axis] + HALF)
        axes[axis] = _checked(node, _Axis(shape[axis], result, scale))
    return axes


def resize(node: OperatorNode) -> Result:
    """Write Resize (version 11 on)."""
    a = node.attributes
    mode = a.text("mode", "nearest", ("nearest", "linear", "cubic"))
    coordinate = a.text("coordinate_transformation_mode", "half_pixel", tuple(COORDINATES))
    rules = _Rules(
        coordinate,
        mode,
        a.text("nearest_mode", "round_prefer_floor", tuple(ROUNDINGS)),
        a.real("cubic_coeff_a", -0.75),
        a.flag("antialias", False),
        a.flag("exclude_outside", False),
    )
    beyond = a.real("extrapolation_value", 0.0)
    axes = _axes(node)
    if coordinate != "tf_crop_and_resize":
        return _write(node, axes, rules)
    roi = [Fraction(float(v)) for v in node.constant(1).reshape(-1)]
    shape = node.type().shape
    named = normalized_axes(node, a.integers("axes", tuple(range(len(shape)))), len(shape))
    if len(roi) != 2 * len(named):
        raise InvalidModelError(f"Resize roi must have {2 * len(named)} values; got {len(roi)}.")
    for i, axis in enumerate(named):
        old = axes[axis]
        axes[axis] = _Axis(old.extent, old.result, old.scale, (roi[i], roi[len(named) + i]))
    if 0 in shape:
        raise Unsupported(f"empty data {node.type()}")
    return _write(node, axes, rules, beyond)


NOTE: Final = "constant scales or sizes"

ROWS: Final = (
    Converter("Upsample", (7, 9), upsample, NOTE),
    Converter("Resize", (10,), upsample, NOTE),
    Converter("Resize", (11, 13, 18, 19), resize, NOTE),
)
