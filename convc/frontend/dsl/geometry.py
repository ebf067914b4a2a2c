"""Per-axis arguments: one number for all axes, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import is_whole, whole_numbers
from convc.ir.types import Shape

__all__ = ["Axes", "both_sides", "per_axis"]

Axes: TypeAlias = int | Sequence[int]


def per_axis(name: str, value: Axes, rank: int, *, default: int | None = None) -> Shape:
    """Return one value for each of `rank` axes, or none if all are the IR's default.

    Example:
        >>> per_axis("strides", 2, 3), per_axis("strides", 1, 3, default=1)
        ((2, 2, 2), ())
    """
    values = (int(value),) * rank if is_whole(value) else whole_numbers(name, value)
    if len(values) != rank:
        raise ShapeError(f"{name} must be one number or {rank} numbers; got {values}.")
    return () if set(values) == {default} else values


def both_sides(name: str, value: Axes, rank: int, *, default: int | None = None) -> Shape:
    """Return all beginnings, then all ends, from one number, from one per axis, or as they are; none if all are the IR's default.

    Example:
        >>> both_sides("pads", (1, 2), 2), both_sides("pads", (0, 0, 1, 2), 2)
        ((1, 2, 1, 2), (0, 0, 1, 2))
    """
    values = (int(value),) * rank if is_whole(value) else whole_numbers(name, value)
    if len(values) == rank:
        values *= 2
    if len(values) != 2 * rank:
        raise ShapeError(f"{name} must be one number, {rank} or {2 * rank} numbers; got {values}.")
    return () if set(values) == {default} else values
