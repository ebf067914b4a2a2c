"""A warp's function in the place of the loops of a product: the rest of the kernel stays an ordinary schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.ir import Range

__all__ = ["Region", "region", "replace_by_call", "wait_apart", "window"]

Region = Any  # a part of a buffer; TVM's class has no public name that pyright knows


def replace_by_call(
    sch: s_tir.Schedule,
    loops: int,
    names: tuple[str, str],
    operands: Callable[[Region, Region, Region], tuple[Region, Region]],
    name: str,
    source: str,
) -> None:
    """Put a call in the place of the innermost loops of `acc_update`, told where the warp's tile of each operand begins.

    Args:
        sch: the schedule.
        loops: how many.
        names: of the blocks that the operands come from, in the call's order behind the sums.
        operands: the regions that the loops touch, sums first -> those that the call reads.
        name: of the function, `void name(float* sums, const void*, const void*)`.
        source: that defines it.
    """
    block = sch.blockize(sch.get_loops(sch.get_sblock("acc_update"))[-loops])
    old = sch.get(block)
    acc, *reads = old.reads
    named = {str(r.source.name).partition("_")[0]: r for r in reads}
    regions = (acc, *operands(acc, *(named[n] for n in names)))
    windows = [window(part, f"{n}_window") for part, n in zip(regions, ("sums", *names), strict=True)]  # fmt: skip
    pointers = [w.access_ptr(mode) for w, mode in zip(windows, ("rw", "r", "r"), strict=True)]
    call = tirx.Evaluate(cuda_func_call(name, *pointers, source_code=source))
    matched = [s_tir.MatchBufferRegion(w, r) for w, r in zip(windows, regions, strict=True)]
    new = s_tir.SBlock(old.iter_vars, list(regions), [acc], old.name_hint, call, None, [], matched)
    sch.state.replace(sch.get_sref(block), new, {old: new})


def wait_apart(sch: s_tir.Schedule, step: Any, name: str) -> None:
    """Put `name_wait(sums)` behind the call that `replace_by_call` made, a block of its own that holds the call's operands until then.

    Args:
        sch: the schedule.
        step: the loop over steps, which the call's block stands in.
        name: of the call's function.
    """
    loop = sch.get(step)
    *before, nest = loop.body.seq
    assert isinstance(nest, tirx.For)
    realize = nest.body
    old = realize.block
    axes = [tirx.IterVar(v.dom, f"{v.var.name}_wait", v.iter_type) for v in old.iter_vars]
    renamed = [(v.var, axis.var) for v, axis in zip(old.iter_vars, axes, strict=True)]
    parts = [_renamed_region(part, renamed) for part in old.reads]
    sums = window(parts[0], "waited_window")
    call = tirx.Evaluate(cuda_func_call(f"{name}_wait", sums.access_ptr("rw"), source_code=""))
    matched = [s_tir.MatchBufferRegion(sums, parts[0])]
    block = s_tir.SBlock(axes, parts, [parts[0]], f"{old.name_hint}_wait", call, None, [], matched)
    unit = tirx.Var(f"{nest.loop_var.name}_wait", "int32")
    values = [_renamed(v, [(nest.loop_var, unit)]) for v in realize.iter_values]
    waiting = tirx.For(
        unit,
        nest.min,
        nest.extent,
        nest.kind,
        s_tir.SBlockRealize(values, realize.predicate, block),
    )
    body = tirx.SeqStmt([*before, nest, waiting])
    new = tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, loop.thread_binding, loop.annotations)  # fmt: skip
    sch.state.replace(sch.get_sref(step), new, {})


def _renamed_region(part: Region, names: Sequence[tuple[Any, Any]]) -> Region:
    return region(part, *(Range.from_min_extent(_renamed(r.min, names), r.extent) for r in part.region))  # fmt: skip


def _renamed(expression: Any, names: Sequence[tuple[Any, Any]]) -> Any:
    def other(var: Any) -> Any:
        return next((new for old, new in names if var.same_as(old)), var)

    return tvm_ffi.structural_map(expression, (tirx.Var, other))


def region(part: Region, *ranges: Any) -> Region:
    """Return another part of the same buffer."""
    return tirx.BufferRegion(part.source, list(ranges))


def window(part: Region, name: str) -> Any:
    """Return a buffer over a part of another, wherever that lies and whatever its strides are."""
    whole = part.source
    shape = [r.extent for r in part.region]
    strides = [tirx.Var(f"{name}_stride{i}", "int32") for i in range(len(shape))]
    offset = tirx.Var(f"{name}_offset", "int32")
    return tirx.decl_buffer(
        shape, whole.dtype, name, strides=strides, elem_offset=offset, scope=whole.scope(), offset_factor=1
    )  # fmt: skip
