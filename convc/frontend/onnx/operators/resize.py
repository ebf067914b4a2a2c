"""Upsample and Resize -> resize, where the result only repeats elements by whole factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.shape import ResizeAttributes
from convc.ir.types import Shape

__all__ = ["ROWS"]

# (result index, factor, operand extent, result extent) -> operand coordinate; with whole factors the symmetric form adds 0.
COORDINATES: Final[dict[str, Callable[[int, Fraction, int, int], Fraction]]] = {
    "half_pixel": lambda i, f, n, m: (i + Fraction(1, 2)) / f - Fraction(1, 2),
    "half_pixel_symmetric": lambda i, f, n, m: (i + Fraction(1, 2)) / f - Fraction(1, 2),
    "pytorch_half_pixel": lambda i, f, n, m: (
        (i + Fraction(1, 2)) / f - Fraction(1, 2) if m > 1 else Fraction(0)
    ),
    "asymmetric": lambda i, f, n, m: i / f,
    "align_corners": lambda i, f, n, m: Fraction(i * (n - 1), m - 1) if m > 1 else Fraction(0),
}
ROUNDINGS: Final[dict[str, Callable[[Fraction], int]]] = {
    "round_prefer_floor": lambda x: math.ceil(x - Fraction(1, 2)),
    "round_prefer_ceil": lambda x: math.floor(x + Fraction(1, 2)),
    "floor": math.floor,
    "ceil": math.ceil,
}


def _factors(node: OperatorNode, scales: tuple[float, ...]) -> Shape:
    """Return whole factors for all axes."""
    if len(scales) != node.type().rank:
        raise InvalidModelError(
            f"{node.op_type} must have one scale per axis of {node.type()}; got {list(scales)}."
        )
    if any(s < 1 or s != int(s) for s in scales):
        raise Unsupported(f"scales {list(scales)} (only whole numbers)")
    return tuple(map(int, scales))


def _repeat(node: OperatorNode, factors: Shape) -> Result:
    if all(f == 1 for f in factors):
        return node.value()
    return node.emit("resize", [node.value()], ResizeAttributes(factors))


def upsample(node: OperatorNode) -> Result:
    """Write Upsample (also Resize-10): nearest, scales as attribute (version 7) or input; rounds down."""
    node.attributes.only("mode", "nearest")
    if node.version < 9:
        a = node.attributes
        scales = a.reals("scales")
    else:
        scales = tuple(map(float, node.constant(1).reshape(-1)))
    return _repeat(node, _factors(node, scales))


def _all_scales(node: OperatorNode) -> tuple[float, ...]:
    """Return the scale of every axis, from `scales` or `sizes`."""
    shape = node.type().shape
    axes = normalized_axes(
        node, node.attributes.integers("axes", tuple(range(len(shape)))), len(shape)
    )
    has_scales = node.has(2) and node.type(2).size > 0
    if has_scales:
        given = tuple(map(float, node.constant(2).reshape(-1)))
    elif node.has(3):
        node.attributes.only("keep_aspect_ratio_policy", "stretch")
        sizes = node.constant_integers(3)
        given = tuple(s / shape[a] for a, s in zip(axes, sizes, strict=False))
    else:
        raise InvalidModelError("Resize must have scales or sizes; both are missing.")
    if len(given) != len(axes):
        raise InvalidModelError(
            f"Resize must have {len(axes)} scales or sizes; got {len(given)} for {node.type()}."
        )
    scales = [1.0] * len(shape)
    for axis, scale in zip(axes, given, strict=True):
        scales[axis] = scale
    return tuple(scales)


def resize(node: OperatorNode) -> Result:
    """Write Resize (version 11 on) in mode nearest, if its coordinate and rounding rules repeat each element in place."""
    a = node.attributes
    a.only("mode", "nearest")
    a.ignore("cubic_coeff_a", "exclude_outside")  # cubic only
    a.ignore("extrapolation_value")  # tf_crop_and_resize only
    a.only("antialias", 0)
    coordinate = a.text("coordinate_transformation_mode", "half_pixel", tuple(COORDINATES))
    rounding = a.text("nearest_mode", "round_prefer_floor", tuple(ROUNDINGS))
    scales = _all_scales(node)
    a.ignore("keep_aspect_ratio_policy")  # of sizes only
    factors = _factors(node, scales)
    for extent, factor in zip(node.type().shape, factors, strict=True):
        for i in range(extent * factor):
            x = COORDINATES[coordinate](i, Fraction(factor), extent, extent * factor)
            if min(max(ROUNDINGS[rounding](x), 0), extent - 1) != i // factor:
                raise Unsupported(
                    f"attribute coordinate_transformation_mode={coordinate} with nearest_mode={rounding} "
                    f"at factor {factor} (only where each element is repeated in place)"
                )
    return _repeat(node, factors)


NOTE: Final = "nearest, whole factors"

ROWS: Final = (
    Converter("Upsample", (7, 9), upsample, NOTE),
    Converter("Resize", (10,), upsample, NOTE),
    Converter("Resize", (11, 13, 18, 19), resize, NOTE),
)
