"""The backend of CPUs."""

from __future__ import annotations

from typing import Final

from convc.ir.spec import ConvSpec
from convc.ir.types import TensorType
from convc.schedules import dense, weight_gradient, weight_gradient_lanes
from convc.schedules.backend import Backend
from convc.schedules.generic import reorder_cycles
from convc.schedules.llvm import (
    channel_moves,
    channels_last,
    compiler,
    elementwise,
    grid_points,
    group_norm,
    local,
    permutation,
    quantized,
    row_sums,
    rows,
    transposed_tiles,
)
from convc.schedules.llvm.convolutions import SCHEDULES
from convc.schedules.llvm.packings import PACKINGS
from convc.schedules.sharing import PARALLEL
from convc.schedules.table import ALGORITHMS
from convc.target import Target

__all__ = ["BACKEND"]

# Cycles of a multiply-add whose sum is one chain of scalars.
_SCALAR: Final = 4.0

# A copy from one block to another: a cycle an element, as `generic.reorder_cycles` counts it, at 3.6 GHz.
_COPIED_A_SECOND: Final = 3.6e9


def _copy_seconds(value: TensorType, target: Target) -> float:
    return value.size / _COPIED_A_SECOND


def _sum_cycles(results: int, terms: int, nbytes: int, target: Target, *, rounded: bool) -> float:
    return _SCALAR * results * terms


def _seconds(cycles: float, target: Target) -> float:
    return cycles / target.core.hertz / target.cores


def _plain_seconds(spec: ConvSpec, target: Target) -> float:
    return _seconds(reorder_cycles(spec), target)


BACKEND: Final = Backend(
    kind="llvm",
    algorithms=ALGORITHMS,
    packings=PACKINGS,
    weight_gradients=(weight_gradient, weight_gradient_lanes),
    schedules={
        **SCHEDULES,
        **local.SCHEDULES,
        "quantized": quantized.schedule,
        "rows": rows.schedule,
        "permutation": permutation.schedule,
        "channels_last": channels_last.schedule,
        "group_norm": group_norm.schedule,
        "grid_points": grid_points.schedule,
        "row_sums": row_sums.schedule,
    },
    dense=dense,
    schedule_any=elementwise.schedule,
    schedule_transpose=transposed_tiles.schedule,
    schedule_channels=channel_moves.schedule,
    seconds=_seconds,
    sum_cycles=_sum_cycles,
    copy_seconds=_copy_seconds,
    plain_seconds=_plain_seconds,
    compile=compiler.compile_objects,
    parallel_cycles=PARALLEL,
    chains=True,
    widens=True,
)
