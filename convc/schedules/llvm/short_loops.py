"""Short loops that store narrowed elements, written out: LLVM writes past the end of the others.

Rewrite:
    for i in range(16): if i < 9: y[i] = uint16(v[i])
    -->
    y[0] = uint16(v[0]); y[1] = uint16(v[1]); ...

LLVM makes masked vectors of such loops, which TVM leaves of a vector with a condition, and of those of fewer than 16 rounds; what a
mask of one lane leaves of a narrowed vector it stores in its wide type (LLVM 22): of nine bfloat16, the ninth as four bytes, two of them
zeros. Where another thread had the next row its first element was lost; behind the last row it is somebody else's memory. Loops of more
than 64 rounds lose the condition alone, so that their rest is a loop of scalars.
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
    # LLVM makes no vectors of what are vectors.
    return narrow.bits <= _NARROW_BITS < wide.bits and wide.lanes == 1


def _clipped(loop: Any) -> Any:
    """Return a loop of which only the first rounds do anything without the others: then no mask is left."""
    body = loop.body
    if not isinstance(body, tirx.IfThenElse) or body.else_case is not None or int(loop.min):
        return loop
    test = body.condition
    if not isinstance(test, tirx.LT) or not test.a.same_as(loop.loop_var):
        return loop
    if not isinstance(test.b, tirx.IntImm) or not 0 < int(test.b) <= int(loop.extent):
        return loop
    kind, annotations = loop.kind, loop.annotations
    return tirx.For(loop.loop_var, loop.min, test.b, kind, body.then_case, None, annotations)


def _written_out(loop: Any) -> Any:
    if loop.kind != tirx.ForKind.SERIAL or not isinstance(loop.extent, tirx.IntImm):
        return loop
    stores: list[Any] = []
    inner: list[Any] = []
    tvm_ffi.structural_walk(loop.body, (tirx.BufferStore, stores.append))
    tvm_ffi.structural_walk(loop.body, (tirx.For, inner.append))
    if inner or not any(map(_narrows, stores)):
        return loop
    loop = _clipped(loop)
    if int(loop.extent) > _SHORT:
        return loop
    kind, body = tirx.ForKind.UNROLLED, loop.body
    return tirx.For(loop.loop_var, loop.min, loop.extent, kind, body, None, loop.annotations)


def write_out(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a function, vectors being vectors, whose innermost loops that store narrowed elements are unrolled, or lose a condition."""
    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, _written_out)))
