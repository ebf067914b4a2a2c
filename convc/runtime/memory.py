"""Memory that kernels may touch: 64-byte aligned arrays, the arena, and DLPack tensors over both."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
from dataclasses import dataclass
from typing import Final

import numpy as np
import tvm_ffi
from numpy.typing import DTypeLike, NDArray

from convc.ir.types import dtype_name, numpy_dtype
from convc.runtime.manifest import ALIGNMENT

__all__ = ["Window", "address_of", "aligned_empty", "allocate_arena", "array_window", "window"]

_HUGE_PAGE: Final = 2 << 20
# DLPack's DLDataTypeCode by NumPy's kind; bfloat16 has a code of its own.
_CODES: Final = {"i": 0, "u": 1, "f": 2, "b": 6}
_BFLOAT: Final = 4
_CPU: Final = 1


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """Return an uninitialised array whose first element is 64-byte aligned, as kernels need it.

    Example:
        >>> aligned_empty((3, 5), "float32").ctypes.data % 64
        0
    """
    element = np.dtype(dtype)
    raw = np.empty(math.prod(shape) * element.itemsize + ALIGNMENT, np.uint8)
    return np.ndarray(shape, element, raw, -address_of(raw) % ALIGNMENT)


def allocate_arena(nbytes: int) -> NDArray[np.uint8]:
    """Return zeroed, page-aligned working memory of this process alone, in huge pages where the system has them."""
    # Python's default is MAP_SHARED, which a forked child would write into as well.
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if nbytes >= _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages: slower, not wrong
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def address_of(array: NDArray) -> int:
    """Return the address of the array's first element."""
    return array.__array_interface__["data"][0]


class _DLTensor(ctypes.Structure):
    """Source: dlpack.h, struct DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _DLManagedTensor(ctypes.Structure):
    """Source: dlpack.h, struct DLManagedTensor."""

    _fields_ = (
        ("tensor", _DLTensor),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True)
class Window:
    """A tensor over memory that something else owns; it keeps that memory alive, the bare `tensor` does not."""

    tensor: tvm_ffi.Tensor
    _keep: tuple[object, ...]


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def window(
    owner: object,
    address: int,
    shape: tuple[int, ...],
    dtype: str,
    strides: tuple[int, ...] = (),
    device: int = _CPU,
) -> Window:
    """Return a tensor over the memory at `address`.

    NumPy's own DLPack export refuses bfloat16, and read-only arrays such as the mapped weights. The tensor's deleter is null, as
    DLPack allows: no Python code runs when the tensor goes, not even at the interpreter's exit.

    Args:
        owner: whatever keeps the memory alive.
        address: of the first element.
        shape: of the tensor.
        dtype: convc's name of the element type.
        strides: in elements; empty means compact.
        device: DLPack's number of the kind of device that the memory is on, the first of its kind.
    """
    element = numpy_dtype(dtype)
    rank = len(shape)
    sizes = (ctypes.c_int64 * max(rank, 1))(*shape)
    steps = (ctypes.c_int64 * max(rank, 1))(*(strides or _compact(shape)))
    managed = _DLManagedTensor(
        _DLTensor(
            address,
            device,
            0,
            rank,
            _BFLOAT if dtype == "bfloat16" else _CODES[element.kind],
            8 * element.itemsize,
            1,
            sizes,
            steps,
            0,
        )
    )
    capsule = _new_capsule(ctypes.addressof(managed), b"dltensor", None)
    return Window(tvm_ffi.from_dlpack(capsule), (owner, managed, sizes, steps))


def array_window(array: NDArray) -> Window:
    """Return a tensor over a C-contiguous array of any type convc knows, read-only or not."""
    return window(array, address_of(array), array.shape, dtype_name(array.dtype))


def _compact(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
