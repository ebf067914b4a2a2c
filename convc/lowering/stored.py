"""Packed weights of kernels that compute in float32 what is stored in half the width."""

from __future__ import annotations

import numpy as np

from convc.ir.types import HALVES, numpy_dtype

__all__ = ["narrowed", "widened"]


def widened(weight: np.ndarray) -> np.ndarray:
    """Return a weight of half width as float32, which is exact; others as they are."""
    return weight.astype(np.float32) if str(weight.dtype) in HALVES else weight


def narrowed(packed: np.ndarray, stored: str) -> np.ndarray:
    """Return packed weights in the type they are stored in, if that loses nothing: not where packing has transformed them (Winograd).

    Example:
        >>> exact = np.array([1.0, 0.5], np.float32)
        >>> narrowed(exact, "float16").dtype.name, narrowed(exact / 3, "float16").dtype.name
        ('float16', 'float32')
    """
    if not stored or packed.dtype != np.float32:
        return packed
    with np.errstate(over="ignore"):
        narrow = packed.astype(numpy_dtype(stored))
    return narrow if np.array_equal(narrow.astype(packed.dtype), packed) else packed
