"""Look inside a compiled module: its memory between runs, and after each of its steps."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from convc.ir import Graph
from convc.ir.types import numpy_dtype
from convc.runtime import Module
from convc.runtime.manifest import Step
from convc.runtime.memory import address_of, aligned_empty, window

__all__ = ["assert_lanes_stay_zero", "poison_arena", "run_steps"]


def poison_arena(module: Module) -> int:
    """Fill this thread's working memory with NaN, as a reader of what nobody wrote would find it; return its size."""
    array = module._context().arena._keep[0]
    assert isinstance(array, np.ndarray)
    array.view(np.uint32)[:] = 0x7FC00000
    return array.nbytes


def run_steps(
    module: Module,
    inputs: dict[str, np.ndarray],
    after: Callable[[Step, list[np.ndarray]], None],
) -> None:
    """Run the module's steps one by one; `after` gets each step and what its arguments hold then."""
    context = module._context()
    given = [
        np.copyto(a := aligned_empty(t.shape, t.dtype), inputs[t.name]) or a for t in module.inputs
    ]
    results = [aligned_empty(t.shape, t.dtype) for t in module.outputs]
    spaces = {
        "input": [address_of(a) for a in given],
        "output": [address_of(a) for a in results],
        "weights": [module._weights.tensor.data_ptr()],
        "arena": [context.arena.tensor.data_ptr()],
    }
    module._pool.activate()
    for step in module.manifest.steps:
        windows = [
            window(module, spaces[a.space][a.index] + a.offset, a.shape, a.dtype, a.strides)
            for a in step.arguments
        ]
        module._library.get_function(step.symbol)(*(w.tensor for w in windows))
        after(step, [_array(w.tensor, a) for w, a in zip(windows, step.arguments, strict=True)])


def assert_lanes_stay_zero(
    graph: Graph, module: Module, inputs: dict[str, np.ndarray]
) -> list[str]:
    """Assert that after every step the lanes beyond its result's last channel are zero; return the steps with such lanes."""
    looked_at = []

    def after(step: Step, arrays: list[np.ndarray]) -> None:
        result, value = arrays[-1], graph[step.node].type
        if step.op in ("border", "pack") or not value.is_image or result.ndim <= value.rank:
            return
        n, cb, *_, b = result.shape
        # A split result has its rows and columns on more axes, and its channels on the same.
        lanes = np.moveaxis(result, -1, 2).reshape(n, cb * b, -1)[:, value.shape[1] :]
        assert not np.any(lanes), f"{step.symbol} wrote beyond channel {value.shape[1]}"
        if lanes.size:
            looked_at.append(step.symbol)

    poison_arena(module)
    run_steps(module, inputs, after)
    return looked_at


def _array(tensor, argument) -> np.ndarray:
    dtype = numpy_dtype(argument.dtype)
    compact = [1] * len(argument.shape)
    for axis in range(len(compact) - 2, -1, -1):
        compact[axis] = compact[axis + 1] * argument.shape[axis + 1]
    strides = argument.strides or tuple(compact)
    last = sum((n - 1) * s for n, s in zip(argument.shape, strides, strict=True))
    memory = (ctypes.c_uint8 * ((last + 1) * dtype.itemsize)).from_address(tensor.data_ptr())
    flat = np.frombuffer(memory, np.uint8).view(dtype)
    return np.lib.stride_tricks.as_strided(
        flat, argument.shape, [s * dtype.itemsize for s in strides], writeable=False
    )
