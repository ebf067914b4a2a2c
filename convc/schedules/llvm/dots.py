"""Instructions that add several products to a lane: sums put inside them, and their operands in the types that LLVM wants.

Rewrite:
    acc = acc + dot(0, x, w)
    -->
    acc = dot(acc, x, w)
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, StringImm

from convc.schedules.direct_data import DOT_BF16
from convc.schedules.quads import DOT

__all__ = ["dots_inside", "in_bytes", "is_call"]

# Instruction -> element type of the sums.
_SUMS: Final = {DOT: "int32", DOT_BF16: "float32"}

# TVM 0.27 has no vector of bfloat16 in LLVM: code that makes one of 64 bytes ends in a segmentation fault. A function of LLVM's own, which
# is inlined, takes the bytes.
_NAME: Final = "convc_dot_bf16"
_FUNCTION: Final = f"""
declare <16 x float> @{DOT_BF16}(<16 x float>, <32 x bfloat>, <32 x bfloat>)
define linkonce_odr hidden <16 x float> @{_NAME}(<16 x float> %sums, <16 x i32> %x, <16 x i32> %w) alwaysinline {{
  %a = bitcast <16 x i32> %x to <32 x bfloat>
  %b = bitcast <16 x i32> %w to <32 x bfloat>
  %r = call <16 x float> @{DOT_BF16}(<16 x float> %sums, <32 x bfloat> %a, <32 x bfloat> %b)
  ret <16 x float> %r
}}
"""

# Marks functions whose calls must still get their operands' final type, see `in_bytes`; its value is the instruction.
_MARK: Final = "convc.dot"


def dots_inside(func: tirx.PrimFunc, dot: str) -> tirx.PrimFunc:
    """Return a scheduled function whose sums are added up by the instruction `dot`, which gives its products so far."""
    kind = _SUMS[dot]

    def accumulated(add: Any) -> Any:
        if not is_call(add.b, dot):
            return add
        *_, x, w = add.b.args
        return tirx.call_llvm_pure_intrin(kind, dot, add.a, x, w)

    body = tvm_ffi.structural_map(func.body, (tirx.Add, accumulated))
    return func.with_body(body).with_attr(_MARK, dot)


def in_bytes(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a function whose vectors are vectors, with the instruction's operands as the 64 bytes that LLVM wants.

    TVM makes vectors of scalars, and no vectors of two or four elements each.
    """
    if _MARK not in (func.attrs or {}):
        return func
    dot = str(func.attrs[_MARK])

    def whole(call: Any) -> Any:
        if not is_call(call, dot):
            return call
        _, sums, x, w = call.args
        if dot == DOT_BF16:
            return tirx.call_pure_extern("float32x16", _NAME, sums, w, x)
        quads = [tirx.reinterpret("int8x64", v) for v in (x, w)]
        return tirx.call_llvm_pure_intrin("int32x16", DOT, sums, *quads)

    body = tvm_ffi.structural_map(func.body, (Call, whole))
    if dot == DOT_BF16:
        body = tirx.AttrStmt(
            tirx.const(0, "int32"), "pragma_import_llvm", StringImm(_FUNCTION), body
        )
    return func.with_body(body)


def is_call(value: Any, dot: str) -> bool:
    """Whether a value is a call of LLVM's intrinsic `dot`."""
    called = isinstance(value, Call) and value.op.name == "tirx.call_llvm_pure_intrin"
    return called and str(value.args[0]) == _number(dot)


@cache
def _number(dot: str) -> str:
    """Return how a call of the instruction names it: TVM has a number for each."""
    zero = tirx.const(0, "int32")
    return str(tirx.call_llvm_pure_intrin("int32", dot, zero, zero, zero).args[0])
