"""THE SCHEDULE of `schedules.quantized`: that of `direct`, and the sums put inside the instruction that adds four products.

Rewrite:
    acc = acc + dot(0, x, w)
    -->
    acc = dot(acc, x, w)
"""

from __future__ import annotations

from typing import Any, Final

import tvm_ffi
from tvm import tirx
from tvm.ir import Call

from convc.schedules.llvm.convolutions import depthwise, direct
from convc.schedules.plan import Knobs
from convc.schedules.quantized import DOT
from convc.target import Target

__all__ = ["in_bytes", "schedule"]

# Marks functions whose calls must still get their operands' final type, see `in_bytes`.
_MARK: Final = "convc.dot"


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.quantized` scheduled."""
    if knobs.get("depthwise"):
        return depthwise(func, knobs, target)
    func = direct(func, knobs, target)
    if not knobs["dot"]:
        return func

    def accumulated(add: Any) -> Any:
        if not _is_dot(add.b):
            return add
        *_, x, w = add.b.args
        return tirx.call_llvm_pure_intrin("int32", DOT, add.a, x, w)

    body = tvm_ffi.structural_map(func.body, (tirx.Add, accumulated))
    return func.with_body(body).with_attr(_MARK, 1)


def _is_dot(value: Any) -> bool:
    return isinstance(value, Call) and value.op.name == "tirx.call_llvm_pure_intrin"


def in_bytes(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a function whose vectors are vectors, with the instruction's operands as the 64 bytes that LLVM wants.

    TVM makes vectors of scalars, and no vectors of four bytes.
    """
    if _MARK not in (func.attrs or {}):
        return func

    def whole(call: Any) -> Any:
        if not _is_dot(call):
            return call
        _, sums, x, w = call.args
        quads = [tirx.reinterpret("int8x64", v) for v in (x, w)]
        return tirx.call_llvm_pure_intrin("int32x16", DOT, sums, *quads)

    return func.with_body(tvm_ffi.structural_map(func.body, (Call, whole)))
