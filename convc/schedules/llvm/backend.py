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
    compiler,
    elementwise,
    group_norm,
    local,
    quantized,
    softmax,
)
