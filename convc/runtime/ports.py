"""The module's inputs and outputs at run time: every array is checked here before a kernel sees it.

A kernel trusts its arguments: TVM loads 64 aligned bytes at a time, and one unaligned address ends the process. So an array
passes only if its type, shape, order and place in memory are right; an unaligned input is copied into aligned memory first.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

import numpy as np
import tvm_ffi
from numpy.typing import NDArray

from convc.errors import InputError
from convc.ir.types import numpy_dtype
from convc.runtime.manifest import ALIGNMENT, Tensor
from convc.runtime.memory import Window, address_of, aligned_empty, array_window

__all__ = ["ArrayLike", "InputPort", "OutputPort", "Staging", "SupportsDLPack"]

_from_dlpack = tvm_ffi.from_dlpack
# DLPack's DLDeviceType. Pinned host memory (3) is as good as the CPU's own (1).
_READABLE_DEVICES: Final = (1, 3)
_DEVICES: Final = {
    2: "cuda",
    4: "opencl",
    7: "vulkan",
    8: "metal",
    10: "rocm",
    13: "cuda managed",
    14: "oneapi",
}


class SupportsDLPack(Protocol):
    """Anything that exports its memory the DLPack way, e.g. a torch tensor."""

    def __dlpack__(self, *, stream: None = None) -> object: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


ArrayLike: TypeAlias = "NDArray | SupportsDLPack"
# Aligned copies of a thread's unaligned inputs, by name, each with its tensor.
Staging: TypeAlias = dict[str, tuple[NDArray, Window]]


class _Port:
    """Name, shape and element type of an input or output, in the forms the checks need."""

    __slots__ = ("dtype", "exports", "kind", "name", "rows", "shape", "type")

    def __init__(self, kind: str, tensor: Tensor) -> None:
        self.kind = kind
        self.name = tensor.name
        self.shape = tensor.shape
        self.rows = tensor.rows
        self.type = tensor.dtype
        self.dtype = numpy_dtype(tensor.dtype)
        # NumPy exports its own types; bfloat16 is not one of them.
        self.exports = tensor.dtype != "bfloat16"

    def shape_for(self, samples: int) -> tuple[int, ...]:
        """Return the shape at a number of samples; the one shape, where it does not depend on the batch."""
        return (self.rows * samples, *self.shape[1:]) if self.rows else self.shape

    def check(self, array: NDArray, samples: int | None = None) -> None:
        """Raise unless the array has this port's dtype and shape and is C-contiguous; any number of samples, or the given one."""
        if array.dtype != self.dtype:
            hint = f" Convert it with .astype('{self.type}')." if self.kind == "input" else ""
            raise InputError(f"{self} must have dtype {self.type}; got {array.dtype}.{hint}")
        if array.shape != self.shape and not self._fits(array.shape, samples):
            wanted = str(self.shape)
            if self.rows:
                wanted = f"({', '.join(map(str, ['any', *self.shape[1:]]))})"
                wanted = wanted if samples is None else str(self.shape_for(samples))
            raise InputError(f"{self} must have shape {wanted}; got {array.shape}.")
        if not array.flags.c_contiguous:
            hint = " Use np.ascontiguousarray(array)." if self.kind == "input" else ""
            raise InputError(
                f"{self} must be C-contiguous; got strides {array.strides} in bytes for shape {array.shape}.{hint}"
            )

    def _fits(self, shape: tuple[int, ...], samples: int | None) -> bool:
        if not self.rows or not shape:
            return False
        return shape == self.shape_for(shape[0] // self.rows if samples is None else samples)

    def check_no_nan(self, array: NDArray) -> None:
        """Raise if any element is not a number."""
        if self.dtype.kind not in "iub" and (count := int(np.count_nonzero(np.isnan(array)))):
            raise InputError(f"{self} must have no NaN; got {count} of {array.size} elements.")

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}'"


class InputPort(_Port):
    """One input of the module."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__("input", tensor)

    def bind(self, value: ArrayLike, keep: list[object], staging: Staging) -> tvm_ffi.Tensor:
        """Return the value as a tensor that a kernel may read: the same memory if it is 64-byte aligned, else a copy.

        Args:
            value: NumPy array or CPU tensor.
            keep: receives what must stay alive until the kernels are done.
            staging: this thread's aligned copies, by input name; filled when first needed.

        Raises:
            InputError: if dtype, shape, order or device is wrong.
        """
        if (
            self.exports
            and type(value) is np.ndarray
            and value.dtype == self.dtype
            and value.shape == self.shape
            and value.flags.c_contiguous
            and value.flags.writeable  # NumPy exports no read-only array
        ):
            tensor = _from_dlpack(value)
            return self._staged(value, staging) if tensor.data_ptr() % ALIGNMENT else tensor
        array = self.array(value, keep)
        if address_of(array) % ALIGNMENT:
            return self._staged(array, staging)
        bound = array_window(array)
        keep.append(bound)
        return bound.tensor

    def array(self, value: ArrayLike, keep: list[object]) -> NDArray:
        """Return the value as a checked NumPy array over the same memory."""
        array = np.asarray(value) if isinstance(value, np.ndarray) else self._imported(value, keep)
        self.check(array)
        return array

    def _staged(self, array: NDArray, staging: Staging) -> tvm_ffi.Tensor:
        copy, bound = staging.get(self.name) or (None, None)
        if copy is None or bound is None:
            copy = aligned_empty(self.shape, self.dtype)
            bound = array_window(copy)
            staging[self.name] = copy, bound
        np.copyto(copy, array)
        return bound.tensor

    def _imported(self, value: SupportsDLPack, keep: list[object]) -> NDArray:
        if not (hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__")):
            raise InputError(
                f"{self} must be a NumPy array or a CPU tensor with __dlpack__; got {type(value).__name__}."
                f" Convert it with np.asarray(value, '{self.type}')."
            )
        device, number = value.__dlpack_device__()
        if device not in _READABLE_DEVICES:
            name = _DEVICES.get(int(device), f"device type {int(device)}")
            raise InputError(
                f"{self} must be in CPU memory; got a tensor on {name}:{number}. Copy it to the CPU first."
            )
        try:
            tensor = _from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"{self} must export its memory through DLPack; got {error}."
            ) from None
        keep.append(tensor)
        return self._over(tensor)

    def _over(self, tensor: tvm_ffi.Tensor) -> NDArray:
        """Return a NumPy array over a tensor's memory, which `np.from_dlpack` cannot make for bfloat16."""
        dtype = str(tensor.dtype)
        if dtype != self.type:
            raise InputError(
                f"{self} must have dtype {self.type}; got {dtype}. Convert it to {self.type} first."
            )
        shape = tuple(tensor.shape)
        if not tensor.is_contiguous():
            raise InputError(
                f"{self} must be C-contiguous; got strides {tuple(tensor.strides)} in elements for shape {shape}."
                " Make it contiguous first."
            )
        nbytes = math.prod(shape) * self.dtype.itemsize
        if not nbytes:
            return np.empty(shape, self.dtype)
        memory = (ctypes.c_uint8 * nbytes).from_address(tensor.data_ptr())
        return np.frombuffer(memoryview(memory), np.uint8).view(self.dtype).reshape(shape)


class OutputPort(_Port):
    """One output of the module."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__("output", tensor)

    def empty(self, samples: int = 0) -> NDArray:
        """Return a new array for this output."""
        return aligned_empty(self.shape_for(samples), self.dtype)

    def bind(self, array: NDArray, keep: list[object]) -> tvm_ffi.Tensor:
        """Return the array as a tensor that a kernel may write."""
        if self.exports:
            return _from_dlpack(array)
        bound: Window = array_window(array)
        keep.append(bound)
        return bound.tensor

    def check_given(
        self, array: NDArray, others: Sequence[tuple[str, NDArray]], samples: int = 0
    ) -> None:
        """Raise unless a kernel may write into the caller's array.

        Args:
            array: given for this output.
            others: name and array of what it must not share memory with.
            samples: of this run, with a symbolic batch.

        Raises:
            InputError: if it is no array, or its dtype, shape, order, place or overlap is wrong.
        """
        if not isinstance(array, np.ndarray):
            raise InputError(f"{self} must be a NumPy array; got {type(array).__name__}.")
        self.check(array, samples)
        if not array.flags.writeable:
            raise InputError(f"{self} must be writable; got a read-only array.")
        offset = address_of(array) % ALIGNMENT
        if offset:
            raise InputError(
                f"{self} must start at a multiple of {ALIGNMENT} bytes; got {offset} bytes behind one."
                " Make it with convc.runtime.aligned_empty(shape, dtype)."
            )
        for name, other in others:
            if np.may_share_memory(array, other):
                raise InputError(f"{self} must not overlap other arrays; got the memory of {name}.")
