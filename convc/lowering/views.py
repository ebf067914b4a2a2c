"""A kernel's parameters as their memory is: strides, alignment, and the element type that a value is stored in.

A kernel of half-width floats is that of float32 between loads that widen and stores that round. So every algorithm and schedule
computes them, sums stay in float32, and what lies between two layers takes half the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, TensorLoad

from convc.schedules.bfloat16_bits import lanes_of, rounded, widened
from convc.schedules.layout import View

__all__ = ["moved", "reads_back", "with_views"]


def with_views(func: tirx.PrimFunc, views: Sequence[View]) -> tirx.PrimFunc:
    """Return the function with each parameter's strides, alignment and element type as its view has them.

    Rewrite:
        y: Buffer((1, 4, 56, 56, 16))
        -->
        y: Buffer((1, 4, 56, 56, 16), strides=(215296, 53824, 928, 16, 1))     (a view inside a halo)

        x: Buffer(float32);  y: Buffer(float32);  y[i] = x[i] + 1
        -->
        x: Buffer(bfloat16);  y: Buffer(bfloat16);  y[i] = bfloat16(float32(x[i]) + 1)
    """
    for index, view in enumerate(views):
        old = func.params[index]
        stored = view.dtype != str(old.dtype)
        if not stored and view.is_compact and view.alignment >= old.ty.data_alignment:
            continue
        new = tirx.decl_buffer(
            view.shape,
            _BITS.get(view.dtype, view.dtype) if stored else view.dtype,
            name=old.name,
            strides=list(view.strides),
            data_alignment=view.alignment,
        )
        body = _stored(func.body, old, new, view) if stored else func.body

        def renamed(var: Any, old: Any = old, new: Any = new) -> Any:
            return new if var.same_as(old) else var

        def handed(call: Any, new: Any = new) -> Any:
            return _handed_over(call, new)

        body = tvm_ffi.structural_map(body, (type(old), renamed))
        body = tvm_ffi.structural_map(body, (Call, handed))
        params = [*func.params[:index], new, *func.params[index + 1 :]]
        func = tirx.PrimFunc(params, body, func.ret_type, func.attrs)
    return func


def _handed_over(call: Any, new: Any) -> Any:
    """Return a call that makes a library's tensor of the parameter `new` with its type and strides; others as they are."""
    if call.op.name != "tirx.tvm_stack_make_array" or not call.args[0].args[0].same_as(new):
        return call
    data, shape, _, rank, _, offset = call.args
    strides = tirx.tvm_stack_make_shape(*new.ty.strides)
    return tirx.tvm_stack_make_array(data, shape, strides, rank, tirx.const(0, new.dtype), offset)


def reads_back(func: tirx.PrimFunc) -> bool:
    """Whether a function reads what it has written to its result, which then must not be rounded on the way."""
    found: list[Any] = []

    def note(load: Any) -> None:
        if load.source.same_as(func.params[-1]):
            found.append(load)

    tvm_ffi.structural_walk(func.body, (TensorLoad, note))
    return bool(found)


# TVM 0.27 cannot store vectors of bfloat16 ("dtype mismatch on BufferStore"): its bits are stored.
_BITS: Final = {"bfloat16": "uint16"}


def moved(view: View) -> View:
    """Return a view for kernels that move elements and compute nothing."""
    return replace(view, dtype=_BITS.get(view.dtype, view.dtype))


def _wide(value: Any, dtype: str) -> Any:
    """Return an element that is stored as `dtype` in float32."""
    if dtype != "bfloat16":
        return tirx.Cast(f"float32{lanes_of(value)}", value)
    return widened(value)


def _narrow(value: Any, dtype: str) -> Any:
    """Return a float32 as it is stored in `dtype`, rounded to nearest, ties to even; a NaN stays one."""
    if dtype != "bfloat16":
        return tirx.Cast(dtype + lanes_of(value), value)
    return rounded(value)


def _stored(body: Any, old: Any, new: Any, view: View) -> Any:
    """Return the statement with loads of `old` widened from the element type of `view`, and what is stored to it rounded."""

    def load(node: Any) -> Any:
        if not node.source.same_as(old):
            return node
        return _wide(tirx.BufferLoad(new, node.indices), view.dtype)

    def address(call: Any) -> Any:
        """Return an address, which is a place and no value, of the element itself."""
        if call.op.name != "tirx.address_of":
            return call
        found: list[Any] = []
        tvm_ffi.structural_walk(call.args[0], (TensorLoad, found.append))
        return tirx.address_of(found[0])

    def store(node: Any) -> Any:
        if not node.buffer.same_as(old):
            return node
        return tirx.BufferStore(new, _narrow(node.value, view.dtype), node.indices)

    return tvm_ffi.structural_map(body, [(TensorLoad, load), (Call, address), (tirx.BufferStore, store)])  # fmt: skip
