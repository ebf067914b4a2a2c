"""Tables of 256 bytes read a vector at a time: two permutations of bytes, one for each half of the table, and a choice between them.

Rewrite:
    y[ramp] = table[x[ramp]]        # a gather, of single bytes on every CPU
    -->
    y[ramp] = select(x[ramp] < 128, vpermi2b(table[0:128], x[ramp]), vpermi2b(table[128:256], x[ramp]))
"""

from __future__ import annotations

from typing import Any, Final

import tvm_ffi
from tvm import tirx
from tvm.ir import StringImm, TensorLoad

from convc.target import Target

__all__ = ["WIDTHS", "has_permutation", "marked", "permuted"]

# Bytes of a vector whose table entries are one call, the widest first.
WIDTHS: Final = (64, 32, 16)

_TABLE: Final = 256
_REGISTER: Final = 64
_MARK: Final = "convc.byte_tables"


def has_permutation(target: Target) -> bool:
    """Return whether the CPU permutes the bytes of two registers in one instruction."""
    return "avx512vbmi" in target.features and target.lanes == 16


def marked(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a scheduled function whose vectors of table entries `permuted` is to rewrite."""
    return func.with_attr(_MARK, 1)


def permuted(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a marked function, whose vectors are vectors by now, with permutations for its gathers of bytes."""
    if _MARK not in (func.attrs or {}):
        return func

    def entries(load: Any) -> Any:
        index = load.indices[0]
        # A vector of places in a table is a vector of bytes, widened.
        if not isinstance(index, tirx.Cast) or _lanes(index) not in WIDTHS:
            return load
        table, width = load.source, _lanes(index)
        kind = table.dtype
        parts = [
            tirx.BufferLoad(table, [tirx.Ramp(tirx.const(at, "int32"), 1, _REGISTER)])
            for at in range(0, _TABLE, _REGISTER)
        ]
        return tirx.call_pure_extern(f"{kind}x{width}", f"{_NAME}{width}", index.value, *parts)

    body = tvm_ffi.structural_map(func.body, (TensorLoad, entries))
    made = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", StringImm(_FUNCTIONS), body)
    return func.with_body(made)


def _lanes(value: Any) -> int:
    return int(value.ty.dtype.lanes)


_NAME: Final = "convc_byte_table_"


def _function(width: int) -> str:
    places = ", ".join(f"i32 {i if i < width else 'poison'}" for i in range(_REGISTER))
    first = ", ".join(f"i32 {i}" for i in range(width))
    v, r = f"<{_REGISTER} x i8>", f"<{width} x i8>"
    permute = "@llvm.x86.avx512.vpermi2var.qi.512"
    return f"""
define linkonce_odr hidden {r} @{_NAME}{width}({r} %x, {v} %a, {v} %b, {v} %c, {v} %d) alwaysinline {{
  %i = shufflevector {r} %x, {r} poison, <{_REGISTER} x i32> <{places}>
  %low = call {v} {permute}({v} %a, {v} %i, {v} %b)
  %high = call {v} {permute}({v} %c, {v} %i, {v} %d)
  %second = icmp slt {v} %i, zeroinitializer
  %y = select <{_REGISTER} x i1> %second, {v} %high, {v} %low
  %r = shufflevector {v} %y, {v} poison, <{width} x i32> <{first}>
  ret {r} %r
}}
"""


_FUNCTIONS: Final = f"""
declare <{_REGISTER} x i8> @llvm.x86.avx512.vpermi2var.qi.512(<{_REGISTER} x i8>, <{_REGISTER} x i8>, <{_REGISTER} x i8>)
{"".join(map(_function, WIDTHS))}"""
