"""Arguments as they are meant: what is no number, no whole number or no array of numbers is refused by the argument's name.

NumPy's numbers count as Python's; True and False are none. Nothing is rounded: `strides=2.5` is a mistake, not 2.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final, TypeGuard

import numpy as np
from numpy.typing import DTypeLike

from convc.errors import DTypeError, ShapeError, unknown_name
from convc.ir.ops.definition import Array
from convc.ir.types import dtype_name, numpy_dtype

__all__ = [
    "as_array",
    "axis_number",
    "axis_numbers",
    "flag",
    "is_one_of",
    "is_whole",
    "listed",
    "number",
    "one_of",
    "whole",
    "whole_numbers",
]


# Kinds of NumPy's types that it makes numbers of by dropping, parsing or counting: complex numbers, dates, texts.
_NOT_NUMBERS: Final = "cmMSU"


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, Python's or NumPy's; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_one_of(value: object, known: Collection[str]) -> TypeGuard[str]:
    """Whether a value is one of the names; what is no text is none of them, whatever it says of being equal to one."""
    return isinstance(value, str) and value in known


def listed(value: object) -> list[Any] | None:
    """Return the entries of a list, a tuple or anything else that has some; None for texts and what has none.

    Example:
        >>> listed((1, "a")), listed("ab"), listed(np.array(1))
        ([1, 'a'], None, None)
    """
    if isinstance(value, str | bytes) or (isinstance(value, np.ndarray) and not value.ndim):
        return None
    return list(value) if isinstance(value, Iterable) else None


def whole(argument: str, value: object) -> int:
    """Return a whole number.

    Raises:
        DTypeError: for anything else.

    Example:
        >>> whole("group", np.int64(4))
        4
    """
    if not is_whole(value):
        raise DTypeError(f"{argument} must be a whole number; got {value!r}.")
    return int(value)


def whole_numbers(argument: str, value: object, count: int | None = None) -> tuple[int, ...]:
    """Return whole numbers, `count` of them; however many there are, where it is left out.

    Raises:
        DTypeError: for what is no list of them.
        ShapeError: for another count.

    Example:
        >>> whole_numbers("shape", [2, np.int32(3)])
        (2, 3)
    """
    given = listed(value)
    if given is None or not all(map(is_whole, given)):
        raise DTypeError(f"{argument} must be whole numbers; got {value!r}.")
    if count not in (None, len(given)):
        raise ShapeError(f"{argument} must be {count} numbers; got {value!r}.")
    return tuple(map(int, given))


def number(argument: str, value: object) -> float:
    """Return a number, which may be infinite.

    Raises:
        DTypeError: for anything else.

    Example:
        >>> number("alpha", np.float16(0.5))
        0.5
    """
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        raise DTypeError(f"{argument} must be a number; got {value!r}.")
    try:
        return float(value)
    except OverflowError:
        raise DTypeError(f"{argument} must be a number that float64 holds; got {value}.") from None


def one_of(argument: str, value: object, known: Collection[str]) -> str:
    """Return a name that is known.

    Raises:
        UnknownNameError: for anything else.

    Example:
        >>> one_of("mode", "max", ("max", "sum"))
        'max'
    """
    if not is_one_of(value, known):
        raise unknown_name(argument, str(value), known)
    return value


def flag(argument: str, value: object) -> bool:
    """Return True or False, which 1 and 0 stand for, too.

    Raises:
        DTypeError: for anything else.

    Example:
        >>> flag("filter_flip", np.True_)
        True
    """
    if not (isinstance(value, bool | np.bool_) or (is_whole(value) and value in (0, 1))):
        raise DTypeError(f"{argument} must be True or False; got {value!r}.")
    return bool(value)


def axis_number(argument: str, value: object, rank: int) -> int:
    """Return an axis of `rank`, counted from the front; a negative one counts from the end.

    Raises:
        DTypeError, ShapeError: for what is no whole number, and for one that is no axis.

    Example:
        >>> axis_number("axis", -1, 4)
        3
    """
    axis = whole(argument, value)
    if not -rank <= axis < rank:
        raise ShapeError(f"{argument} must be in [{-rank}, {rank}); got {axis}.")
    return axis % rank


def axis_numbers(argument: str, value: object, rank: int) -> tuple[int, ...]:
    """Return axes of `rank` from one or several, counted from the front.

    Raises:
        DTypeError, ShapeError: as `axis_number`.

    Example:
        >>> axis_numbers("axes", (0, -1), 4), axis_numbers("axes", 1, 4)
        ((0, 3), (1,))
    """
    given = (value,) if is_whole(value) else whole_numbers(argument, value)
    return tuple(axis_number(argument, axis, rank) for axis in given)


def as_array(value: object, dtype: DTypeLike | None = None) -> Array:
    """Return a copy of what NumPy can make an array of.

    Raises:
        DTypeError: for what is no array of numbers, or has one that `dtype` cannot hold.

    Example:
        >>> as_array([[1, 2]], "float32").shape
        (1, 2)
    """
    wanted = None if dtype is None else numpy_dtype(dtype_name(dtype))
    try:
        array = np.array(value)
        if wanted is not None and array.dtype.kind not in _NOT_NUMBERS:
            array = np.array(value, wanted)
    except (TypeError, ValueError, OverflowError) as error:
        held = f" that {wanted} holds" if wanted else ""
        raise DTypeError(f"operand must be a tensor, or numbers{held}; got {value!r}.") from error
    # Its own type must be one of ours, too.
    dtype_name(array.dtype)
    return array
