"""Asynchronous copies to shared memory, in our words in place of TVM's.

TVM's copy of what may lie outside is a branch around cp.async and a store of zeros behind it, eight instructions, and every copy computes
an address of its own, three more. Here the instruction itself fills with zeros, and what is constant of an offset stays apart from the
rest, so that copies of one thread share an address and differ by what the instruction adds.

Rewrite (of a kernel's body):
    cp_async_raw(to, offset, from, offset, bytes[, condition])
    -->
    convc_copy(to, offset, constant, from, offset, constant[, condition])

    to[16 bytes] = from[16 bytes] if condition else 16 times a constant
    -->
    convc_copy_or_<constant>(to, offset, constant, from, offset, constant, condition)

    to[16 bytes] = 16 times a constant
    -->
    convc_fill_<constant>(to, offset, constant)

The last two are of bytes, which have a zero point, and which TVM copies by load and store: cp.async can fill with zeros alone, so that
what lies outside is a copy of 16 bytes of memory that hold the constant.

Copies of 16 bytes are read from L2 alone, as TVM's are, but where the source's name ends in `CACHED`: those come through L1, as smaller
ones must.

SOURCE  PTX ISA, "cp.async": src-size, .ca and .cg; CUTLASS, cutlass/arch/memory_sm80.h (cp_async_zfill)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import tvm
import tvm_ffi
from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call

from convc.schedules.cuda.mma import once
from convc.schedules.cuda.wgmma import behind_copies
from convc.schedules.vector_gemm import CACHED

__all__ = ["own_copies"]

_RAW: Final = "tirx.s_tir.cp_async_raw"
_WHOLE: Final = 16  # bytes
_CHOICE: Final = tvm.ir.Op.get("prim.if_then_else")

Expr = Any  # TVM's scalar expressions have no common public class in 0.27

_COPY: Final = """\
static __device__ __forceinline__ void {name}(void* to, int to_offset, int to_more, const void* from, int offset, int more{taken}) {{
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to)) + to_offset * {to_size} + to_more * {to_size};
  const char* source = static_cast<const char*>(from) + static_cast<long long>(offset) * {size} + static_cast<long long>(more) * {size};
  asm volatile("cp.async.{kind}.shared.global [%0], [%1], {nbytes}{read};" :: "r"(at), "l"({source}){operand});
}}
"""

_ROW: Final = "convc_row_of_{}"
_FILL: Final = """\
static __device__ __forceinline__ void {name}(void* to, int to_offset, int to_more) {{
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to)) + to_offset * {to_size} + to_more * {to_size};
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(at), "l"(reinterpret_cast<const char*>(&{row})));
}}
"""


@tirx.transform.prim_func_pass(opt_level=0, name="convc.OwnCopies")
def own_copies(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: Any) -> tirx.PrimFunc:
    """Rewrite the copies of one kernel, and if it stores nothing in shared memory itself the products that read them."""
    body = tvm_ffi.structural_map(func.body, (tirx.BufferStore, _filled))
    stores: list[Any] = []

    def noted(store: Any) -> Any:
        if str(store.buffer.scope()).startswith("shared"):
            stores.append(store)
        return store

    tvm_ffi.structural_map(body, (tirx.BufferStore, noted))
    body = tvm_ffi.structural_map(body, (tvm.ir.Call, _own))
    return func.with_body(
        body if stores else tvm_ffi.structural_map(body, (tvm.ir.StringImm, _copied))
    )


def _copied(text: tvm.ir.StringImm) -> tvm.ir.StringImm:
    return tvm.ir.StringImm(behind_copies(text.value))


def _own(call: tvm.ir.Call) -> tvm.ir.Call:
    if getattr(call.op, "name", "") != _RAW:
        return call
    to, to_offset, source, offset, size, *condition = call.args
    return _copy(to, to_offset, source, offset, int(size), condition)


def _filled(store: tirx.BufferStore) -> tirx.Stmt:
    """Return an asynchronous copy in place of 16 times one byte, or of a choice between 16 bytes of memory and that."""
    value, scope = store.value, str(store.buffer.scope())
    chosen = getattr(value, "op", None) == _CHOICE
    otherwise = value.args[2] if chosen else value
    if not scope.startswith("shared") or not _is_one_byte(otherwise):
        return store
    fill, (to,) = int(otherwise.value), store.indices
    if not chosen:
        return tirx.Evaluate(_constant(store.buffer.data, to.base, fill))
    condition, load, _ = value.args
    if not isinstance(load, tvm.ir.TensorLoad) or not _is_whole(load.indices[0]):
        return store
    places = (store.buffer.data, to.base, load.source.data, load.indices[0].base)
    return tirx.Evaluate(_copy(*places, _WHOLE, [condition], fill))


def _is_one_byte(value: Expr) -> bool:
    return (
        isinstance(value, tirx.Broadcast)
        and str(value.value.ty.dtype) == "uint8"
        and int(value.lanes) == _WHOLE
        and isinstance(value.value, tirx.IntImm)
    )


def _is_whole(index: Expr) -> bool:
    return isinstance(index, tirx.Ramp) and int(index.stride) == 1 and int(index.lanes) == _WHOLE


def _copy(
    to: Expr, to_offset: Expr, source: Expr, offset: Expr, nbytes: int, condition: Sequence[Expr], fill: int = 0
) -> tvm.ir.Call:  # fmt: skip
    """Return the call of a copy of `nbytes`, or without its condition of as many bytes that are `fill`."""
    kind = "cg" if nbytes == _WHOLE and not _is_cached(source) else "ca"
    sizes = _element_bytes(to), _element_bytes(source)
    otherwise = f"_or_{fill or 'zero'}" if condition else ""
    name = f"convc_copy_{kind}_{nbytes}_{sizes[0]}_{sizes[1]}{otherwise}"
    zeros, row = bool(condition) and not fill, _ROW.format(fill)
    source_code = _COPY.format(
        name=name, kind=kind, nbytes=nbytes, to_size=sizes[0], size=sizes[1],
        taken=", int taken" if condition else "", read=", %2" if zeros else "",
        operand=f', "r"(taken ? {nbytes} : 0)' if zeros else "",
        source=f"taken ? source : reinterpret_cast<const char*>(&{row})" if fill else "source",
    )  # fmt: skip
    if fill:
        source_code = _row(fill) + source_code
    places = (to, *_apart(to_offset), source, *_apart(offset))
    return cuda_func_call(name, *places, *condition, source_code=once(name, source_code))


def _constant(to: Expr, to_offset: Expr, fill: int) -> tvm.ir.Call:
    """Return the call of a copy of 16 bytes that are `fill`."""
    name = f"convc_fill_{_element_bytes(to)}_{fill}"
    source = _FILL.format(name=name, to_size=_element_bytes(to), row=_ROW.format(fill))
    return cuda_func_call(name, to, *_apart(to_offset), source_code=once(name, _row(fill) + source))


def _row(fill: int) -> str:
    """Return CUDA C that defines 16 bytes of memory that hold `fill`."""
    name, word = _ROW.format(fill), f"0x{4 * f'{fill:02x}'}u"
    return once(
        name, f"static __device__ const uint4 {name} = {{{word}, {word}, {word}, {word}}};\n"
    )


def _is_cached(source: Expr) -> bool:
    return str(source.args[0].name).endswith(CACHED)


def _element_bytes(pointer: Expr) -> int:
    return tvm.DataType(str(pointer.ty.element_type.dtype)).itemsize


def _apart(offset: Expr) -> tuple[Expr, Expr]:
    """Return an offset as a sum of what a thread computes and a constant."""
    none = tirx.const(0, "int32")
    if isinstance(offset, tirx.IntImm):
        return none, offset
    if isinstance(offset, tirx.Add) and isinstance(offset.b, tirx.IntImm):
        return offset.a, offset.b
    if isinstance(offset, tirx.Sub) and isinstance(offset.b, tirx.IntImm):
        return offset.a, tirx.const(-int(offset.b), "int32")
    return offset, none
