"""THE SCHEDULE of `schedules.inner_product`: the register tile is points times output channels, each a vector of input channels.

for batch, group of channels, phase, tile (parallel):
    for block of channels, tap:         s[point, k] += x[point] w[k]         whole vectors, points and channels unrolled
    for point, k:                       halves of s are added until one lane is left
    for k, point:                       y = epilogue(s)
"""

from __future__ import annotations

from typing import Any, Final

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import TensorLoad

from convc.schedules.llvm.tiling import (
    Block,
    Loop,
    accumulate,
    blocks_of,
    extent,
    inline_between,
    own_loops,
    parallelize,
    reductions,
    share_rows,
    split_tail,
)
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]


# Sums of a vector's lanes, in the order of the algorithm. LLVM 22 makes a dozen moves of each addition where it is told of single lanes.
_SUM: Final = "convc_sum_of_{}"


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.inner_product` scheduled."""
    sch = begin(func)
    out = inline_between(sch, ("acc", "across", "phases"))
    acc, across = sch.get_sblock("acc"), sch.get_sblock("across")
    if any(sch.get(block).name_hint == "phases" for block in blocks_of(sch)):
        n, ko, *axes, ki = sch.get_loops(sch.get_sblock("phases"))
        filters, places = axes[: len(axes) // 2], axes[len(axes) // 2 :]
        parallelize(sch, sch.get_loops(out)[:-1], knobs)
    else:
        n, k, *axes, _ = sch.get_loops(out)
        filters, places = (axes[1::2], axes[::2]) if len(axes) > 3 else ([], axes)
        ko, ki = sch.split(k, [None, min(knobs["channels"], extent(sch, k))])
    *slices, p, q = places
    pe, qe = extent(sch, p), extent(sch, q)
    po, pi = split_tail(sch, p, pe, knobs["rows"])
    qo, qi = split_tail(sch, q, qe, knobs["cols"])
    part, po = share_rows(sch, po, knobs)
    sch.reorder(n, *part, ko, *filters, *slices, po, qo, ki, pi, qi)
    sch.compute_at(across, qo, preserve_unit_loops=True)
    sch.set_scope(across, 0, "local")
    accumulate(sch, acc, qo, reductions(sch, acc), knobs["data_block"])
    first = _channels_innermost(sch, acc)
    for loop in (*own_loops(sch, across), ki, pi, qi):
        sch.unroll(loop)
    shared = [n, ko, *filters, *slices, *([] if pe % knobs["rows"] else [po])]
    parallelize(sch, [n, *part] if part else shared, knobs)
    sch.decompose_reduction(acc, first)
    sch.annotate(qo, "pragma_import_llvm", _sum_of(knobs["data_block"]))
    return _summed_by_function(sch.mod["main"], knobs["data_block"])


def _summed_by_function(func: tirx.PrimFunc, lanes: int) -> tirx.PrimFunc:
    """Return a scheduled function with a call for each sum of a vector's lanes."""

    def called(store: Any) -> Any:
        if not store.buffer.name.startswith("across"):
            return store
        loads: list[Any] = []
        tvm_ffi.structural_walk(store.value, (TensorLoad, loads.append))
        *at, _ = loads[0].indices
        vector = tirx.BufferLoad(loads[0].source, [*at, tirx.Ramp(0, 1, lanes)])
        call = tirx.call_pure_extern("float32", _SUM.format(lanes), vector)
        return tirx.BufferStore(store.buffer, call, store.indices)

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.BufferStore, called)))


def _sum_of(lanes: int) -> str:
    """Return the function in LLVM's language."""
    name, lines, value = _SUM.format(lanes), [], "%v"
    for half in (n for n in (32, 16, 8, 4, 2, 1) if n < lanes):
        kind = f"<{2 * half} x float>"
        for part, first in (("l", 0), ("h", half)):
            picked = ", ".join(f"i32 {first + i}" for i in range(half))
            lines.append(f"%{part}{half} = shufflevector {kind} {value}, {kind} poison, <{half} x i32> <{picked}>")  # fmt: skip
        lines.append(f"%s{half} = fadd <{half} x float> %l{half}, %h{half}")
        value = f"%s{half}"
    body = "\n  ".join([*lines, f"%r = extractelement <1 x float> {value}, i32 0", "ret float %r"])
    return f"define linkonce_odr hidden float @{name}(<{lanes} x float> %v) alwaysinline {{\n  {body}\n}}\n"


def _channels_innermost(sch: s_tir.Schedule, acc: Block) -> Loop:
    """Sum over blocks of channels innermost; return the outermost loop, before which the sums are zeroed.

    With a row's taps innermost LLVM unrolls them and keeps the points that they share in registers, of which then none are left for the
    sums: 64 -> 3 channels, 3x3 at 96 x 96, 319 us.
    """
    loops, axes = sch.get_loops(acc), reductions(sch, acc)
    begin = len(loops) - len(sch.get(acc).iter_vars) - 1  # the vectors' axis was split in two
    channels, *taps = loops[begin : begin + axes]
    sch.reorder(*taps, channels)
    return taps[0]
