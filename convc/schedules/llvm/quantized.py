"""THE SCHEDULE of `schedules.quantized`: that of `direct`, the sums inside the instruction that adds four products, or of `depthwise`."""

from __future__ import annotations

from tvm import tirx

from convc.schedules.llvm.convolutions import depthwise, direct
from convc.schedules.llvm.dots import dots_inside
from convc.schedules.plan import Knobs
from convc.schedules.quantized import DOT
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.quantized` scheduled."""
    if knobs.get("depthwise"):
        return depthwise(func, knobs, target)
    func = direct(func, knobs, target)
    return dots_inside(func, DOT) if knobs["dot"] else func
