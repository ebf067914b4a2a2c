"""Asynchronous copies to shared memory, in our words in place of TVM's.

TVM's copy of what may lie outside is a branch around cp.async and a store of zeros behind it, eight instructions, and every copy computes
an address of its own, three more. Here the instruction itself fills with zeros, and what is constant of an offset stays apart from the
rest, so that copies of one thread share an address and differ by what the instruction adds.

Rewrite (of a kernel's body):
    cp_async_raw(to, offset, from, offset, bytes[, condition])
    -->
    convc_copy(to, offset, constant, from, offset, constant[, condition])

Copies of 16 bytes are read from L2 alone, as TVM's are, but where the source's name ends in `CACHED`: those come through L1, as smaller
ones must.

SOURCE  PTX ISA, "cp.async": src-size, .ca and .cg; CUTLASS, cutlass/arch/memory_sm80.h (cp_async_zfill)
"""

from __future__ import annotations

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

Expr = Any  # TVM's scalar expressions have no common public class in 0.27

_COPY: Final = """\
static __device__ __forceinline__ void {name}(void* to, int to_offset, int to_more, const void* from, int offset, int more{taken}) {{
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to)) + to_offset * {to_size} + to_more * {to_size};
  const char* source = static_cast<const char*>(from) + static_cast<long long>(offset) * {size} + static_cast<long long>(more) * {size};
  asm volatile("cp.async.{kind}.shared.global [%0], [%1], {nbytes}{read};" :: "r"(at), "l"(source){operand});
}}
"""


@tirx.transform.prim_func_pass(opt_level=0, name="convc.OwnCopies")
def own_copies(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: Any) -> tirx.PrimFunc:
    """Rewrite the copies of one kernel, and if it stores nothing in shared memory itself the products that read them."""
    stores: list[Any] = []

    def noted(store: Any) -> Any:
        if str(store.buffer.scope()).startswith("shared"):
            stores.append(store)
        return store

    tvm_ffi.structural_map(func.body, (tirx.BufferStore, noted))
    body = tvm_ffi.structural_map(func.body, (tvm.ir.Call, _own))
    return func.with_body(
        body if stores else tvm_ffi.structural_map(body, (tvm.ir.StringImm, _copied))
    )


def _copied(text: tvm.ir.StringImm) -> tvm.ir.StringImm:
    return tvm.ir.StringImm(behind_copies(text.value))


def _own(call: tvm.ir.Call) -> tvm.ir.Call:
    if getattr(call.op, "name", "") != _RAW:
        return call
    to, to_offset, source, offset, size, *condition = call.args
    nbytes = int(size)
    kind = "cg" if nbytes == _WHOLE and not _is_cached(source) else "ca"
    sizes = _element_bytes(to), _element_bytes(source)
    name = f"convc_copy_{kind}_{nbytes}_{sizes[0]}_{sizes[1]}{'_or_zero' if condition else ''}"
    source_code = _COPY.format(
        name=name, kind=kind, nbytes=nbytes, to_size=sizes[0], size=sizes[1],
        taken=", int taken" if condition else "", read=", %2" if condition else "",
        operand=f', "r"(taken ? {nbytes} : 0)' if condition else "",
    )  # fmt: skip
    places = (to, *_apart(to_offset), source, *_apart(offset))
    return cuda_func_call(name, *places, *condition, source_code=once(name, source_code))


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
