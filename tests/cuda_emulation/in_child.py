"""What the worker does: compile TVM functions for the emulated device, run them in several orders, compare."""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import ml_dtypes  # gives NumPy its bfloat16
import numpy as np
import tvm
from tvm.target import Target as TVMTarget

from tests.cuda_emulation import device
from tests.cuda_emulation.compiler import CompileError, compile_kernels
from tests.cuda_emulation.inline_ptx import UnknownInstructionError
from tests.cuda_emulation.worker import EmulationError

__all__ = ["Outcome", "device_facts", "launch", "run_cases"]

assert ml_dtypes

_ERRORS: Final = (
    CompileError,
    UnknownInstructionError,
    EmulationError,
    RuntimeError,
    ValueError,
    TypeError,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case.

    Attributes:
        outputs: the parameters behind the given arrays, in order; empty where it failed.
        error: what went wrong, or "".
        source: the CUDA C that was compiled for it, with that of the cases compiled together with it.
    """

    outputs: tuple[np.ndarray, ...]
    error: str
    source: str


def run_cases(
    module_json: str,
    inputs: list[tuple[np.ndarray, ...]],
    target: dict[str, Any],
    config: dict[str, Any],
    build: str,
    orders: tuple[str, ...],
    spoil: tuple[str, str, int] | None,
) -> list[Outcome]:
    """Run functions case0, case1, ... of a module on their inputs, all compiled at once if that works.

    Args:
        module_json: the IRModule, saved by `tvm.ir.save_json`.
        inputs: for each case the arrays of its first parameters; the rest are outputs.
        target: TVM's target.
        config: of the PassContext.
        build: "module:function" that makes an Executable of (IRModule, target), or "" for tvm.compile.
        orders: names of `device.ORDERS`; the results of all must be the same bits.
        spoil: (text, replacement, n): replace the n-th occurrence in the CUDA C.
    """
    if spoil is not None:
        with device.edited(partial(_replaced, *spoil)):
            return run_cases(module_json, inputs, target, config, build, orders, None)
    module = tvm.ir.load_json(module_json)
    names = [f"case{i}" for i in range(len(inputs))]
    device.compiled_sources()
    try:
        whole = _build(module, target, config, build)
    except _ERRORS as error:
        if len(names) == 1:
            return [Outcome((), _text(error), "\n".join(device.compiled_sources()))]
        singles = (tvm.IRModule({name: module[name]}) for name in names)
        texts = [tvm.ir.save_json(_renamed(single)) for single in singles]
        # One bad case must not take the others with it.
        return [
            run_cases(t, [i], target, config, build, orders, None)[0]
            for t, i in zip(texts, inputs, strict=True)
        ]
    source = "\n".join(device.compiled_sources())
    return [
        _outcome(whole, name, module[name], i, orders, source)
        for name, i in zip(names, inputs, strict=True)
    ]


def _replaced(old: str, new: str, occurrence: int, source: str) -> str:
    parts = source.split(old)
    if occurrence + 1 >= len(parts):
        raise ValueError(
            f"the source must hold '{old}' more than {occurrence} times; got {len(parts) - 1}."
        )
    return old.join(parts[: occurrence + 1]) + new + old.join(parts[occurrence + 1 :])


def _renamed(module: tvm.IRModule) -> tvm.IRModule:
    (function,) = module.functions.values()
    return tvm.IRModule({"case0": function.with_attr("global_symbol", "case0")})


def _build(module: tvm.IRModule, target: dict[str, Any], config: dict[str, Any], build: str) -> Any:
    made = TVMTarget(target)
    with tvm.transform.PassContext(config=config), made:
        if not build:
            return tvm.compile(module, target=made)
        where, _, name = build.partition(":")
        return getattr(importlib.import_module(where), name)(module, made)


def _outcome(
    executable: Any,
    name: str,
    function: Any,
    inputs: tuple[np.ndarray, ...],
    orders: tuple[str, ...],
    source: str,
) -> Outcome:
    first: tuple[np.ndarray, ...] = ()
    for order in orders:
        device.set_order(device.ORDERS[order])
        try:
            outputs = _call(executable[name], function, inputs)
        except _ERRORS as error:
            return Outcome((), f"order '{order}': {device.message() or _text(error)}", source)
        if not device.launches():
            return Outcome(
                (), "no kernel was launched; no loop is bound to blocks and threads.", source
            )
        if first and any(a.tobytes() != b.tobytes() for a, b in zip(first, outputs, strict=True)):
            return Outcome(
                (),
                f"a race: the order of threads '{order}' gives other bits than '{orders[0]}' {_difference(first, outputs)}",
                source,
            )
        first = first or outputs
    return Outcome(first, "", source)


def _call(kernel: Any, function: Any, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    gpu = tvm.cuda(0)
    given = [tvm.runtime.tensor(array, gpu) for array in inputs]
    wanted = []
    for parameter in function.params[len(given) :]:
        shape = tuple(int(extent) for extent in parameter.ty.shape)
        wanted.append(tvm.runtime.empty(shape, str(parameter.ty.dtype), gpu))
    kernel(*given, *wanted)
    return tuple(array.numpy() for array in wanted)


def _difference(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> str:
    for index, (x, y) in enumerate(zip(a, b, strict=True)):
        bits_x, bits_y = (np.frombuffer(v.tobytes(), np.uint8).reshape(v.size, -1) for v in (x, y))
        wrong = np.flatnonzero((bits_x != bits_y).any(axis=1))
        if wrong.size:
            place = np.unravel_index(wrong[0], x.shape)
            return (
                f"in {wrong.size} of {x.size} elements of output {index},"
                f" the first at {tuple(map(int, place))}: {x[place]} and {y[place]}."
            )
    return ""


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def launch(
    source: str,
    kernel: str,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    arrays: tuple[np.ndarray, ...],
    dynamic_shared: int,
    orders: tuple[str, ...],
    early: bool = False,
) -> list[tuple[np.ndarray, ...]]:
    """Launch a kernel of hand-written CUDA C through the driver's entry points; return all its arrays for each order.

    Raises:
        EmulationError: with the device's message if it refuses or fails.
    """
    driver = ctypes.CDLL("libcudart.so.13")

    def check(status: int) -> None:
        if status:
            raise EmulationError(device.message())

    image = compile_kernels(source)
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    check(driver.cuModuleLoadData(ctypes.byref(module), image))
    check(driver.cuModuleGetFunction(ctypes.byref(function), module, kernel.encode()))
    if dynamic_shared:
        check(driver.cuFuncSetAttribute(function, 8, dynamic_shared))
    results = []
    for order in orders:
        device.set_order(device.ORDERS[order])
        tensors = [tvm.runtime.tensor(array, tvm.cuda(0)) for array in arrays]
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in tensors]
        arguments = (ctypes.c_void_p * len(pointers))(*(ctypes.addressof(p) for p in pointers))
        attribute = _LaunchAttribute(_PROGRAMMATIC_STREAM_SERIALIZATION, 1)
        config = _LaunchConfig(
            grid, block, dynamic_shared, None, ctypes.pointer(attribute), int(early)
        )
        check(driver.cuLaunchKernelEx(ctypes.byref(config), function, arguments, None))
        results.append(tuple(t.numpy() for t in tensors))
    return results


def device_facts() -> dict[str, Any]:
    """Return what TVM's runtime asks of the device."""
    gpu = tvm.cuda(0)
    return {
        "name": gpu.device_name,
        "compute_version": gpu.compute_version,
        "warp_size": gpu.warp_size,
        "max_shared_memory_per_block": gpu.max_shared_memory_per_block,
        "multi_processor_count": gpu.multi_processor_count,
        "total_global_memory": gpu.total_global_memory,
    }


_PROGRAMMATIC_STREAM_SERIALIZATION = 6


class _LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute, with a value that is a number."""

    _fields_ = (
        ("id", ctypes.c_int),
        ("between", ctypes.c_int),
        ("value", ctypes.c_int),
        ("rest", ctypes.c_char * 60),
    )

    def __init__(self, kind: int, value: int) -> None:
        super().__init__(kind, 0, value)


class _LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("dynamic_shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_LaunchAttribute)),
        ("attribute_count", ctypes.c_uint),
    )
