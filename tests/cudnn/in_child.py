"""The shim on the emulated device with the double of cuDNN: what runs in the worker's child."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes  # gives NumPy its bfloat16
import numpy as np
import tvm
import tvm_ffi

from convc.runtime.cudnn_calls import cudnn_call
from convc.runtime.libraries.cudnn import compile_shim, prepare
from tests.cuda_emulation.worker import EmulationError
from tests.cudnn.double_library import build_double

__all__ = ["call_from_python", "living", "plain", "run", "run_with", "use_double"]

assert ml_dtypes


@cache
def use_double() -> ctypes.CDLL:
    """Return the double, told to the shim."""
    double = ctypes.CDLL(prepare(build_double()))
    double.cudnn_double_log.restype = ctypes.c_char_p
    return double


@cache
def _shim() -> tvm_ffi.Module:
    file = Path(tempfile.mkdtemp(prefix="convc-cudnn-")) / "shim.so"
    file.write_bytes(compile_shim(("-shared",)))
    return tvm_ffi.load_module(str(file))


def run(
    description: str,
    arrays: Sequence[np.ndarray],
    *,
    function: str = "convc_cudnn",
    offer: int = 0,
    fail: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[np.ndarray, str, Any]:
    """Return the last array after a call of the shim, the double's story, and what the call returned.

    Args:
        description: of the call.
        arrays: its tensors; the last is the result.
        function: the shim's.
        offer: engines of the double, as a mask; 0: the usual.
        fail: double's function -> (calls before, status) of one failure.

    Raises:
        EmulationError: with the error's text if the call fails.
    """
    double = use_double()
    double.cudnn_double_log()
    double.cudnn_double_offer(offer)
    for name, (nth, status) in (fail or {}).items():
        double.cudnn_double_fail(name.encode(), nth, status)
    tensors = [tvm.runtime.tensor(array, tvm.cuda(0)) for array in arrays]
    try:
        returned = _shim().get_function(function)(description, *tensors)
    except (RuntimeError, ValueError, TypeError) as error:
        raise EmulationError(f"{type(error).__name__}: {error}") from None
    finally:
        # The process serves other tests, whose modules are to find the usual ones.
        double.cudnn_double_offer(0)
    return tensors[-1].numpy(), double.cudnn_double_log().decode(), returned


def living() -> int:
    """Return the descriptors of the double that nobody has destroyed."""
    return use_double().cudnn_double_living()


def call_from_python(description: Any, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the last array after `cudnn_call`."""
    use_double()
    tensors = [tvm.runtime.tensor(array, tvm.cuda(0)) for array in arrays]
    cudnn_call(description, *tensors)
    return tensors[-1].numpy()


def plain() -> int:
    """Return the descriptors of poolings and tensors that nobody has destroyed."""
    return use_double().cudnn_double_plain()


def run_with(
    description: str, arrays: Sequence[np.ndarray], options: Mapping[str, Any]
) -> tuple[np.ndarray, str, Any]:
    """Return `run` with its options in one mapping, for the worker's calls."""
    return run(description, arrays, **options)
