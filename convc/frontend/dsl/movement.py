"""Functions that move elements without computing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from convc.errors import DTypeError, ShapeError
from convc.frontend.dsl.arguments import axis_number, axis_numbers, listed, number, whole
from convc.frontend.dsl.geometry import Axes, both_sides, per_axis
from convc.frontend.dsl.tensor import Operand, Tensor, apply, as_tensor, building
from convc.ir.ops.flip import FlipAttributes
from convc.ir.ops.shape import (
    ConcatAttributes,
    PadAttributes,
    ReshapeAttributes,
    ResizeAttributes,
)

__all__ = ["concat", "flatten", "flip", "pad", "resize_nearest"]


@building
def flatten(x: Operand, axis: int = 1, *, name: str | None = None) -> Tensor:
    """Return a matrix: axes before `axis` become rows, the others columns."""
    x = as_tensor(x)
    at, rank = whole("axis", axis), len(x.shape)
    if not -rank <= at <= rank:
        raise ShapeError(f"axis must be in [{-rank}, {rank}] for {x.node.type}; got {at}.")
    shape = (math.prod(x.shape[:at]), math.prod(x.shape[at:]))
    return apply("reshape", [x], ReshapeAttributes(shape), name=name)


@building
def flip(x: Operand, axes: int | Sequence[int], *, name: str | None = None) -> Tensor:
    """Return the tensor with `axes` reversed; negative ones count from the end."""
    x = as_tensor(x)
    attributes = FlipAttributes(axis_numbers("axes", axes, len(x.shape)))
    return apply("flip", [x], attributes, name=name)


@building
def concat(tensors: Sequence[Operand], axis: int = 1, *, name: str | None = None) -> Tensor:
    """Return the tensors one after the other along `axis`; a negative axis counts from the end."""
    parts = listed(tensors)
    if parts is None:
        raise DTypeError(f"tensors must be a list; got {tensors!r}.")
    if not parts:
        raise ShapeError("concat must have at least 1 operands; got 0.")
    attributes = ConcatAttributes(axis_number("axis", axis, len(as_tensor(parts[0]).shape)))
    return apply("concat", parts, attributes, name=name)


@building
def pad(x: Operand, pads: Axes, value: float = 0.0, *, name: str | None = None) -> Tensor:
    """Return the tensor with a border of `value`: pads for every axis, batch and channels included."""
    x = as_tensor(x)
    attributes = PadAttributes(both_sides("pads", pads, len(x.shape)), number("value", value))
    return apply("pad", [x], attributes, name=name)


@building
def resize_nearest(x: Operand, factors: Axes, *, name: str | None = None) -> Tensor:
    """Return data (N, C, *spatial) with every point repeated: `factors` for the spatial axes."""
    x = as_tensor(x)
    spatial = per_axis("factors", factors, max(len(x.shape) - 2, 0))
    return apply("resize", [x], ResizeAttributes((1, 1, *spatial)), name=name)
