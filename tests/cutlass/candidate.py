"""convc's modules with CUTLASS in them, built, exported, loaded and run in the worker's child, with the double in place of the kernels."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import ml_dtypes  # gives NumPy its bfloat16
import numpy as np
import tvm
import tvm_ffi

from convc.runtime.libraries.cutlass import (
    NATIVE,
    Description,
    Kernel,
    compile_shim,
    compile_table,
)
from convc.runtime.libraries.shim import compiled
from tests.cuda_emulation import convc_device
from tests.cuda_emulation.worker import EmulationError
from tests.schedules.conv_module import Case, Result

__all__ = ["call_with", "compile_and_run", "conv_results", "double"]

assert ml_dtypes


def double(kernels: Sequence[Kernel], gpu: Any, progress: Any) -> tuple[bytes, ...]:
    """Return the object file of the double's kernels."""
    told: list[str] = [f'#include "{Path(__file__).with_name("double.h")}"\n']
    for k in kernels:
        facts = f'{{"{k.name}", "{k.form}", {k.rank}, {int(k.dtype == "bfloat16")}, {int(k.bias == "float32")}, {int(k.sums)}}}'
        told.append(
            f'extern "C" const char* {k.symbol}(const ConvcCutlassCall* call) {{ return cutlass_double::run({facts}, *call); }}\n'
        )
    progress(len(kernels), len(kernels), "the double")
    return (compiled("CUTLASS", NATIVE, ("-c", "-I.", "-Wno-psabi"), text="".join(told)),)


@cache
def _shim() -> tvm_ffi.Module:
    """Return a library of the shim and two kernels of the double."""
    kernels = [Kernel("hopper", 2, "float16", 64, 64, 64), Kernel("hopper_cooperative", 2, "float16", 64, 64, 64)]  # fmt: skip
    parts = (
        *double(kernels, None, lambda done, total, what: None),
        compile_shim(),
        compile_table(kernels, b""),
    )
    folder = Path(tempfile.mkdtemp(prefix="convc-cutlass-"))
    for index, part in enumerate(parts):
        (folder / f"part{index}.o").write_bytes(part)
    command = ["g++", "-shared", "-o", "shim.so", *(f"part{i}.o" for i in range(len(parts)))]
    subprocess.run(command, cwd=folder, check=True)
    return tvm_ffi.load_module(str(folder / "shim.so"))


def call_with(change: Mapping[str, Any]) -> None:
    """Call the shim for a 3x3 convolution of 8 channels at 6 x 6 in which some things are different.

    Raises:
        EmulationError: with the shim's words.
    """
    change = dict(change)
    channels, dtype = change.pop("channels", 8), change.pop("dtype", "float16")
    parts, result = change.pop("parts", ()), change.pop("result", dtype)
    ones = {"lower": (1, 1), "upper": (1, 1), "strides": (1, 1), "dilations": (1, 1)}
    fields = {"kernel": "hopper_2d_float16_64x64x64_c1", **ones, "spec": "a layer", **change}
    shapes = ((1, 1, 6, 6, channels), (16, 3, 3, channels), (*parts, 1, 1, 6, 6, 16))
    types = (dtype, dtype, result)
    tensors = [
        tvm.runtime.tensor(np.zeros(s, t), tvm.cuda(0)) for s, t in zip(shapes, types, strict=True)
    ]
    try:
        _shim().get_function("convc_cutlass")(str(Description(**fields)), *tensors)
    except (RuntimeError, ValueError, TypeError) as error:
        raise EmulationError(f"{type(error).__name__}: {error}") from None


@contextmanager
def _double() -> Iterator[None]:
    with mock.patch("convc.schedules.cuda.cutlass_objects.kernel_objects", double):
        yield


def conv_results(cases: Sequence[Case], target: Any, exact: bool) -> list[Result]:
    """Return each case's result, all in one module."""
    with _double():
        return convc_device.conv_results(cases, target, exact, 1, ("up",), launches=False)


def compile_and_run(
    source: Any, options: Mapping[str, Any], inputs: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Return outputs and choices of `convc.compile`."""
    with _double():
        return convc_device.compile_and_run(source, options, inputs, ("up",), launches=False)
