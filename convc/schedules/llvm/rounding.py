"""Sums rounded to bfloat16 by the instruction for it, where the CPU has one (`avx512bf16`) and 8 or 16 are stored at once.

Rewrite:
    y[i] = the integer operations of `bfloat16_bits.rounded`, ten a vector
    -->
    y[i] = vcvtneps2bf16(v)

What is nearer to zero than 2^-126 becomes zero, as vdpbf16ps has it too; all else is the same, ties and NaNs included. So casts, and
what only chooses among values, keep the integers.
"""

from __future__ import annotations

from typing import Any, Final

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, StringImm

from convc.schedules.bfloat16_bits import SUMS, rounded, unrounded
from convc.schedules.llvm.dots import is_call
from convc.target import Target

__all__ = ["by_instruction", "in_halves"]

# LLVM's name; stands for every width until vectors are vectors.
_ROUND: Final = "llvm.x86.avx512bf16.cvtneps2bf16.512"
_BITS: Final = {8: 256, 16: 512}

# TVM has no vector of bfloat16 in LLVM, see `dots`.
_NAME: Final = "convc_round_bf16x{lanes}"
_FUNCTION: Final = """
declare <{lanes} x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.{bits}(<{lanes} x float>)
define linkonce_odr hidden <{lanes} x i16> @convc_round_bf16x{lanes}(<{lanes} x float> %x) alwaysinline {{
  %r = call <{lanes} x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.{bits}(<{lanes} x float> %x)
  %b = bitcast <{lanes} x bfloat> %r to <{lanes} x i16>
  ret <{lanes} x i16> %b
}}
"""


def by_instruction(mod: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Return a module of scheduled functions, those of sums rounding by the instruction, if the target has it."""
    if "avx512bf16" not in target.features:
        return mod

    def called(node: Any) -> Any:
        value = unrounded(node)
        return node if value is None else tirx.call_llvm_pure_intrin("uint16", _ROUND, value)

    def of_sums(func: tirx.PrimFunc) -> tirx.PrimFunc:
        if SUMS not in (func.attrs or {}):
            return func
        return func.with_body(tvm_ffi.structural_map(func.body, (tirx.Cast, called)))

    return tvm.IRModule({name: of_sums(func) for name, func in mod.functions.items()})


def in_halves(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a function whose vectors are vectors, with those of a width that the instruction has in the types that LLVM wants.

    All others are rounded in integers: an instruction of 512 bits for one element would be slower.
    """
    widths: set[int] = set()

    def whole(call: Any) -> Any:
        if not is_call(call, _ROUND):
            return call
        value = call.args[1]
        lanes = tvm.DataType(str(call.ty.dtype)).lanes
        if lanes not in _BITS:
            return rounded(value)
        widths.add(lanes)
        return tirx.call_pure_extern(f"uint16x{lanes}", _NAME.format(lanes=lanes), value)

    body = tvm_ffi.structural_map(func.body, (Call, whole))
    for lanes in sorted(widths):
        code = StringImm(_FUNCTION.format(lanes=lanes, bits=_BITS[lanes]))
        body = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", code, body)
    return func.with_body(body)
