"""The backend of CUDA devices."""

from __future__ import annotations

from typing import Final

from convc.ir.types import TensorType
from convc.schedules.backend import Backend, Schedule
from convc.schedules.cuda import (  # fmt: skip
    any_op,
    block_points,
    compiler,
    cudnn,
    cudnn_weight_gradient,
    cutlass,
    dense,
    depthwise,
    depthwise_blocked,
    depthwise_bytes,
    direct,
    fft,
    fft_transforms,
    folded_rows,
    generic,
    packing,
    points,
    product,
    row_warps,
    subpixel,
    tensor_core,
    tensor_core_blocked,
    tensor_core_bytes,
    tensor_core_bytes_folded,
    tensor_core_folded,
    tf32,
    transforms,
    warps,
    weight_gradient,
    weight_gradient_blocked,
    weight_gradient_grouped,
    weight_gradient_tensor_core,
    winograd,
)
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles
from convc.schedules.cuda.packings import PACKINGS
from convc.target import Target

__all__ = ["ALGORITHMS", "BACKEND", "SCHEDULES"]

# In order of preference on ties. A new algorithm is one file that offers ALGORITHM, one row here and one schedule.
ALGORITHMS: Final = (
    depthwise.ALGORITHM,
    depthwise_blocked.ALGORITHM,
    tensor_core_blocked.ALGORITHM,
    tensor_core_folded.ALGORITHM,
    tensor_core.ALGORITHM,
    winograd.ALGORITHM,
    fft.ALGORITHM,
    direct.ALGORITHM,
    subpixel.ALGORITHM,
    generic.ALGORITHM,
    tf32.ALGORITHM,
    cudnn.ALGORITHM,
    cutlass.ALGORITHM,
)

SCHEDULES: Final[dict[str, Schedule]] = {
    "depthwise": points.schedule,
    "depthwise_blocked": block_points.schedule,
    "depthwise_bytes": block_points.schedule,
    "tensor_core_blocked": row_warps.schedule,
    "tensor_core_folded": folded_rows.schedule,
    "tensor_core_bytes": row_warps.schedule,
    "tensor_core_bytes_folded": folded_rows.schedule,
    "tensor_core": warps.schedule,
    "tf32": warps.schedule,
    "winograd": transforms.schedule,
    "fft": fft_transforms.schedule,
    "direct": product.schedule,
    "subpixel": product.schedule,
    "generic": points.schedule,
    "cudnn": cudnn.schedule,
    "cutlass": cutlass.schedule,
    "dense": dense.schedule,
    "packing": packing.schedule,
    "weight_gradient_tensor_core": weight_gradient_tensor_core.schedule,
    "weight_gradient_direct": weight_gradient.schedule,
    "weight_gradient_tensor_core_blocked": weight_gradient_blocked.schedule,
    "weight_gradient_grouped": weight_gradient_grouped.schedule,
    "weight_gradient_cudnn": cudnn_weight_gradient.schedule,
}


def _copy_seconds(value: TensorType, target: Target) -> float:
    return LAUNCH_SECONDS + memory_cycles(target.gpu, 2 * value.nbytes) / target.gpu.clock_hz


def _seconds(cycles: float, target: Target) -> float:
    return cycles / target.gpu.clock_hz


BACKEND: Final = Backend(
    kind="cuda",
    algorithms=ALGORITHMS,
    packings=PACKINGS,
    weight_gradients=(
        weight_gradient_blocked,
        weight_gradient_tensor_core,
        weight_gradient,
        weight_gradient_grouped,
        cudnn_weight_gradient,
    ),
    quantized=(
        depthwise_bytes.ALGORITHM,
        tensor_core_bytes.ALGORITHM,
        tensor_core_bytes_folded.ALGORITHM,
    ),
    schedules=SCHEDULES,
    dense=dense,
    schedule_any=any_op.schedule,
    schedule_transpose=any_op.schedule_transpose,
    schedule_channels=any_op.schedule_channels,
    seconds=_seconds,
    sum_cycles=any_op.sum_cycles,
    copy_seconds=_copy_seconds,
    compile=compiler.compile_objects,
)
