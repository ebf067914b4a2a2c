"""THE SCHEDULE of `schedules.quantized`: that of `direct`, `subpixel` or `depthwise`, sums inside the instruction for four products."""

from __future__ import annotations

from tvm import tirx

from convc.schedules.llvm import tap_quads
from convc.schedules.llvm.byte_stores import marked
from convc.schedules.llvm.convolutions import depthwise, direct, subpixel
from convc.schedules.llvm.dots import dots_inside
from convc.schedules.llvm.first_terms import begin_with_bias
from convc.schedules.plan import Knobs
from convc.schedules.quads import DOT
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.quantized` scheduled."""
    if knobs.get("taps"):
        func = tap_quads.marked(begin_with_bias(depthwise(func, knobs, target), knobs))
    elif knobs.get("depthwise"):
        func = depthwise(func, knobs, target)
    elif knobs.get("transposed"):
        func = subpixel(func, knobs, target)
    else:
        func = begin_with_bias(direct(func, knobs, target), knobs)
    if knobs["dot"]:
        func = dots_inside(func, DOT)
    return marked(func) if knobs.get("packs") else func
