"""A warp's function in the place of the loops of a product: the rest of the kernel stays an ordinary schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import s_tir, tirx
from tvm.backend.cuda.op import cuda_func_call

__all__ = ["Region", "region", "replace_by_call"]

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
    windows = [_window(part, f"{n}_window") for part, n in zip(regions, ("sums", *names), strict=True)]  # fmt: skip
    pointers = [w.access_ptr(mode) for w, mode in zip(windows, ("rw", "r", "r"), strict=True)]
    call = tirx.Evaluate(cuda_func_call(name, *pointers, source_code=source))
    matched = [s_tir.MatchBufferRegion(w, r) for w, r in zip(windows, regions, strict=True)]
    new = s_tir.SBlock(old.iter_vars, list(regions), [acc], old.name_hint, call, None, [], matched)
    sch.state.replace(sch.get_sref(block), new, {old: new})


def region(part: Region, *ranges: Any) -> Region:
    """Return another part of the same buffer."""
    return tirx.BufferRegion(part.source, list(ranges))


def _window(part: Region, name: str) -> Any:
    """Return a buffer over a part of another, wherever that lies and whatever its strides are."""
    whole = part.source
    shape = [r.extent for r in part.region]
    strides = [tirx.Var(f"{name}_stride{i}", "int32") for i in range(len(shape))]
    offset = tirx.Var(f"{name}_offset", "int32")
    return tirx.decl_buffer(
        shape, whole.dtype, name, strides=strides, elem_offset=offset, scope=whole.scope(), offset_factor=1
    )  # fmt: skip
