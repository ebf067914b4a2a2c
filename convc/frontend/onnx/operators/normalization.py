"""BatchNormalization, InstanceNormalization and LRN."""

from __future__ import annotations

from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import LRNAttributes
from convc.ir.ops.shape import ReshapeAttributes

__all__ = ["ROWS"]


def _per_channel(node: OperatorNode, value: str) -> str:
    """Return a (C,) value as (1, C, 1, ...), which broadcasts along the data's channels."""
    shape = (1, -1, *(1,) * (node.type().rank - 2))
    channels = node.step_type(value).size
    return node.step(
        "reshape", [value], ReshapeAttributes(tuple(channels if s < 0 else s for s in shape))
    )


def _check_parameters(node: OperatorNode) -> None:
    data = node.type()
    channels = (data.shape[1],) if data.rank > 1 else (1,)
    for index in range(1, 5):
        if node.type(index).shape != channels:
            raise InvalidModelError(
                f"{node.op_type} scale, bias, mean and variance must have shape {list(channels)} for {data}; got {node.type(index)}."
            )


def batch_normalization(node: OperatorNode) -> str:
    """Write inference: y = x * factor + shift, factor = scale / sqrt(var + epsilon), shift = bias - mean * factor.

    With constant parameters, factor and shift are computed in float64 and rounded once.
    """
    a = node.attributes
    epsilon = a.real("epsilon", 1e-5)
    a.ignore("momentum")  # only moves the running statistics
    a.only("training_mode", 0)
    a.only("spatial", 1)
    dtype = node.type().dtype
    _check_parameters(node)
    if all(node.is_constant(i) for i in range(1, 5)):
        scale, bias, mean, var = (node.constant(i).astype(np.float64) for i in range(1, 5))
        factor = scale / np.sqrt(var + epsilon)
        shape = (1, -1, *(1,) * (node.type().rank - 2))
        wide = {"scale": factor, "shift": bias - mean * factor}
        factor_value, shift = (
            node.literal(array.reshape(shape), dtype, stem) for stem, array in wide.items()
        )
    else:
        scale_value, bias_value, mean_value, var_value = (node.value(i) for i in range(1, 5))
        stable = node.step("add", [var_value, node.literal(epsilon, dtype, "epsilon")])
        ratio = node.step("div", [scale_value, node.step("sqrt", [stable])])
        offset = node.step("sub", [bias_value, node.step("mul", [mean_value, ratio])])
        factor_value, shift = _per_channel(node, ratio), _per_channel(node, offset)
    return node.emit("add", [node.step("mul", [node.value(), factor_value]), shift])


def instance_normalization(node: OperatorNode) -> str:
    """Write y = scale (x - mean) / sqrt(var + epsilon) + bias, mean and var over the pixels of each image and channel."""
    epsilon = node.attributes.real("epsilon", 1e-5)
    pixels = ReduceAttributes(tuple(range(2, node.type().rank)))
    x = node.value()
    centred = node.step("sub", [x, node.step("reduce_mean", [x], pixels)])
    var = node.step("reduce_mean", [node.step("mul", [centred, centred])], pixels)
    stable = node.step("add", [var, node.literal(epsilon, node.type().dtype, "epsilon")])
    factor = node.step("div", [_per_channel(node, node.value(1)), node.step("sqrt", [stable])])
    return node.emit(
        "add", [node.step("mul", [centred, factor]), _per_channel(node, node.value(2))]
    )


def lrn(node: OperatorNode) -> str:
    """Write LRN."""
    a = node.attributes
    attributes = LRNAttributes(
        a.integer("size"), a.real("alpha", 1e-4), a.real("beta", 0.75), a.real("bias", 1.0)
    )
    return node.emit("lrn", [node.value()], attributes)


ROWS: Final = (
    Converter("BatchNormalization", (7, 9, 14, 15), batch_normalization, "inference"),
    Converter("InstanceNormalization", (6, 22), instance_normalization),
    Converter("LRN", (1, 13), lrn),
)
