"""What follows a library's call on a device, as one kernel: the call stays as it is, everything behind it is computed a thread a result."""

from __future__ import annotations

from tvm import s_tir, tirx

from convc.schedules.cuda.any_op import schedule_block
from convc.schedules.library_call import CALL_BLOCK
from convc.target import Target

__all__ = ["schedule_behind"]


def schedule_behind(func: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """Return a function that calls a library, scheduled."""
    # A call alone is the function's whole body, with no root around it.
    if func.body.block.name_hint == CALL_BLOCK:
        return func
    sch = s_tir.Schedule(func)
    root = sch.get_sblock("root")
    results = {sch.get(b).name_hint for b in sch.get_output_blocks(root)}
    for block in sch.get_child_blocks(root):
        name = sch.get(block).name_hint
        if name in results:
            schedule_block(sch, block, target)
        elif name != CALL_BLOCK:
            sch.compute_inline(block)
    return sch.mod["main"]
