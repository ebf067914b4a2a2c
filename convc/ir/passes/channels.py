"""Per-channel operands of layers: which operands are, and how they meet the weights.

A layer is a conv, conv_transpose or dense node: operand 0 data, operand 1 weights, then the epilogue's operands. Its result has
channels on axis 1.
"""

from __future__ import annotations

from typing import Final, TypeGuard

import numpy as np

from convc.ir.graph import Node
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, DenseAttributes
from convc.ir.ops.definition import Array
from convc.ir.types import Shape, TensorType

__all__ = ["LAYERS", "LayerAttributes", "channel_shape", "is_layer_attributes", "is_per_channel"]

LayerAttributes = ConvAttributes | ConvTransposeAttributes | DenseAttributes
LAYERS: Final = frozenset({"conv", "conv_transpose", "dense"})


def is_layer_attributes(attributes: object) -> TypeGuard[LayerAttributes]:
    """Whether these are the attributes of a layer, so that they have an epilogue."""
    return isinstance(attributes, LayerAttributes)


def is_per_channel(shape: Shape, result: TensorType, axis: int = 1) -> bool:
    """Whether broadcasting `shape` into a result varies along channels (axis 1, if it has one, or another) at most.

    Example:
        >>> result = TensorType((1, 8, 5, 5))
        >>> [is_per_channel(s, result) for s in [(), (8, 1, 1), (1, 8, 1, 1), (8,), (1, 5)]]
        [True, True, True, False, False]
    """
    if len(shape) > result.rank:
        return False
    full = (1,) * (result.rank - len(shape)) + shape
    return all(n == 1 or (i == axis and n == result.shape[axis]) for i, n in enumerate(full))


def channel_shape(layer: Node, weight: Shape) -> tuple[Shape, Shape]:
    """Return how to reshape the weights, and a (K,) vector, so that they broadcast along output channels."""
    a = layer.attributes
    if isinstance(a, ConvTransposeAttributes):
        # (C, K/group, ...): input channel c belongs to group c // (C/group), whose K/group outputs are consecutive.
        ones = (1,) * (len(weight) - 2)
        return (a.group, weight[0] // a.group, *weight[1:]), (a.group, 1, weight[1], *ones)
    return weight, (weight[0], *(1,) * (len(weight) - 1))


def scaled(layer: Node, weight: Array, scale: Array) -> Array:
    """Return float64 weights times a (K,) scale along output channels."""
    grouped, broadcast = channel_shape(layer, weight.shape)
    return (weight.astype(np.float64).reshape(grouped) * scale.reshape(broadcast)).reshape(
        weight.shape
    )
