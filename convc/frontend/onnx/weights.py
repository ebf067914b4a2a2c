"""Weights that cannot be meant: one NaN in a filter makes every result NaN that it touches, and no comparison of results tells why."""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import NodeProto

from convc.errors import InvalidModelError
from convc.frontend.onnx.values import ValueTable, is_splat
from convc.ir.ops.definition import Array

__all__ = ["check_weights"]

# Operators whose constants are learned. Elsewhere a NaN may mean something: a Where's filling, an operand of IsNaN.
_LAYERS: Final = frozenset(
    (
        "BatchNormalization", "Conv", "ConvTranspose", "DeformConv", "GRU", "Gemm", "GroupNormalization", "InstanceNormalization", "LSTM",
        "LayerNormalization", "MatMul", "PRelu", "RNN",
    )
)  # fmt: skip


def _has_nan(array: Array) -> bool:
    if not array.size or array.dtype.kind in "iub":
        return False
    if is_splat(array):
        return bool(np.isnan(array[(0,) * array.ndim]))
    with np.errstate(all="ignore"):
        return bool(np.isnan(np.min(array)))  # without a mask as large as the weights


def check_weights(proto: NodeProto, values: ValueTable) -> None:
    """Raise InvalidModelError if a constant of a learned layer holds NaN."""
    if proto.op_type not in _LAYERS:
        return
    for name in proto.input:
        if name and values.is_constant(name) and _has_nan(array := values.constant(name)):
            wrong = np.argwhere(np.isnan(array))
            raise InvalidModelError(
                f"weights of {proto.op_type} must be numbers; got {len(wrong)} NaN among the {array.size} elements of '{name}', "
                f"the first at {wrong[0].tolist()}. Export the model again, from weights before its training diverged."
            )
