"""bfloat16 as its bits, in integers: TVM 0.27 cannot store vectors of it ("dtype mismatch on BufferStore")."""

from __future__ import annotations

from typing import Any, Final

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call

__all__ = ["SUMS", "lanes_of", "rounded", "unrounded", "widened"]

# Attribute of functions whose results are sums: nearer to zero than 2^-126 they may become zero.
SUMS: Final = "convc.sums"


def lanes_of(value: Any) -> str:
    """Return what stands behind the element type of a value: `x16` of a vector."""
    lanes = tvm.DataType(str(value.ty.dtype)).lanes
    return f"x{lanes}" if lanes > 1 else ""


def widened(value: Any) -> Any:
    """Return the float32 of bits."""
    lanes = lanes_of(value)
    whole = tirx.Cast(f"uint32{lanes}", value) << tirx.const(16, f"uint32{lanes}")
    return tirx.reinterpret(f"float32{lanes}", whole)


def rounded(value: Any) -> Any:
    """Return the bits of a float32 rounded to nearest, ties to even; a NaN stays one."""
    lanes = lanes_of(value)

    def bits(n: int) -> Any:
        return tirx.const(n, f"uint32{lanes}")

    whole = tirx.reinterpret(f"uint32{lanes}", value)
    odd = (whole >> bits(16)) & bits(1)
    nearest = (whole + bits(0x7FFF) + odd) >> bits(16)
    # The payload may lie in the bits that are cut off.
    quiet = (whole >> bits(16)) | bits(0x40)
    is_nan = (whole & bits(0x7FFFFFFF)) > bits(0x7F800000)
    return tirx.Cast(f"uint16{lanes}", tirx.Select(is_nan, quiet, nearest))


def unrounded(node: Any) -> Any | None:
    """Return what `rounded` has made a cast of; None of any other.

    Example:
        >>> x = tirx.Var("x", "float32")
        >>> unrounded(rounded(x)).same_as(x), unrounded(tirx.Cast("uint16", x))
        (True, None)
    """
    select = node.value
    if not isinstance(select, tirx.Select) or not isinstance(select.condition, tirx.GT):
        return None
    masked = select.condition.a
    if not isinstance(masked, tirx.BitwiseAnd) or not isinstance(masked.a, Call):
        return None
    value = masked.a.args[0]
    return value if tvm_ffi.structural_equal(node, rounded(value)) else None
