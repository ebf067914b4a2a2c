"""One call of cuDNN through the shim, from Python: convolutions and their gradients, poolings, softmax, on tensors of a CUDA device.

What a compiled module has linked into it is built here as a library of its own, at the first call.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import TypeAlias

import tvm_ffi

from convc.runtime.cuda import cuda_runtime
from convc.runtime.libraries.cudnn import Description, Pooling, Softmax, compile_shim, prepare
from convc.runtime.library import runtime_library
from convc.runtime.manifest import TargetInfo
from convc.runtime.ports import SupportsDLPack

__all__ = ["cudnn_call", "cudnn_plan"]

Call: TypeAlias = Description | Pooling | Softmax


def cudnn_call(description: Call, *tensors: SupportsDLPack) -> None:
    """Run a call on the current stream; the last tensor is written.

    Args:
        description: what to compute, and which tensors it takes.
        tensors: on one CUDA device, C-contiguous.

    Raises:
        ToolchainError: if there is no device, no cuDNN 9 or no g++.
        ValueError: if the tensors are not what the description takes.
        RuntimeError: with cuDNN's own message, if it refuses.
    """
    _shim().get_function("convc_cudnn")(str(description), *map(tvm_ffi.from_dlpack, tensors))


def cudnn_plan(description: Description, *tensors: SupportsDLPack) -> str:
    """Return the plan that a convolution would run by, "engine=28;knobs=2:1;workspace=1024"; nothing runs.

    Arguments and errors as `cudnn_call`.
    """
    plan = _shim().get_function("convc_cudnn_plan")
    return str(plan(str(description), *map(tvm_ffi.from_dlpack, tensors)))


@cache
def _shim() -> tvm_ffi.Module:
    # Any device that CUDA 13 knows; whether it can do what is asked for, cuDNN says.
    cuda_runtime(runtime_library(), TargetInfo("cuda", "", "", device=("ptx_50",)))
    prepare()
    with tempfile.TemporaryDirectory(prefix="convc-cudnn-") as folder:
        file = Path(folder) / "shim.so"
        file.write_bytes(compile_shim(("-shared",)))
        return tvm_ffi.load_module(str(file))
