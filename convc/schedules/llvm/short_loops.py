"""Short loops that store narrowed elements, written out: LLVM writes past the end of the others.

Rewrite:
    for i in range(16): if i < 9: y[i] = uint16(v[i])
    -->
    y[0] = uint16(v[0]); y[1] = uint16(v[1]); ...

LLVM makes masked vectors of such loops, which TVM leaves of a vector with a condition, and of those of fewer than 16 rounds; what a mask of
one lane leaves of a narrowed vector it stores in its wide type (LLVM 22): of nine bfloat16, the ninth as four bytes, two of them zeros.
Where another thread had the next row its first element was lost; behind the last row it is somebody else's memory.
"""

from __future__ import annotations

from typing import Any, Final

import tvm
import tvm_ffi
from tvm import tirx

__all__ = ["write_out"]

# The lanes of the widest vector, of bytes.
_SHORT: Final = 64
_NARROW_BITS: Final = 16


def _narrows(store: Any) -> bool:
    value = store.value
    if not isinstance(value, tirx.Cast):
        return False
    narrow, wide = (tvm.DataType(str(v.ty.dtype)) for v in (value, value.value))
    return narrow.bits <= _NARROW_BITS < wide.bits


def _written_out(loop: Any) -> Any:
    if loop.kind != tirx.ForKind.SERIAL or not isinstance(loop.extent, tirx.IntImm):
        return loop
    stores: list[Any] = []
    inner: list[Any] = []
    tvm_ffi.structural_walk(loop.body, (tirx.BufferStore, stores.append))
    tvm_ffi.structural_walk(loop.body, (tirx.For, inner.append))
    if int(loop.extent) > _SHORT or inner or not any(map(_narrows, stores)):
        return loop
    return tirx.For(
        loop.loop_var, loop.min, loop.extent, tirx.ForKind.UNROLLED, loop.body, None,
        loop.annotations,
    )  # fmt: skip


def write_out(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a function, vectors being vectors, with the innermost short loops that store narrowed elements marked as unrolled."""
    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, _written_out)))
