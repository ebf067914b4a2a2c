"""Per-axis arguments: one number for all axes, or one for each; and extents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import is_whole, listed, whole_numbers
from convc.ir.types import Shape

__all__ = ["Axes", "both_sides", "extents_of", "per_axis"]

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


def extents_of(input: str, shape: Sequence[int | str]) -> tuple[str, Shape]:
    """Return the name of a symbolic batch, or "", and all extents.

    Example:
        >>> extents_of("x", ("N", 3, 8)), extents_of("x", (2, 3))
        (('N', (1, 3, 8)), ('', (2, 3)))
    """
    given = listed(shape) or []
    is_named = bool(given) and isinstance(given[0], str)
    symbol = given[0] if is_named else ""
    if (is_named and not symbol) or any(isinstance(extent, str) for extent in given[1:]):
        raise ShapeError(
            f"input '{input}' must have whole numbers for extents, but for a name of the leading one; got {tuple(shape)}."
        )
    return symbol, whole_numbers(
        f"extents of input '{input}'", [1, *given[1:]] if symbol else shape
    )
