"""TVM's CUDA runtime: found, loaded, and the few functions of it that a module needs. It JITs nothing: modules hold machine code.

`libtvm_runtime_cuda.so` needs the driver's libcuda.so.1 and CUDA 13's libcudart.so.13; when one is missing, loading it fails with
nothing but the linker's message, so each is looked for first, and what is missing is said.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import tvm_ffi
from numpy.typing import NDArray

from convc.errors import TargetMismatchError, ToolchainError
from convc.ir.types import dtype_name
from convc.runtime.cuda_graph import Cudart, Graph
from convc.runtime.driver import look
from convc.runtime.library import Runtime
from convc.runtime.manifest import TargetInfo

__all__ = ["CUDA", "CudaRuntime", "cuda_runtime", "find_cudart"]

# DLPack's DLDeviceType.
CUDA: Final = 2
_FILE: Final = "libtvm_runtime_cuda.so"
_CUDART: Final = "libcudart.so.13"

_lock = threading.Lock()
_loaded: CudaRuntime | None = None


class CudaRuntime:
    """Memory and copies of one device, on the stream that tvm_ffi calls current there."""

    def __init__(self, cudart: Cudart, index: int = 0) -> None:
        self.device: Final = tvm_ffi.device("cuda", index)
        self._cudart: Final = cudart
        self._allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
        self._from_bytes = tvm_ffi.get_global_func("runtime.TVMTensorCopyFromBytes")
        self._to_bytes = tvm_ffi.get_global_func("runtime.TVMTensorCopyToBytes")
        self._synchronize = tvm_ffi.get_global_func("runtime.Device_StreamSync")

    def empty(self, shape: tuple[int, ...], dtype: str) -> tvm_ffi.Tensor:
        """Return uninitialised device memory."""
        return self._allocate(tvm_ffi.Shape(shape), tvm_ffi.dtype(dtype), self.device, None)

    def upload(self, array: NDArray, tensor: tvm_ffi.Tensor | None = None) -> tvm_ffi.Tensor:
        """Copy a C-contiguous array to the device, into `tensor` or memory of its own, and return that."""
        if tensor is None:
            tensor = self.empty(array.shape, dtype_name(array.dtype))
        address = array.__array_interface__["data"][0]
        self._from_bytes(tensor, ctypes.c_void_p(address), array.nbytes)
        return tensor

    def download(self, tensor: tvm_ffi.Tensor, array: NDArray) -> None:
        """Copy device memory into a C-contiguous array, once all kernels before are done."""
        address = array.__array_interface__["data"][0]
        self._to_bytes(tensor, ctypes.c_void_p(address), array.nbytes)

    def graph(self, function: Callable[[], object]) -> Graph:
        """Return what the function launches on the current stream, recorded to be replayed.

        Raises:
            DeviceError: if something that it calls cannot be recorded.
        """
        return Graph(self._cudart, self.device, function)

    def synchronize(self) -> None:
        """Wait until the device is done."""
        self._synchronize(self.device, 0)


def cuda_runtime(runtime: Runtime, target: TargetInfo) -> CudaRuntime:
    """Return TVM's CUDA runtime, loaded on the first call.

    Raises:
        ToolchainError: if driver, device, CUDA's runtime or TVM's part for it is missing; says which.
        TargetMismatchError: if the device cannot run the target's code.
    """
    global _loaded
    state = look()
    wanted = ", ".join(target.device)
    if not state.devices:
        raise ToolchainError(
            f"a module for cuda ({wanted}) must find a CUDA device; got none: {state.problem}. "
            "`convc doctor` lists what is missing; for this machine's CPU compile it with --target llvm."
        )
    _check_device(state.devices[0].name, state.devices[0].sm, target)
    with _lock:
        if _loaded is None:
            _loaded = CudaRuntime(_load(runtime))
        return _loaded


def _check_device(name: str, sm: int, target: TargetInfo) -> None:
    """Machine code runs on its own major capability, at its minor one or above; PTX on anything not older."""
    for code in target.device:
        kind, _, number = code.partition("_")
        same = int(number) // 10 == sm // 10
        if int(number) <= sm and (kind == "ptx" or same):
            return
    raise TargetMismatchError(
        f"module must have code for this device, {name} (sm_{sm}); got {', '.join(target.device) or 'none'}. "
        f"Compile it with --sm {sm}."
    )


def _load(runtime: Runtime) -> Cudart:
    path = runtime.path.parent / _FILE
    if not path.is_file():
        raise ToolchainError(
            f"a module for cuda must find {_FILE} beside '{runtime.path}'; got none. "
            "Install it with `pip install apache-tvm==0.27.0.post1`."
        )
    cudart = find_cudart()
    if cudart is None:
        raise ToolchainError(
            f"a module for cuda must find {_CUDART}; got none on the loader's path, in the package nvidia-cuda-runtime "
            "or in /usr/local/cuda. Install it with `pip install nvidia-cuda-runtime`."
        )
    try:
        # By its name it is found again when TVM's library asks for it.
        ctypes.CDLL(cudart, ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise ToolchainError(f"TVM's CUDA runtime must load; got {error}.") from None
    return Cudart(cudart)


def find_cudart() -> str | None:
    """Return CUDA 13's runtime library: a name the loader knows, or a file; None without one."""
    for candidate in _places():
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return candidate
    return None


def _places() -> Iterator[str]:
    yield _CUDART
    for entry in map(Path, sys.path):
        # Packages of CUDA 13 share one folder; those of 12 had one each.
        yield from map(str, entry.glob(f"nvidia/cu13/lib/{_CUDART}"))
        yield from map(str, entry.glob(f"nvidia/cuda_runtime/lib/{_CUDART}"))
    for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda", "/opt/cuda"):
        if home:
            yield f"{home}/lib64/{_CUDART}"
