"""The backend of CPUs."""

from __future__ import annotations

import math
from typing import Final

from convc.ir.spec import ConvSpec
from convc.ir.types import TensorType
from convc.schedules import dense, weight_gradient, weight_gradient_lanes
from convc.schedules import quantized as quantized_algorithm
from convc.schedules.backend import Backend
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

# Cycles of an element's move between plain order and blocks: 0.10 to 0.14 ns on a Zen 4 of 3.67 GHz, 7 x 7 to 28 x 28 points.
_MOVED: Final = 0.4


def _copy_seconds(value: TensorType, target: Target) -> float:
    return _MOVED * value.size / target.core.hertz


def _sum_cycles(results: int, terms: int, nbytes: int, target: Target, *, rounded: bool) -> float:
    return _SCALAR * results * terms


def _seconds(cycles: float, target: Target) -> float:
    return cycles / target.core.hertz / target.cores


def _plain_seconds(spec: ConvSpec, target: Target) -> float:
    # In one dimension and in three the others are plain, too.
    elements = math.prod(spec.data) + math.prod(spec.output)
    return _seconds(_MOVED * elements, target) if spec.rank == 2 else 0.0


BACKEND: Final = Backend(
    kind="llvm",
    algorithms=ALGORITHMS,
    packings=PACKINGS,
    weight_gradients=(weight_gradient, weight_gradient_lanes),
    quantized=(quantized_algorithm,),
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
