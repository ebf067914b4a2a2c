"""Comparisons, logic, bits, choice and casts: elementwise ops whose operands or results are no floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.ops.elementwise import NoAttributes
from convc.ir.types import FLOATS, TensorType, numpy_dtype

__all__ = [
    "COMPARISONS",
    "ROWS",
    "BitCastAttributes",
    "CastAttributes",
    "InfinityAttributes",
    "broadcast",
]


@dataclass(frozen=True, slots=True)
class CastAttributes(Attributes):
    """The element type to convert to: floats to integers towards zero, anything to bool by `!= 0`."""

    dtype: str


@dataclass(frozen=True, slots=True)
class InfinityAttributes(Attributes):
    """Which infinities count."""

    negative: bool = True
    positive: bool = True


COMPARISONS: Final[dict[str, Callable[[Array, Array], Array]]] = {
    "equal": np.equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
}
_LOGIC: Final[dict[str, Callable[[Array, Array], Array]]] = {
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}


def _shifted(left: bool) -> Callable[[Array, Array], Array]:
    """Return the shift whose distance, negative or not below the width, shifts every bit out."""

    def function(a: Array, b: Array) -> Array:
        bits = 8 * a.dtype.itemsize
        inside = (b >= 0) & (b < bits)
        distance = np.where(inside, b, 0).astype(a.dtype)
        if left:
            return np.where(inside, np.left_shift(a, distance), 0).astype(a.dtype)
        out = np.where(a < 0, -1, 0)
        return np.where(inside, np.right_shift(a, distance), out).astype(a.dtype)

    return function


_BITS: Final[dict[str, Callable[[Array, Array], Array]]] = {
    "bit_and": np.bitwise_and,
    "bit_or": np.bitwise_or,
    "bit_xor": np.bitwise_xor,
    "shift_left": _shifted(True),
    "shift_right": _shifted(False),
}


def broadcast(name: str, types: Sequence[TensorType], dtype: str) -> TensorType:
    """Return the broadcast type of all operands, with the given element type.

    Raises:
        ShapeError: if they do not broadcast.
    """
    try:
        shape = np.broadcast_shapes(*(t.shape for t in types))
    except ValueError:
        listed = ", ".join(map(str, types))
        raise ShapeError(f"{name} operands must broadcast; got {listed}.") from None
    return TensorType(tuple(map(int, shape)), dtype)


def _same(name: str, a: TensorType, b: TensorType) -> None:
    if a.dtype != b.dtype:
        raise DTypeError(f"{name} operands must have one element type; got {a} and {b}.")


def _infer_comparison(name: str) -> Callable[[Sequence[TensorType], Any], TensorType]:
    def infer(types: Sequence[TensorType], attributes: Any) -> TensorType:
        _same(name, *types)
        return broadcast(name, types, "bool")

    return infer


def _infer_of_kind(
    name: str, fits: Callable[[TensorType], bool], kind: str
) -> Callable[[Sequence[TensorType], Any], TensorType]:
    def infer(types: Sequence[TensorType], attributes: Any) -> TensorType:
        for t in types:
            if not fits(t):
                raise DTypeError(f"{name} operands must have {kind} type; got {t}.")
        if len(types) == 2:
            _same(name, *types)
        return broadcast(name, types, types[0].dtype)

    return infer


def _is_bool(t: TensorType) -> bool:
    return t.dtype == "bool"


def _is_integer(t: TensorType) -> bool:
    return t.dtype != "bool" and not t.is_float


def _infer_where(types: Sequence[TensorType], attributes: Any) -> TensorType:
    condition, a, b = types
    if condition.dtype != "bool":
        raise DTypeError(f"where condition must be bool; got {condition}.")
    _same("where", a, b)
    return broadcast("where", types, a.dtype)


def _infer_cast(types: Sequence[TensorType], a: CastAttributes) -> TensorType:
    numpy_dtype(a.dtype)  # raises for a type that convc lacks
    return TensorType(types[0].shape, a.dtype)


def _cast_reference(arrays: Sequence[Array], a: CastAttributes) -> Array:
    x = arrays[0]
    if a.dtype == "bool":
        return x != 0
    if a.dtype in FLOATS:
        return x.astype(np.float64)  # the oracle rounds nothing
    # A negative float has no unsigned neighbour: go through the widest integer, as the kernels do.
    wide = np.trunc(x).astype(np.int64) if x.dtype.kind == "f" else x
    return wide.astype(numpy_dtype(a.dtype))


@dataclass(frozen=True, slots=True)
class BitCastAttributes(Attributes):
    """The element type that the bits are of, and the one they are read as."""

    source: str
    dtype: str


def _infer_bit_cast(types: Sequence[TensorType], a: BitCastAttributes) -> TensorType:
    if (
        types[0].dtype != a.source
        or numpy_dtype(a.source).itemsize != numpy_dtype(a.dtype).itemsize
    ):
        raise DTypeError(
            f"bit_cast must keep the width of {a.source} data; got {types[0]} and {a.dtype}."
        )
    if "bool" in (a.source, a.dtype):
        raise DTypeError(f"bit_cast must be between numbers; got {a.source} and {a.dtype}.")
    return TensorType(types[0].shape, a.dtype)


def _bit_cast_reference(arrays: Sequence[Array], a: BitCastAttributes) -> Array:
    with np.errstate(all="ignore"):  # narrowing NaN, infinity and what is too large is no mistake
        narrow = np.ascontiguousarray(arrays[0].astype(numpy_dtype(a.source)))
    found = narrow.view(numpy_dtype(a.dtype)).reshape(arrays[0].shape)
    return found.astype(np.float64) if a.dtype in FLOATS else found


def _infer_is(types: Sequence[TensorType], attributes: Any) -> TensorType:
    if not types[0].is_float:
        raise DTypeError(f"is_nan and is_inf operands must have a float type; got {types[0]}.")
    return TensorType(types[0].shape, "bool")


def _is_inf(arrays: Sequence[Array], a: InfinityAttributes) -> Array:
    x = arrays[0]
    return (a.negative & (x == -np.inf)) | (a.positive & (x == np.inf))


def _infer_mod(types: Sequence[TensorType], attributes: Any) -> TensorType:
    if any(_is_bool(t) for t in types):
        raise DTypeError(f"mod operands must have a number type; got {types[0]} and {types[1]}.")
    _same("mod", *types)
    return broadcast("mod", types, types[0].dtype)


def _two(function: Callable[[Array, Array], Array]) -> Callable[[Sequence[Array], Any], Array]:
    return lambda arrays, attributes: function(*arrays)


def _row(
    name: str,
    arity: int,
    infer: Any,
    reference: Any,
    attributes: Any = NoAttributes,
    floats: Floats = Floats.WIDE,
) -> OpDef:
    return OpDef(name, attributes, (arity, arity), infer, reference, True, floats)


ROWS: Final = (
    *(
        _row(n, 2, _infer_comparison(n), _two(f), floats=Floats.NEUTRAL)
        for n, f in COMPARISONS.items()
    ),
    *(_row(n, 2, _infer_of_kind(n, _is_bool, "a bool"), _two(f)) for n, f in _LOGIC.items()),
    *(_row(n, 2, _infer_of_kind(n, _is_integer, "an integer"), _two(f)) for n, f in _BITS.items()),
    _row(
        "logical_not",
        1,
        _infer_of_kind("logical_not", _is_bool, "a bool"),
        lambda arrays, a: np.logical_not(arrays[0]),
    ),
    _row(
        "bit_not",
        1,
        _infer_of_kind("bit_not", _is_integer, "an integer"),
        lambda arrays, a: np.bitwise_not(arrays[0]),
    ),
    # mod has the sign of the divisor (Python's), fmod that of the dividend (C's).
    _row("mod", 2, _infer_mod, _two(np.mod)),
    _row("fmod", 2, _infer_mod, _two(np.fmod)),
    _row("where", 3, _infer_where, lambda arrays, a: np.where(*arrays), floats=Floats.NEUTRAL),
    _row("cast", 1, _infer_cast, _cast_reference, CastAttributes),
    _row(
        "bit_cast", 1, _infer_bit_cast, _bit_cast_reference, BitCastAttributes, floats=Floats.FIXED
    ),
    _row("is_nan", 1, _infer_is, lambda arrays, a: np.isnan(arrays[0]), floats=Floats.NEUTRAL),
    _row("is_inf", 1, _infer_is, _is_inf, InfinityAttributes, floats=Floats.NEUTRAL),
)
