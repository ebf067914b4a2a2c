"""`x[...]` -> a slice op's attributes."""

from __future__ import annotations

from types import EllipsisType
from typing import TypeAlias

from convc.errors import DTypeError, ShapeError
from convc.frontend.dsl.arguments import is_whole
from convc.ir.ops.shape import SliceAttributes
from convc.ir.types import Shape, TensorType

__all__ = ["Index", "resolve_index"]

Index: TypeAlias = int | slice | EllipsisType


def _bounds(entry: object, axis: int, extent: int) -> tuple[int, int, int]:
    if isinstance(entry, slice):
        for part in (entry.start, entry.stop, entry.step):
            if not (part is None or is_whole(part)):
                raise DTypeError(f"slice must have whole numbers on axis {axis}; got {entry}.")
        if entry.step is not None and entry.step < 1:
            raise ShapeError(f"slice step must be positive on axis {axis}; got {entry.step}.")
        begin, end, step = entry.indices(extent)
        return begin, max(begin, end), step
    if is_whole(entry):
        place = int(entry) + extent if entry < 0 else int(entry)
        if not 0 <= place < extent:
            raise ShapeError(f"index must be in [{-extent}, {extent}) on axis {axis}; got {entry}.")
        return place, place + 1, 1
    raise ShapeError(f"index must be integers, slices and '...'; got {entry!r} on axis {axis}.")


def resolve_index(index: tuple[Index, ...], type: TensorType) -> tuple[SliceAttributes, Shape]:
    """Return the box that an index selects, and its shape without the axes that integers drop.

    Raises:
        DTypeError: for a slice of something else than whole numbers.
        ShapeError: for more entries than axes, an integer outside the axis, a step below 1, or what is no index.

    Example:
        >>> resolve_index((0, ..., slice(1, None)), TensorType((2, 3, 5)))
        (SliceAttributes(begins=(0, 0, 1), ends=(1, 3, 5), steps=(1, 1, 1)), (3, 4))
    """
    dots = [k for k, i in enumerate(index) if isinstance(i, EllipsisType)]
    given = [i for i in index if not isinstance(i, EllipsisType)]
    if len(given) > type.rank or len(dots) > 1:
        raise ShapeError(
            f"index must have at most {type.rank} entries and one '...' for {type}; "
            f"got {len(given)} entries and {len(dots)} '...'."
        )
    at = dots[0] if dots else len(given)
    entries = [*given[:at], *[slice(None)] * (type.rank - len(given)), *given[at:]]
    bounds = [_bounds(e, axis, type.shape[axis]) for axis, e in enumerate(entries)]
    attributes = SliceAttributes(
        tuple(b for b, _, _ in bounds),
        tuple(e for _, e, _ in bounds),
        tuple(s for _, _, s in bounds),
    )
    kept = [b for b, entry in zip(bounds, entries, strict=True) if isinstance(entry, slice)]
    return attributes, tuple(-(-(e - b) // s) for b, e, s in kept)
