"""Weights that are not in L2, as in a network: copies cut from memory that was last read long ago.

Which numbers they are is nothing to a kernel's time, so they are normal ones and not the weights: to copy those, 32 MiB for every
sample, took longer than the measurement.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import tvm
import tvm_ffi

__all__ = ["ColdMemory"]

# What was last read of it lies as far away as a network's weights of the run before: on an Intel Xeon 30 GB/s come from 64 MiB, 17 from
# 200. A larger weight is copied.
_BYTES: Final = 192 << 20
_LARGEST: Final = 32 << 20
# What kernels are told of their arguments' addresses.
_ALIGNMENT: Final = 64


class ColdMemory:
    """Memory of every element type that has been asked for."""

    def __init__(self) -> None:
        self._pieces: dict[np.dtype, _Numbers] = {}

    def copy(self, weight: np.ndarray) -> Any:
        """Return an array of the weight's type and shape in memory that was cut longest ago."""
        # NumPy does not lend arrays of a type that it does not know itself.
        if weight.nbytes > _LARGEST or weight.dtype.kind == "V" or weight.dtype.name == "bfloat16":
            return tvm.runtime.tensor(weight, tvm.cpu(0))
        if weight.dtype not in self._pieces:
            self._pieces[weight.dtype] = _Numbers(weight.dtype)
        return self._pieces[weight.dtype].cut(weight)


class _Numbers:
    """Normal numbers of one type, cut one piece behind the other, over and over."""

    def __init__(self, dtype: np.dtype) -> None:
        few = np.random.default_rng(0).standard_normal(1 << 16, np.float32)
        few = (np.abs(100 * few) if dtype.kind in "iu" else few).astype(dtype)
        values = np.resize(few, _BYTES // dtype.itemsize)
        begin = -values.ctypes.data % _ALIGNMENT // dtype.itemsize
        self._values, self._at = values[begin:], 0

    def cut(self, like: np.ndarray) -> Any:
        step = -(-like.nbytes // _ALIGNMENT) * _ALIGNMENT // like.itemsize
        if self._at + step > len(self._values):
            self._at = 0
        view = self._values[self._at : self._at + like.size].reshape(like.shape)
        self._at += step
        return tvm_ffi.from_dlpack(view)
