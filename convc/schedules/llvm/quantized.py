"""THE SCHEDULE of `schedules.quantized`: that of `direct`, `subpixel` or `depthwise`, sums inside the instruction for four products."""

from __future__ import annotations

from tvm import tirx

from convc.schedules.llvm.convolutions import depthwise, direct, subpixel
from convc.schedules.llvm.dots import dots_inside
from convc.schedules.plan import Knobs
from convc.schedules.quads import DOT
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.quantized` scheduled."""
    if knobs.get("depthwise"):
        return depthwise(func, knobs, target)
    func = (subpixel if knobs.get("transposed") else direct)(func, knobs, target)
    return dots_inside(func, DOT) if knobs["dot"] else func
