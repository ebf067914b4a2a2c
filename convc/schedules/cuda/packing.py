"""THE SCHEDULE of packing weights on a device: a thread for each element, neighbours writing neighbours; of Winograd's, for each filter.

Rewrite:
    taps[c, k, r, s] = w[k, c, r, s];  half[c, k, i, s] = G taps;  packed[z, ...] = half H_T
    -->
    for c, k (threads, as the packed weights lie): taps, half in registers;  for z: packed[z, ...] = ...       unrolled
"""

from __future__ import annotations

from typing import Final

from tvm import tirx

from convc.schedules.cuda import any_op, fft_filter_transforms
from convc.schedules.cuda.product import blocks_of
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]

_THREADS: Final = 128


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of a packing scheduled, by its stages: of `fft` rows `S`, of Winograd `half`, of all others one."""
    sch = begin(func)
    stages = {sch.get(block).name_hint for block in blocks_of(sch)}
    if "S" in stages:
        return fft_filter_transforms.schedule(sch, knobs)
    if "half" not in stages:
        return any_op.schedule(func, target)
    z, *lanes = sch.get_loops(sch.get_sblock("packed"))
    sch.reorder(*lanes, z)
    block, thread = sch.split(sch.fuse(*lanes), [None, _THREADS])
    sch.bind(block, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    sch.unroll(z)
    for name in ("half", "taps"):
        stage = sch.get_sblock(name)
        sch.set_scope(stage, 0, "local")
        sch.compute_at(stage, thread, preserve_unit_loops=True)
        for loop in sch.get_loops(stage)[-2:]:
            sch.unroll(loop)
    return sch.mod["main"]
