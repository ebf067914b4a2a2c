"""Group normalisation: the values of each image's groups of channels, less their mean, over their standard deviation, scaled by channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.epilogue import Step, apply_epilogue
from convc.ir.ops.definition import Array, Attributes, OpDef
from convc.ir.types import TensorType

__all__ = ["ROWS", "GroupNormAttributes"]


@dataclass(frozen=True, slots=True)
class GroupNormAttributes(Attributes):
    """ONNX `GroupNormalization`; with a group for each channel `InstanceNormalization`. Scale and bias are (1, C, 1, ...).

    Source: Wu & He, "Group Normalization" (ECCV 2018), eq. 1 to 4, 7.
    """

    groups: int
    epsilon: float = 1e-5
    epilogue: tuple[Step, ...] = ()


def _infer(types: Sequence[TensorType], a: GroupNormAttributes) -> TensorType:
    data = types[0]
    if not data.is_float or any(t.dtype != data.dtype for t in types):
        raise DTypeError(f"group_norm operands must have one float type; got {', '.join(map(str, types))}.")  # fmt: skip
    if not data.is_image or not data.size:
        raise ShapeError(f"group_norm data must be (N, C, ...) with 1 to 3 axes behind, not empty; got {data}.")  # fmt: skip
    if a.groups < 1 or data.shape[1] % a.groups:
        raise ShapeError(f"group_norm groups must divide the channels; got {a.groups} for {data}.")
    along = (1, data.shape[1], *[1] * (data.rank - 2))
    if any(t.shape != along for t in types[1:3]):
        raise ShapeError(f"group_norm scale and bias must have the shape {along} for {data}; got {types[1]} and {types[2]}.")  # fmt: skip
    taken = [s.name for s in a.epilogue if s.takes_operand]
    if taken:
        raise ShapeError(f"group_norm epilogue must be functions of one operand; got {', '.join(taken)}.")  # fmt: skip
    return data


def _reference(arrays: Sequence[Array], a: GroupNormAttributes) -> Array:
    x, scale, bias = arrays
    grouped = x.reshape(x.shape[0], a.groups, -1)
    centred = grouped - grouped.mean(2, keepdims=True)
    variance = np.square(centred).mean(2, keepdims=True)
    normed = (centred / np.sqrt(variance + a.epsilon)).reshape(x.shape)
    return apply_epilogue(normed * scale + bias, a.epilogue, (), 1)


ROWS: Final = (OpDef("group_norm", GroupNormAttributes, (3, 3), _infer, _reference),)
