"""Theano's border modes, and what every convolution of this package checks before it builds anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from convc.errors import DTypeError, ShapeError
from convc.frontend.dsl.arguments import is_whole, listed, whole, whole_numbers
from convc.frontend.dsl.tensor import Operand, Tensor, as_tensor
from convc.ir.ops.conv import accumulator
from convc.ir.types import FLOATS, Shape, TensorType, dtype_name

__all__ = [
    "BorderMode",
    "DeclaredShape",
    "Extent",
    "axis_pads",
    "border_mode_to_pad",
    "check_declared",
    "dilated",
    "extent",
    "extents",
    "float_tensor",
    "ir_pads",
    "per_axis",
    "sum_type",
]

BorderMode: TypeAlias = str | int | Sequence[int | Sequence[int]]
Extent: TypeAlias = int | None
DeclaredShape: TypeAlias = Sequence[Extent] | None

_MODES = "'valid', 'full', 'half', an int >= 0, or one int or pair of ints >= 0 per axis"


def dilated(kernel: int, dilation: int) -> int:
    """Return the extent that a dilated filter covers."""
    return (kernel - 1) * dilation + 1


def axis_pads(mode: object, covered: int) -> tuple[int, int]:
    """Return the zeros before and after one axis.

    Args:
        mode: 'valid', 'full', 'half', an int, or a pair (before, after).
        covered: extent of the dilated filter.

    Raises:
        ShapeError: for any other mode.

    Example:
        >>> [axis_pads(m, 4) for m in ("valid", "full", "half", 1, (0, 2))]
        [(0, 0), (3, 3), (2, 2), (1, 1), (0, 2)]
    """
    if isinstance(mode, str):
        named = {"valid": 0, "full": covered - 1, "half": covered // 2}
        if mode in named:
            return named[mode], named[mode]
    elif is_whole(mode) and mode >= 0:
        return int(mode), int(mode)
    elif (
        isinstance(mode, Sequence) and len(mode) == 2 and all(is_whole(m) and m >= 0 for m in mode)
    ):
        return int(mode[0]), int(mode[1])
    raise ShapeError(f"border_mode must be {_MODES}; got {mode!r}.")


def border_mode_to_pad(
    mode: BorderMode, convdim: int, kshp: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Return (before, after) for each spatial axis.

    Args:
        mode: 'valid' (no zeros), 'full' (one less than the filter on both sides), 'half' (half the filter on both sides: an even
            filter makes the output one larger than the input), an int for all sides, or one int or pair per axis.
        convdim: number of spatial axes.
        kshp: extents of the filter, already dilated.

    Raises:
        ShapeError: for any other mode, and another number of extents.
        DTypeError: for extents that are no whole numbers.

    Example:
        >>> border_mode_to_pad((1, (0, 2)), 2, (3, 3))
        ((1, 1), (0, 2))
    """
    covered = whole_numbers("kshp", kshp, whole("convdim", convdim))
    if isinstance(mode, Sequence) and not isinstance(mode, str):
        if len(mode) != convdim:
            raise ShapeError(
                f"border_mode must have {convdim} entries for {convdim} spatial axes; got {mode!r}."
            )
        return tuple(axis_pads(m, k) for m, k in zip(mode, covered, strict=True))
    return tuple(axis_pads(mode, k) for k in covered)


def ir_pads(pairs: Sequence[tuple[int, int]]) -> Shape:
    """Return all beginnings, then all ends.

    Example:
        >>> ir_pads(((1, 2), (3, 4)))
        (1, 3, 2, 4)
    """
    return (*(b for b, _ in pairs), *(e for _, e in pairs))


def per_axis(name: str, value: object, rank: int, *, least: int = 1) -> Shape:
    """Return one number per axis, none below `least`; one number stands for all.

    Raises:
        DTypeError: for what are no whole numbers.
        ShapeError: for another count, or a smaller number.
    """
    values = (int(value),) * rank if is_whole(value) else whole_numbers(name, value)
    if len(values) != rank or any(v < least for v in values):
        raise ShapeError(f"{name} must be {rank} numbers >= {least}; got {value!r}.")
    return values


def extent(name: str, value: object, least: int | None = None) -> Extent:
    """Return a whole number, of `least` or more, or None for one that is not known.

    Raises:
        DTypeError: for anything else.
        ShapeError: for a smaller number.
    """
    if value is None:
        return None
    known = whole(name, value)
    if least is not None and known < least:
        raise ShapeError(f"{name} must be >= {least}, or None where it is not known; got {known}.")
    return known


def extents(name: str, value: object, count: int | None = None) -> tuple[Extent, ...]:
    """Return a shape as far as it is known: whole numbers, and None for the others; `count` of them, if that is given.

    Raises:
        DTypeError: for anything else.
        ShapeError: for another count.

    Example:
        >>> extents("input_shape", [None, 3, 8])
        (None, 3, 8)
    """
    given = listed(value)
    if given is None or not all(d is None or is_whole(d) for d in given):
        raise DTypeError(
            f"{name} must be whole numbers, None where one is not known; got {value!r}."
        )
    if count not in (None, len(given)):
        raise ShapeError(f"{name} must have {count} entries; got {value!r}.")
    return tuple(None if d is None else int(d) for d in given)


def check_declared(name: str, declared: DeclaredShape, actual: Sequence[int]) -> None:
    """Raise ShapeError unless a declared shape is the actual one; None, as a whole or for an axis, says nothing.

    Example:
        >>> check_declared("input_shape", (None, 3, 8, 8), (2, 3, 8, 8))
    """
    if declared is None:
        return
    wanted = extents(name, declared)
    agree = len(wanted) == len(actual) and all(
        d is None or d == a for d, a in zip(wanted, actual, strict=True)
    )
    if not agree:
        raise ShapeError(
            f"{name} must be the operand's shape, None where it is not known; got {wanted} for {tuple(actual)}."
        )


def float_tensor(name: str, operand: Operand, like: Operand | None = None) -> Tensor:
    """Return the operand as a tensor of floats; an array takes the element type of `like`, if that is a tensor.

    Raises:
        DTypeError: for integers and booleans.
    """
    tensor = as_tensor(operand, like.dtype if isinstance(like, Tensor) else None)
    if tensor.dtype not in FLOATS:
        type: TensorType = tensor.node.type
        raise DTypeError(
            f"{name} must have a float type, {', '.join(FLOATS)}; got {type}. "
            "Sums of products of integers overflow their type or need a scale to come back to it, and this function has neither: "
            "convert to a float type first."
        )
    return tensor


def sum_type(precision: str | None, dtype: str) -> str:
    """Return the IR's `accumulate` for Theano's `precision`.

    Args:
        precision: None or 'as_input_f32' (float32 for narrower operands), 'as_input', or an element type.
        dtype: the operands'.

    Example:
        >>> sum_type(None, "float16"), sum_type("as_input", "float16"), sum_type("float64", "float32")
        ('', 'float16', 'float64')
    """
    named = precision if isinstance(precision, str | None) else dtype_name(precision)
    if named is None or named == "as_input_f32":
        return ""
    wanted = dtype if named == "as_input" else dtype_name(named)
    return "" if wanted == accumulator(dtype) else wanted
