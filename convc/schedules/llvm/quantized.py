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
    # A bias times a zero point that is known only at run time is added behind the sums.
    begun = (lambda func, knobs: func) if knobs.get("dynamic") else begin_with_bias
    if knobs.get("taps"):
        func = tap_quads.marked(begun(depthwise(func, knobs, target), knobs))
    elif knobs.get("depthwise"):
        func = depthwise(func, knobs, target)
    elif knobs.get("transposed"):
        func = subpixel(func, knobs, target)
    else:
        func = begun(direct(func, knobs, target), knobs)
    if knobs["dot"]:
        func = dots_inside(func, DOT)
    return marked(func) if knobs.get("packs") else func
