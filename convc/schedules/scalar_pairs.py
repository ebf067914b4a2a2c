"""Tensor-expression forms of the scalar functions of two operands of `ir.ops.elementwise`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from tvm import te, tirx, topi

from convc.ir.types import FLOATS, numpy_dtype
from convc.schedules.scalar import map_elements

__all__ = ["BINARY", "is_nan"]

Tensor = te.Tensor
Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def _subtract(a: Tensor, b: Tensor) -> Tensor:
    """Return a - b, of floats as a + -b: TVM makes 0 of x - x and a of (a + b) - b, where infinity and NaN give NaN.

    LLVM makes a subtraction of it again.
    """
    return topi.add(a, topi.negative(b)) if a.dtype in FLOATS else topi.subtract(a, b)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, of integers towards zero, 0 for a divisor of 0: the processor stops a program that divides by 0."""
    if a.dtype in FLOATS:
        return topi.divide(a, b)
    zero, one = tirx.const(0, a.dtype), tirx.const(1, a.dtype)
    if str(a.dtype).startswith("u"):
        safe = map_elements(b, lambda v: tirx.Select(v == zero, one, v))
        sign = map_elements(b, lambda v: tirx.Select(v == zero, zero, one))
        return topi.multiply(topi.divide(a, safe), sign)
    # The least integer has no negative, so -1 is no divisor either.
    minus = tirx.const(-1, a.dtype)
    safe = map_elements(b, lambda v: tirx.Select(tirx.any(v == zero, v == minus), one, v))
    sign = map_elements(b, lambda v: tirx.Select(tirx.any(v == zero, v == minus), v, one))
    return topi.multiply(topi.divide(a, safe), sign)


def _power(a: Tensor, b: Tensor) -> Tensor:
    """Return a^b; integers through float64, exact to 2^53."""
    if a.dtype in FLOATS:
        return topi.power(a, b)
    return topi.cast(topi.power(topi.cast(a, "float64"), topi.cast(b, "float64")), a.dtype)


def is_nan(v: Expr, dtype: str) -> Expr:
    """Return whether a float is NaN, by its bits: TVM's isnan becomes an ordered comparison in vectors, which no NaN passes."""
    held = numpy_dtype(dtype)
    bits = f"int{8 * held.itemsize}"
    magnitude = tirx.bitwise_and(
        tirx.reinterpret(bits, v), tirx.const(int(np.iinfo(bits).max), bits)
    )
    return magnitude > tirx.const(int(np.array(np.inf, held).view(bits)), bits)


def _broadcast(a: Tensor, b: Tensor, function: Callable[[Expr, Expr], Expr]) -> Tensor:
    """Return the tensor of `function` of each pair of elements; operands broadcast as NumPy's do."""
    extents = [[int(n) for n in x.shape] for x in (a, b)]

    def element(x: Tensor, own: Sequence[int], index: Sequence[Expr]) -> Expr:
        last = index[len(index) - len(own) :]
        return x(*(tirx.const(0, "int32") if n == 1 else i for n, i in zip(own, last, strict=True)))

    return te.compute(
        np.broadcast_shapes(*extents),
        lambda *i: function(element(a, extents[0], i), element(b, extents[1], i)),
        name="pairs",
    )


def _extreme(above: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the greater or the lesser of two elements, NaN where one is: a NaN in `a` stays by the comparison's order."""

    def element(a: Expr, b: Expr, narrow: str) -> Expr:
        if narrow not in FLOATS:
            return tirx.max(a, b) if above else tirx.min(a, b)
        # TVM stores no choice in bfloat16.
        wide = "float32" if narrow == "bfloat16" else narrow
        nan, a, b = is_nan(b, narrow), a.astype(wide), b.astype(wide)
        taken = tirx.Select(a < b if above else a > b, b, a)
        return tirx.Select(nan, b, taken).astype(narrow)

    return lambda a, b: _broadcast(a, b, lambda v, w: element(v, w, str(a.dtype)))


BINARY: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "add": topi.add,
    "sub": _subtract,
    "mul": topi.multiply,
    "div": _divide,
    "pow": _power,
    "maximum": _extreme(above=True),
    "minimum": _extreme(above=False),
}
