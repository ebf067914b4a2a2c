"""Software prefetch of weights: a pass over lowered code, asked for by an attribute of the kernel.

Weights are packed in the order in which a kernel reads them, and in a network they come from beyond L2. The many FMAs of a register
tile that wait for one vector of weights fill the core's scheduler, so that too few loads are in flight, and the hardware's
prefetcher does not run far enough ahead.

Rewrite:
    for c in range(C):
        acc[0] += x[...] * w[c * 32 : +16];  acc[1] += x[...] * w[c * 32 + 16 : +16]; ...
    -->
    for c in range(C):
        acc[0] += ...
        prefetch(&w[c * 32] + 16 KiB);  prefetch(&w[c * 32 + 16] + 16 KiB)

Measured on one core of an Intel Xeon (Emerald Rapids), weights in L3, direct-method GFLOP/s without -> with: 3x3 512 channels 7 x 7
direct 91 -> 136, Winograd F(2, 3) 89 -> 136; 3x3 256 at 14 x 14 Winograd F(5, 3) 144 -> 266; 1x1 512 -> 2048 at 7 x 7 121 -> 150. With
the weights in L1 or L2 already no difference above noise (3x3 64 at 56 x 56: 172, 171), so every kernel with packed weights asks.
"""

from __future__ import annotations

from typing import Any, Final

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad

__all__ = ["insert_prefetches", "with_prefetch"]

_ATTRIBUTE: Final = "convc.prefetch"

# From 4 KiB to 32 KiB ahead all are within 3 %; 1 KiB is 10 % slower than this.
_AHEAD_BYTES: Final = 16 << 10

# LLVM's locality: 2 brings the line to L2. To L1 (3) is 2 to 5 % slower: it has too few lines in flight itself.
_TO_L2: Final = 2


def with_prefetch(func: tirx.PrimFunc, buffer: str) -> tirx.PrimFunc:
    """Return the function with the wish that loops fetch what they will soon read of this parameter, packed weights."""
    return func.with_attr(_ATTRIBUTE, buffer)


def _places(body: Any, buffer: str) -> list[Any]:
    """Return the loads of a buffer, each place once."""
    found: dict[str, Any] = {}

    def note(load: Any) -> None:
        if load.source.name == buffer:
            found.setdefault(str(load.indices[0]), load)

    tvm_ffi.structural_walk(body, (TensorLoad, note))
    return list(found.values())


def _is_innermost(loop: Any) -> bool:
    inner: list[Any] = []
    tvm_ffi.structural_walk(loop.body, (tirx.For, inner.append))
    return not inner


def _fetch(load: Any) -> Any:
    """Return the prefetch of what lies `_AHEAD_BYTES` behind a load's first element; beyond the end it is no fault, but ignored."""
    (index,) = load.indices
    first = index.base if isinstance(index, tirx.Ramp) else index
    size = tvm.DataType(load.source.dtype).itemsize
    address = tirx.address_of(tirx.BufferLoad(load.source, [first + _AHEAD_BYTES // size]))
    read, data = 0, 1
    return tirx.Evaluate(
        tirx.call_llvm_intrin("void", "llvm.prefetch", address, read, _TO_L2, data)
    )


@tirx.transform.prim_func_pass(opt_level=0, name="convc.InsertPrefetches")
def insert_prefetches(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: Any) -> tirx.PrimFunc:
    """Insert the prefetches that the function asks for, see `with_prefetch`."""
    buffer = func.attrs.get(_ATTRIBUTE) if func.attrs else None
    if buffer is None:
        return func

    def ahead(loop: Any) -> Any:
        if not _is_innermost(loop):
            return loop
        body = loop.body
        parts = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
        # Behind the rest: subexpressions that the addresses share are bound at the beginning.
        fetches = [_fetch(load) for load in _places(body, str(buffer))]
        if not fetches:
            return loop
        body = tirx.SeqStmt([*parts, *fetches])
        return tirx.For(
            loop.loop_var, loop.min, loop.extent, loop.kind, body, loop.thread_binding, loop.annotations
        )  # fmt: skip

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, ahead)))
