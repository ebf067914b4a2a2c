"""Floats as bytes: to nearest, ties to even, saturated, in operations that stay vectors.

nearbyint does not: TVM makes a loop over a vector's elements of it, and LLVM gathers and moves of single bytes of that. Quantising
2e6 floats in blocks of 16 channels took 2.5 ms on a core of a Zen 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from tvm import tirx
from tvm.ir import Call

__all__ = ["Rounded", "rounded", "rounded_bits", "unrounded", "whole"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27

# The unit in the last place of floats this large is 1, up to 2^22 on both sides. The last byte of its bits is 0.
_MAGIC: Final = 1.5 * 2**23
_MAGIC_BITS: Final = 0x4B400000


def rounded_bits(y: Expr, least: Expr, greatest: Expr) -> Expr:
    """Return the bits of 1.5 2^23 + round(y), within whole bounds: those of 1.5 2^23 and, added to them, the whole number.

    Greater floats have greater bits, so the upper bound may come last. The lower one stands between a product and a sum, which else would
    be one multiply-add: ONNX Runtime rounds both. It also takes NaN, which no comparison is true of: `least`, as in ONNX Runtime.

    Args:
        y: a float32.
        least: a whole number, float32, of at most 2^22.
        greatest: likewise.
    """
    bits = tirx.reinterpret("int32", tirx.max(y, least) + _magic())
    # Not the bits of greatest + 1.5 2^23: CUDA's code generator takes the address of what it reinterprets, and a constant has none.
    return tirx.min(bits, greatest.astype("int32") + tirx.const(_MAGIC_BITS, "int32"))


def whole(bits: Expr) -> Expr:
    """Return the whole number of `rounded_bits` as a float32."""
    return tirx.reinterpret("float32", bits) - _magic()


def rounded(y: Expr, zero: Expr, least: int, greatest: int, dtype: str) -> Expr:
    """Return round(y) + zero within bounds, as an integer of a byte; `zero` is a whole float32."""
    ends = (tirx.const(float(end), "float32") - zero for end in (least, greatest))
    return (rounded_bits(y, *ends) + zero.astype("int32")).astype(dtype)


def _magic() -> Expr:
    return tirx.const(_MAGIC, "float32")


@dataclass(frozen=True, slots=True)
class Rounded:
    """What `rounded` has made bytes of: round(value) + zero, within bounds, in `dtype`."""

    value: Expr
    zero: int
    least: int
    greatest: int
    dtype: str


def unrounded(node: Expr) -> Rounded | None:
    """Return what `rounded` with constant bounds has made an expression, or a vector, of; also where some lanes are 0 instead.

    Example:
        >>> y = tirx.Var("y", "float32")
        >>> found = unrounded(rounded(y, tirx.const(3.0, "float32"), 0, 255, "uint8"))
        >>> found.value.same_as(y), found.zero, found.least, found.greatest
        (True, 3, 0, 255)
    """
    if isinstance(node, tirx.Select):
        found = unrounded(node.true_value)
        if found is None or _constant(node.false_value) != 0 or not found.least <= 0 <= found.greatest:  # fmt: skip
            return None
        nothing = tirx.const(-float(found.zero), str(found.value.ty.dtype))
        return replace(found, value=tirx.Select(node.condition, found.value, nothing))
    if not isinstance(node, tirx.Cast):
        return None
    dtype = str(node.ty.dtype).partition("x")[0]
    bits, zero = node.value, 0
    if isinstance(bits, tirx.Add | tirx.Sub):
        added = _constant(bits.b)
        if added is None:
            return None
        bits, zero = bits.a, int(added) if isinstance(bits, tirx.Add) else -int(added)
    parts = _bounded(bits)
    if parts is None:
        return None
    value, least, greatest = parts
    return Rounded(value, zero, least + zero, greatest + zero, dtype)


def _bounded(bits: Expr) -> tuple[Expr, int, int] | None:
    """Return (y, least, greatest) of what `rounded_bits` has returned."""
    if not isinstance(bits, tirx.Min) or (greatest := _constant(bits.b)) is None:
        return None
    call = bits.a
    if not isinstance(call, Call) or call.op.name != "tirx.reinterpret":
        return None
    total = call.args[0]
    if not isinstance(total, tirx.Add) or _constant(total.b) != _MAGIC:
        return None
    if not isinstance(total.a, tirx.Max) or (least := _constant(total.a.b)) is None:
        return None
    return total.a.a, int(least), int(greatest) - _MAGIC_BITS


def _constant(value: Expr) -> float | None:
    """Return the number that an expression is, in every lane of a vector."""
    if isinstance(value, tirx.Broadcast):
        value = value.value
    return value.value if isinstance(value, tirx.IntImm | tirx.FloatImm) else None
