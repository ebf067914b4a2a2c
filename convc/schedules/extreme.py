"""Greatest and least elements: as TVM's, but that of nothing is an infinity and not the largest finite number, and NaN is ignored.

TVM's own `max` begins with -3.4e38, so that a row of nothing but -inf would give that: a fully masked row of attention was then not
recognised as one, and its NaN stayed.

x86's `vmaxps` gives its second operand where one is NaN, as does a > b ? a : b: with the running extreme behind the element NaN never gets
into it. The other way round, as TVM has it, NaN took the place of all elements before it: the greatest of 5, NaN, 1 was 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import tvm
from tvm import te, tirx

from convc.ir.types import numpy_dtype

__all__ = ["greatest", "greatest_of", "highest", "least", "least_of", "lowest"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def lowest(dtype: str) -> Expr:
    """Return what no element is below: -inf, or the least integer."""
    return _limit(dtype, -float("inf")) if _is_float(dtype) else te.min_value(dtype)


def highest(dtype: str) -> Expr:
    """Return what no element is above: inf, or the greatest integer."""
    return _limit(dtype, float("inf")) if _is_float(dtype) else te.max_value(dtype)


def _is_float(dtype: str) -> bool:
    return "float" in dtype


def _limit(dtype: str, value: float) -> Expr:
    if dtype == "bfloat16":
        # TVM has no constant of an infinity in bfloat16, folds a cast into one, and prints that as C that nvcc refuses.
        bits = int(np.array(value, numpy_dtype(dtype)).view(np.uint16))
        return tirx.reinterpret(dtype, tirx.const(bits, "uint16"))
    return tirx.const(value, dtype)


def _name(dtype: Any) -> str:
    return str(tvm.DataType(str(dtype)))


# Reducers, for `te.compute`.
greatest: Final = te.comm_reducer(
    lambda a, b: tirx.max(b, a), lambda dtype: lowest(_name(dtype)), name="greatest"
)
least: Final = te.comm_reducer(
    lambda a, b: tirx.min(b, a), lambda dtype: highest(_name(dtype)), name="least"
)


def _reduced(reducer: Any, x: te.Tensor, axis: int | Sequence[int], keepdims: bool) -> te.Tensor:
    rank = len(x.shape)
    axes = sorted(a % rank for a in ([axis] if isinstance(axis, int) else axis))
    over = {a: te.reduce_axis((0, x.shape[a]), f"k{a}") for a in axes}
    kept = [a for a in range(rank) if keepdims or a not in over]
    shape = [1 if a in over else x.shape[a] for a in kept]

    def value(*at: Expr) -> Expr:
        place = dict(zip(kept, at, strict=True))
        index = [over[a] if a in over else place[a] for a in range(rank)]
        return reducer(x(*index), axis=list(over.values()))

    return te.compute(shape, value, name="extreme")


def greatest_of(x: te.Tensor, axis: int | Sequence[int], keepdims: bool = False) -> te.Tensor:
    """Return the greatest elements along some axes."""
    return _reduced(greatest, x, axis, keepdims)


def least_of(x: te.Tensor, axis: int | Sequence[int], keepdims: bool = False) -> te.Tensor:
    """Return the least elements along some axes."""
    return _reduced(least, x, axis, keepdims)
