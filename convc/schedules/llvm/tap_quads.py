"""Four neighbours of a row in each lane: one load of 64 bytes and a permutation of bytes.

Rewrite:
    int32(x[c, 0:16]) | int32(x[c + 1, 0:16]) << 8 | int32(x[c + 2, 0:16]) << 16 | int32(x[c + 3, 0:16]) << 24
    -->
    permuted(x[c : c + 4, 0:16], [0, 16, 32, 48, 1, 17, 33, 49, ...])

LLVM makes one vpermb of the permutation where the CPU has it, two others elsewhere.
"""

from __future__ import annotations

from typing import Any, Final

import tvm_ffi
from tvm import tirx
from tvm.ir import StringImm, TensorLoad
from tvm.sym.analyzer import Analyzer

from convc.schedules.quads import QUAD

__all__ = ["loaded", "marked"]

_MARK: Final = "convc.tap_quads"
_LANES: Final = 16
_BYTES: Final = QUAD * _LANES
_NAME: Final = "convc_quads_of_taps"
_ORDER: Final = ", ".join(f"i32 {i * _LANES + lane}" for lane in range(_LANES) for i in range(QUAD))
_FUNCTION: Final = f"""
define linkonce_odr hidden <{_LANES} x i32> @{_NAME}(<{_BYTES} x i8> %x) alwaysinline {{
  %p = shufflevector <{_BYTES} x i8> %x, <{_BYTES} x i8> poison, <{_BYTES} x i32> <{_ORDER}>
  %r = bitcast <{_BYTES} x i8> %p to <{_LANES} x i32>
  ret <{_LANES} x i32> %r
}}
"""


def marked(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a scheduled function whose quads `loaded` is to rewrite."""
    return func.with_attr(_MARK, 1)


def loaded(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a marked function, whose vectors are vectors by now, with its quads loaded at once."""
    if _MARK not in (func.attrs or {}):
        return func
    body = tvm_ffi.structural_map(func.body, (tirx.BitwiseOr, _at_once))
    made = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", StringImm(_FUNCTION), body)
    return func.with_body(made)


def _at_once(node: Any) -> Any:
    loads = _neighbours(node)
    if loads is None:
        return node
    analyzer, first = Analyzer(), loads[0].indices[0].base
    distances = [analyzer.simplify(load.indices[0].base - first) for load in loads]
    if [int(d) for d in distances if isinstance(d, tirx.IntImm)] != [_LANES * i for i in range(QUAD)]:  # fmt: skip
        return node
    whole = tirx.BufferLoad(loads[0].source, [tirx.Ramp(first, 1, _BYTES)])
    return tirx.call_pure_extern(f"int32x{_LANES}", _NAME, whole)


def _neighbours(node: Any) -> list[Any] | None:
    """Return the four loads of 16 bytes of one buffer that an expression puts together."""
    parts: list[Any] = []
    while isinstance(node, tirx.BitwiseOr):
        parts.insert(0, node.b)
        node = node.a
    parts.insert(0, node)
    loads = [_loaded(part, 8 * i) for i, part in enumerate(parts)]
    found = [load for load in loads if load is not None and load.source.same_as(loads[0].source)]
    return found if len(found) == len(loads) == QUAD else None


def _loaded(part: Any, bits: int) -> Any:
    """Return the load of 16 bytes that a part is, moved by so many bits; None of any other part."""
    if bits:
        if not isinstance(part, tirx.LShift) or not isinstance(part.b, tirx.Broadcast):
            return None
        if int(part.b.value) != bits:
            return None
        part = part.a
    if not isinstance(part, tirx.Cast) or not isinstance(part.value, TensorLoad):
        return None
    load = part.value
    index = load.indices[0]
    whole = len(load.indices) == 1 and isinstance(index, tirx.Ramp) and int(index.lanes) == _LANES
    return load if whole and int(index.stride) == 1 else None
