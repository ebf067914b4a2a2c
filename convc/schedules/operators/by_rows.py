"""What the ops that run a row at a time share: their vectors, and from which size on threads share them."""

from __future__ import annotations

from typing import Final

from convc.ir.types import TensorType
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["LONGEST_ROW", "row_knobs"]

# A launch of several threads takes 3 us, an element a cycle.
_PARALLEL_ELEMENTS: Final = 16 << 10

# The scratch of one row, 256 KiB. Up to 4096 elements it stays in L1; from L2 softmax takes 0.4 to 1.1 ns an element, TOPI's 7.
LONGEST_ROW: Final = 65536


def row_knobs(data: TensorType, axis: int, target: Target) -> Knobs:
    """Return the knobs of `llvm.rows`; vectors are no longer than the last axis.

    Example:
        >>> from convc.target import parse_target
        >>> avx512 = parse_target("llvm", "znver4")
        >>> row_knobs(TensorType((64, 49)), 1, avx512)["lanes"], row_knobs(TensorType((64, 12)), 1, avx512)["lanes"]
        (16, 8)
    """
    lanes = target.lanes
    while lanes > data.shape[-1]:
        lanes //= 2
    return {"axis": axis, "lanes": lanes, "parallel": int(data.size >= _PARALLEL_ELEMENTS)}
