"""Upsample and Resize: whole factors repeat elements; any other nearest is a gather, linear and cubic a weighted sum, axis by axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.gather import take
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.resample import ResampleAttributes
from convc.ir.ops.shape import ResizeAttributes
from convc.ir.resampling import COORDINATES, HALF, ROUNDINGS, Axis, Rules

__all__ = ["ROWS"]


def _write(
    node: OperatorNode,
    axes: list[Axis],
    rules: Rules,
    beyond: float | None = None,
    followed: Mapping[int, ResampleAttributes] | None = None,
) -> Result:
    """Write the resampling of every axis that changes.

    Args:
        node: what is converted.
        axes: one for each of the operand's.
        rules: how it is read between its points.
        beyond: the value outside the data, if there is one.
        followed: axis -> how its extent follows from others, where height and width are open.
    """
    x = node.value()
    if followed:
        # Nearest, too: a table for each size, where a gather would have one. In one order for all sizes: they are compared by name.
        for i in sorted(followed, reverse=True):
            x = _resampled(node, x, axes[i], rules, followed[i])
    elif rules.mode == "nearest":
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
        # Shrink first, enlarge last: fewer points in between. Rows are combined as vectors, points within a row are gathered one by one:
        # rows first where that leaves fewer points to gather, last where it would make more (21 x 28 x 28 to 224 x 224: 3.2 ms -> 0.9).
        for i in sorted(range(len(axes)), key=lambda i: _order(axes[i], i)):
            x = _resampled(node, x, axes[i], rules, ResampleAttributes(i))
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


def _order(axis: Axis, index: int) -> tuple[float, int]:
    ratio = axis.result / axis.extent
    return ratio, -index if ratio > 1 else index


def _resampled(
    node: OperatorNode, x: str, axis: Axis, rules: Rules, attributes: ResampleAttributes
) -> str:
    places, weights = rules.taps(axis)
    index, own = attributes.axis, np.arange(axis.result)[:, None]
    same = axis.result == axis.extent and places.shape[1] == 1 and np.all(places == own)
    if same and not attributes.has_rule:
        return x
    tables = [
        node.literal(places, "int32", f"places{index}"),
        node.literal(weights, node.step_type(x).dtype, f"weights{index}"),
    ]
    return node.step("resample", [x, *tables], attributes)


def _followed(node: OperatorNode, rules: Rules) -> dict[int, ResampleAttributes]:
    """Return how height and width follow from other extents, where they are open; nothing where they are not, or need not be asked.

    Whole factors to the nearest point are an op that follows by itself.
    """
    type, has_scales = node.type(), node.has(2) and node.type(2).size > 0
    if not node.is_open or type.rank != 4 or not type.is_float:
        return {}
    given = 2 if has_scales else 3
    named = normalized_axes(node, node.attributes.integers("axes", (0, 1, 2, 3)), 4)
    origins = node.origins(given)
    written = node.constant(given).reshape(-1)
    rest = [i for i in range(4) if i not in (2, 3)]
    values = dict(zip(named, written, strict=True))
    if any(values.get(i, 1) != (1 if has_scales else type.shape[i]) for i in rest if i in values):
        return {}  # samples or channels change, too
    if has_scales and rules.mode == "nearest" and all(float(v).is_integer() for v in written):
        return {}
    found = {}
    for axis, origin, value in zip(named, origins, written, strict=True):
        if axis not in (2, 3) or (has_scales and value == 1):
            continue
        attributes = ResampleAttributes.of(axis, rules)
        if origin is None:
            found[axis] = replace(attributes, scale=float(value)) if has_scales else attributes
        elif not has_scales and origin.axis == axis:
            found[axis] = replace(attributes, like=origin.value, extents=origin.table)
        else:  # it has no rule, and is refused by name when it is opened
            found[axis] = ResampleAttributes(axis)
    return found


def _scaled(node: OperatorNode, scales: tuple[float, ...]) -> list[Axis]:
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
        _checked(node, Axis(n, math.floor(n * s), s)) for n, s in zip(shape, exact, strict=True)
    ]


# One axis longer than this is no image: its table would fill the memory of the machine that compiles it.
_LONGEST: Final = 1 << 20


def _checked(node: OperatorNode, axis: Axis) -> Axis:
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
    return _write(node, _scaled(node, scales), Rules("asymmetric", mode))


def _axes(node: OperatorNode) -> list[Axis]:
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
    axes = [Axis(n, n, Fraction(1)) for n in shape]
    ratios = [Fraction(int(s), max(1, shape[a])) for a, s in zip(named, given, strict=True)]
    for axis, size, ratio in zip(named, given, ratios, strict=True):
        result, scale = int(size), ratio
        if policy != "stretch":
            scale = min(ratios) if policy == "not_larger" else max(ratios)
            result = math.floor(scale * shape[axis] + HALF)
        axes[axis] = _checked(node, Axis(shape[axis], result, scale))
    return axes


def resize(node: OperatorNode) -> Result:
    """Write Resize (version 11 on)."""
    a = node.attributes
    mode = a.text("mode", "nearest", ("nearest", "linear", "cubic"))
    coordinate = a.text("coordinate_transformation_mode", "half_pixel", tuple(COORDINATES))
    rules = Rules(
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
        stretched = a.text("keep_aspect_ratio_policy", "stretch") == "stretch"
        return _write(node, axes, rules, followed=_followed(node, rules) if stretched else None)
    roi = [Fraction(float(v)) for v in node.constant(1).reshape(-1)]
    shape = node.type().shape
    named = normalized_axes(node, a.integers("axes", tuple(range(len(shape)))), len(shape))
    if len(roi) != 2 * len(named):
        raise InvalidModelError(f"Resize roi must have {2 * len(named)} values; got {len(roi)}.")
    for i, axis in enumerate(named):
        old = axes[axis]
        axes[axis] = Axis(old.extent, old.result, old.scale, (roi[i], roi[len(named) + i]))
    if 0 in shape:
        raise Unsupported(f"empty data {node.type()}")
    return _write(node, axes, rules, beyond)


NOTE: Final = "constant scales or sizes"

ROWS: Final = (
    Converter("Upsample", (7, 9), upsample, NOTE),
    Converter("Resize", (10,), upsample, NOTE),
    Converter("Resize", (11, 13, 18, 19), resize, NOTE),
)
