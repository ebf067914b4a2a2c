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
    """Return a (C,) value as (1, C, 1, ...) of the data's type, which broadcasts along the data's channels."""
    value = node.cast(value, node.type().dtype)
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


def _normalised(node: OperatorNode, axes: tuple[int, ...], epsilon: float) -> tuple[str, str, str]:
    """Write y = scale (x - mean) / sqrt(var + epsilon) + bias, mean and var along `axes` of the data, kept as 1; return y, mean, var."""
    along = ReduceAttributes(axes)
    mean = node.step("reduce_mean", [node.value()], along)
    centred = node.step("sub", [node.value(), mean])
    var = node.step("reduce_mean", [node.step("mul", [centred, centred])], along)
    stable = node.step("add", [var, node.literal(epsilon, node.type().dtype, "epsilon")])
    factor = node.step("div", [_per_channel(node, node.value(1)), node.step("sqrt", [stable])])
    scaled = node.step("mul", [centred, factor])
    return node.emit("add", [scaled, _per_channel(node, node.value(2))]), mean, var


def _of_this_batch(node: OperatorNode, epsilon: float, momentum: float) -> tuple[str, ...]:
    """Write a batch normalised by its own statistics, and the running ones: old * momentum + own * (1 - momentum)."""
    data = node.type()
    y, *own = _normalised(node, tuple(i for i in range(data.rank) if i != 1), epsilon)
    results = [y]
    for output, statistic in enumerate(own, 1):
        if len(node.outputs) <= output or not node.outputs[output]:
            break
        old, dtype = node.value(output + 2), node.type(output + 2).dtype
        new = node.cast(
            node.step("reshape", [statistic], ReshapeAttributes(node.type(1).shape)), dtype
        )
        shares = zip((old, new), (momentum, 1.0 - momentum), strict=True)
        parts = [node.step("mul", [v, node.literal(w, dtype, "momentum")]) for v, w in shares]
        results.append(node.emit("add", parts, output=output))
    return tuple(results)


def batch_normalization(node: OperatorNode) -> str | tuple[str, ...]:
    """Write inference: y = x * factor + shift, factor = scale / sqrt(var + epsilon), shift = bias - mean * factor.

    With constant parameters, factor and shift are computed in float64 and rounded once. With training_mode, mean and variance are
    those of the data itself: so exporters write standardised weights (NFNet, BiT), whose data is the filter.
    """
    a = node.attributes
    epsilon = a.real("epsilon", 1e-5)
    momentum = a.real("momentum", 0.9)
    a.only("spatial", 1)
    dtype = node.type().dtype
    _check_parameters(node)
    if a.integer("training_mode", 0):
        return _of_this_batch(node, epsilon, momentum)
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
    return _normalised(node, tuple(range(2, node.type().rank)), epsilon)[0]


def lrn(node: OperatorNode) -> str:
    """Write LRN."""
    a = node.attributes
    attributes = LRNAttributes(
        a.integer("size"), a.real("alpha", 1e-4), a.real("beta", 0.75), a.real("bias", 1.0)
    )
    return node.emit("lrn", [node.value()], attributes)


ROWS: Final = (
    Converter("BatchNormalization", (7, 9, 14, 15), batch_normalization),
    Converter("InstanceNormalization", (6, 22), instance_normalization),
    Converter("LRN", (1, 13), lrn),
)
