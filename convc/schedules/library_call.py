"""A call of a library as a tensor expression: a function of the module's shim in place of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import tvm_ffi
from tvm import te, tirx
from tvm.ir import Call

__all__ = ["CALL_BLOCK", "library_call", "refusable"]

# Name of the block that is the call; schedules leave it as it is.
CALL_BLOCK: Final = "library_call"

# What a description begins with where the module has a kernel of convc's own beside the call: the shim then returns 1 in place of an error
# where the library refuses it, and 0 else (native/choices.h of cuDNN's shim).
_FALLS: Final = "falls=1;"


def library_call(
    symbol: str, text: str, operands: Sequence[te.Tensor], shape: Sequence[int], dtype: str
) -> te.Tensor:
    """Return the last argument of `symbol(text, operands..., result)`, a function that is linked into the module."""

    def call(inputs: list[Any], outputs: list[Any]) -> Any:
        return tirx.call_cpacked(symbol, text, *inputs, outputs[0])

    # Of the default buffers each has a variable for an offset, which nobody would define where an operand is stored in another type
    # than the problem's: a float32 bias of a layer in half precision.
    given = [tirx.decl_buffer(t.shape, t.dtype, name=t.op.name) for t in operands]
    own = tirx.decl_buffer(tuple(shape), dtype, name="result")
    return te.extern(
        tuple(shape),
        list(operands),
        call,
        name=CALL_BLOCK,
        dtype=dtype,
        in_buffers=given,
        out_buffers=[own],
    )


def refusable(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return the function with its library's call one that may be refused: it then returns 1 and has computed nothing.

    Rewrite:
        library("kind=...", x, y);  z = y + 1
        -->
        if library("falls=1;kind=...", x, y) != 0:  return 1
        z = y + 1
    """

    def asked(statement: Any) -> Any:
        call = statement.value
        if not isinstance(call, Call) or call.op.name != "tirx.tvm_call_cpacked":
            return statement
        symbol, text, *operands = call.args
        answer = tirx.call_cpacked(symbol, _FALLS + text.value, *operands)
        refused = answer != tirx.const(0, "int32")
        return tirx.IfThenElse(refused, tirx.Return(tirx.const(1, "int32")), None)

    body = tvm_ffi.structural_map(func.body, (tirx.Evaluate, asked))
    return tirx.PrimFunc(func.params, body, func.ret_type, func.attrs)
