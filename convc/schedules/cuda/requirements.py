"""What products on tensor cores require of a convolution, said once and in one order."""

from __future__ import annotations

from collections.abc import Sequence

from convc.schedules.algorithm import Problem
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.mma import too_old
from convc.schedules.cuda.subpixel import ALGORITHM as SUBPIXEL
from convc.schedules.matrices import Matrices
from convc.schedules.plan import Unsupported
from convc.target import Target

__all__ = ["on_tensor_cores", "whole_tiles"]


def on_tensor_cores(problem: Problem, target: Target, types: Sequence[str]) -> Unsupported | None:
    """Return why a device's tensor cores do not compute the products of a convolution of these types, or None."""
    spec = problem.spec
    if (old := too_old(target)) is not None:
        return old
    if spec.dtype not in types:
        return Unsupported(f"element type must be {', '.join(types)}; got {spec.dtype}")
    if problem.accumulator != "float32":
        return Unsupported(f"sums must be of float32; got {problem.accumulator}")
    refused = SUBPIXEL.refusal(spec) if spec.transposed else None
    return refused or indexed(spec)


def whole_tiles(m: Matrices, channels: int) -> Unsupported | None:
    """Return why products of several groups or phases are not whole tiles of so many channels: padding would be another's."""
    if (m.groups > 1 or m.phases > 1) and m.channels % channels:
        return Unsupported(
            f"output channels of a group or phase must be a multiple of {channels}; got {m.channels}"
        )
    return None
