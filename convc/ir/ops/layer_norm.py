"""Layer normalisation: the values along one axis, less their mean, over their standard deviation, times a scale, plus a bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.definition import Array, Attributes, OpDef
from convc.ir.types import TensorType

__all__ = ["ROWS", "LayerNormAttributes"]


@dataclass(frozen=True, slots=True)
class LayerNormAttributes(Attributes):
    """The axis, and what is added to the variance: ONNX `LayerNormalization`, of one axis, which need not be the last."""

    axis: int
    epsilon: float = 1e-5


def _infer(types: Sequence[TensorType], a: LayerNormAttributes) -> TensorType:
    data = types[0]
    if not data.is_float or any(t.dtype != data.dtype for t in types):
        raise DTypeError(f"layer_norm operands must have one float type; got {', '.join(map(str, types))}.")  # fmt: skip
    if not 0 <= a.axis < data.rank:
        raise ShapeError(f"layer_norm axis must be in [0, {data.rank}); got {a.axis} for {data}.")
    along = tuple(n if i == a.axis else 1 for i, n in enumerate(data.shape))
    if not data.shape[a.axis] or any(t.shape != along for t in types[1:]):
        raise ShapeError(
            f"layer_norm scale and bias must have the shape {along} for {data} along axis {a.axis}, which must not be empty;"
            f" got {types[1]} and {types[2]}."
        )
    return data


def _reference(arrays: Sequence[Array], a: LayerNormAttributes) -> Array:
    x, scale, bias = arrays
    centred = x - x.mean(a.axis, keepdims=True)
    variance = np.square(centred).mean(a.axis, keepdims=True)
    return centred / np.sqrt(variance + a.epsilon) * scale + bias


ROWS: Final = (OpDef("layer_norm", LayerNormAttributes, (3, 3), _infer, _reference),)
