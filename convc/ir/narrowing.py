"""Constants in a narrower float type."""

from __future__ import annotations

import numpy as np

from convc.errors import DTypeError
from convc.ir.ops.definition import Array
from convc.ir.types import greatest_finite, numpy_dtype

__all__ = ["narrow_constant"]


def narrow_constant(name: str, value: Array, dtype: str) -> Array:
    """Return a constant in another float type, each element rounded once.

    Args:
        name: the constant's, for the error.
        value: floats.
        dtype: the narrower type.

    Raises:
        DTypeError: if a finite element becomes infinite.

    Example:
        >>> narrow_constant("b", np.array([1 + 2.0**-13], np.float32), "float16")
        array([1.], dtype=float16)
    """
    with np.errstate(over="ignore"):
        narrow = value.astype(numpy_dtype(dtype))
    lost = np.isfinite(value.astype(np.float64)) & ~np.isfinite(narrow.astype(np.float64))
    if lost.any():
        worst = float(np.abs(value[lost].astype(np.float64)).max())
        raise DTypeError(
            f"constant '{name}' must be at most {greatest_finite(dtype):g} to be {dtype}; got {worst:g}. "
            "Use --dtype bf16, which has float32's range, or leave the model as it is."
        )
    return narrow
