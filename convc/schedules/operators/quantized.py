"""Quantisation element by element, and convolutions of bytes as their definition reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from tvm import te, tirx

from convc.ir.graph import Node
from convc.ir.ops.quantized import QuantizedConvAttributes, quantized_spec
from convc.ir.spec import ConvSpec
from convc.schedules.lookup import looked_up
from convc.schedules.operators.operator import Operator, Tensors, Types, is_image
from convc.schedules.requantized import stored
from convc.schedules.rounded import rounded

__all__ = ["ROWS"]


def _quantize(node: Node, x: Any, scale: Any, zero: Any) -> Any:
    info = np.iinfo(node.type.dtype)
    return rounded(x / scale, zero, int(info.min), int(info.max), node.type.dtype)


def _dequantize(node: Node, x: Any, scale: Any, zero: Any) -> Any:
    return (x.astype("float32") - zero) * scale


def _reads(spec: ConvSpec, at: Sequence[Any], taps: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return where a result's tap reads the data, and the conditions for there being data."""
    position, inside = [], []
    for axis, (i, r) in enumerate(zip(at, taps, strict=True)):
        stride, dilation, pad = spec.strides[axis], spec.dilations[axis], spec.pads[axis]
        p = i * stride + r * dilation - pad
        if spec.transposed:
            p = i + pad - r * dilation
            inside.append(p % stride == 0)
            p = p // stride
        position.append(p)
        inside += [p >= 0, p < spec.data[2 + axis]]
    return position, inside


def _conv(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    x, w, bias, factor, *others = tensors
    a = node.attributes
    assert isinstance(a, QuantizedConvAttributes)
    residual = [] if a.dynamic else others
    spec = quantized_spec(types[0], types[1], a)
    channels, outputs = spec.in_channels // spec.group, spec.out_channels // spec.group
    c = te.reduce_axis((0, channels), "c")
    taps = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(spec.kernel)]

    def product(batch: Any, k: Any, *at: Any) -> Any:
        channel = k // outputs * channels + c if spec.group > 1 else c
        position, inside = _reads(spec, at, taps)
        value = x(batch, channel, *position).astype("int32")
        if spec.transposed or any(spec.pads):
            value = tirx.if_then_else(tirx.all(*inside), value, tirx.const(a.pad, "int32"))
        own = w(channel, k % outputs, *taps) if spec.transposed else w(k, c, *taps)
        return te.sum(value * own.astype("int32"), axis=[c, *taps])

    acc = te.compute(spec.output, product, name="acc")

    def result(batch: Any, k: Any, *at: Any) -> Any:
        shift = bias[k] * others[0]() if a.dynamic else bias[k]
        y = (acc(batch, k, *at) + shift).astype("float32") * factor[k]
        return stored(y, a, [r(batch, k, *at).astype("float32") for r in residual])

    return te.compute(spec.output, result, name="requantized")


def _elements(function: Callable[..., Any]) -> Operator:
    """Return the operator of data, a scale and a zero point; in blocks where these two are written into the code."""

    def compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
        shape = tensors[0].shape if block else node.type.shape

        def value(*index: Any) -> Any:
            read = []
            for x in tensors:
                own = index[len(index) - len(x.shape) :]
                at = [
                    tirx.const(0, "int32") if int(n) == 1 else i
                    for n, i in zip(x.shape, own, strict=True)
                ]
                read.append(x(*at))
            return function(node, *read)

        return te.compute(shape, value, name=node.op)

    def follows(node: Node, types: Types, block: int) -> bool:
        return is_image(types) and len(types) == 1

    return Operator(compute, follows)


def _lookup(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    x, table = tensors
    return looked_up(x, table, node.type.shape[1] if block else 0, block)


ROWS: Final[dict[str, Operator]] = {
    "quantize": _elements(_quantize),
    "dequantize": _elements(_dequantize),
    "conv_quantized": Operator(_conv),
    "lookup": Operator(_lookup, lambda node, types, block: is_image(types[:1]), tables=1),
}
