"""What every part of a manifest must keep to; `manifest.check` applies it to the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from convc.errors import DTypeError, PackageError
from convc.ir.resampling import COORDINATES, MODES, ROUNDINGS
from convc.ir.types import numpy_dtype

if TYPE_CHECKING:
    from convc.runtime.manifest_parts import Argument, Resampling, Tensor

__all__ = ["SPACES", "check_argument", "check_count", "check_counts", "check_type"]

SPACES: Final = ("input", "output", "weights", "arena")


def check_argument(subject: str, argument: Argument, sizes: Mapping[str, list[int]]) -> None:
    """Raise PackageError unless a step's argument lies inside its buffer, which `sizes` gives the bytes of."""
    if argument.space not in SPACES:
        raise PackageError(
            f"{subject} must be in one of {', '.join(SPACES)}; got '{argument.space}'."
        )
    check_type(subject, argument.shape, argument.dtype)
    if argument.strides and (
        len(argument.strides) != len(argument.shape) or min(argument.strides) < 0
    ):
        raise PackageError(
            f"{subject} must have one stride >= 0 per dimension of {argument.shape}; got {argument.strides}."
        )
    buffers = sizes[argument.space]
    if not 0 <= argument.index < len(buffers):
        raise PackageError(
            f"{subject} must name one of {len(buffers)} {argument.space} buffers; got index {argument.index}."
        )
    # A window inside a halo begins between two aligned addresses.
    itemsize = numpy_dtype(argument.dtype).itemsize
    if argument.offset < 0 or argument.offset % itemsize:
        raise PackageError(
            f"{subject} must start at a multiple of {itemsize} bytes; got {argument.offset}."
        )
    end, size = argument.offset + argument.extent, buffers[argument.index]
    if end > size:
        raise PackageError(
            f"{subject} must end within {size} bytes of {argument.space}; got {end}."
        )


def check_type(subject: str, shape: tuple[int, ...], dtype: str) -> None:
    """Raise PackageError for an element type or a shape that there is not."""
    try:
        numpy_dtype(dtype)
    except DTypeError as error:
        raise PackageError(f"{subject}: {error}") from None
    if any(size < 0 for size in shape):
        raise PackageError(f"{subject} must have sizes >= 0; got shape {shape}.")


def check_count(field: str, value: int, least: int = 0) -> None:
    """Raise PackageError if a number is below the least that it may be."""
    if value < least:
        raise PackageError(f"module's {field} must be at least {least}; got {value}.")


def check_counts(outputs: Sequence[Tensor]) -> None:
    """Raise PackageError unless what counts an output is an int64 scalar, and what is counted has the axis."""
    counts = [t.name for t in outputs if (t.shape, t.dtype, t.count) == ((), "int64", "")]
    for tensor in outputs:
        if tensor.count and not (
            tensor.count in counts and 0 <= tensor.axis < len(tensor.shape) and not tensor.rows
        ):
            raise PackageError(
                f"output '{tensor.name}' must be counted by an int64 scalar along one of its axes; got '{tensor.count}' and {tensor.axis}."
            )


def check_resampling(
    row: Resampling, shapes: Mapping[str, tuple[int, ...]], area: tuple[int, int]
) -> None:
    """Raise PackageError unless a table of a known rule can be made, in its place, for each size of an area."""
    subject = f"resampling of '{row.places}'"
    if row.axis not in (2, 3) or row.coordinate not in COORDINATES or row.rounding not in ROUNDINGS:
        raise PackageError(f"{subject} must have a known rule; got {row.axis}, {row.coordinate}, {row.rounding}.")  # fmt: skip
    if row.mode not in MODES or not 0 <= row.scale < float("inf"):
        raise PackageError(f"{subject} must have a mode of {', '.join(MODES)} and a scale; got {row.mode}, {row.scale}.")  # fmt: skip
    size, shape = area[row.axis - 2], shapes[row.places]
    if (
        len(row.extents) != size
        or len(row.results) != size
        or len(shape) != 2
        or shapes[row.weights] != shape
    ):
        raise PackageError(f"{subject} must have an extent for each of {size} sizes and two tables alike; got {len(row.extents)}, {len(row.results)}, {shape}.")  # fmt: skip
    if any(
        not 0 <= r <= shape[0] or r > 0 >= e for e, r in zip(row.extents, row.results, strict=True)
    ):
        raise PackageError(f"{subject} must have results of at most {shape[0]} places from operands that have some; got {max(row.results)}.")  # fmt: skip
