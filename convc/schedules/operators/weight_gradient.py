"""Tensor expression of `conv_weight_grad`, as its definition reads: any rank, group and element type, on plain tensors."""

from __future__ import annotations

from typing import Final

from tvm import te, tirx

from convc.ir.graph import Node
from convc.ir.ops.conv import accumulator
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes, forward_spec
from convc.ir.spec import ConvSpec
from convc.schedules.operators.operator import Operator, Tensors, Types

__all__ = ["ROWS", "weight_gradient_of"]


def weight_gradient_of(
    x: te.Tensor, dy: te.Tensor, spec: ConvSpec, accumulate: str = ""
) -> te.Tensor:
    """Return sum over n, p... of dy[n, k, p...] x[n, c, p stride + r dilation - pad], zero outside the data, in `accumulate`."""
    wide = accumulator(spec.dtype, accumulate)
    extents = spec.output[2:]
    batch = te.reduce_axis((0, spec.data[0]), "n")
    points = [te.reduce_axis((0, extent), f"p{i}") for i, extent in enumerate(extents)]
    group_c, group_k = spec.weight[1], spec.out_channels // spec.group

    def value(k, c, *taps):
        conditions, index = [], []
        for axis, (p, r) in enumerate(zip(points, taps, strict=True)):
            pad, extent = spec.pads[axis], spec.data[2 + axis]
            position = p * spec.strides[axis] + r * spec.dilations[axis] - pad
            reach = (extents[axis] - 1) * spec.strides[axis] + spec.effective_kernel[axis] - pad
            conditions += [position >= 0] if pad else []
            conditions += [position < extent] if reach > extent else []
            index.append(position)
        channel = k // group_k * group_c + c if spec.group > 1 else c
        element = x(batch, channel, *index)
        if conditions:
            zero = tirx.const(0, spec.dtype)
            element = tirx.if_then_else(tirx.all(*conditions), element, zero)
        product = dy(batch, k, *points).astype(wide) * element.astype(wide)
        return te.sum(product, axis=[batch, *points])

    total = te.compute(spec.weight, value, name="weight_gradient")
    if wide == spec.dtype:
        return total
    return te.compute(spec.weight, lambda *i: total(*i).astype(spec.dtype), name="narrow")


def _weight_gradient(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    attributes = node.attributes
    assert isinstance(attributes, ConvWeightGradAttributes)
    x, dy = tensors
    spec = forward_spec(types[0], types[1], attributes)
    return weight_gradient_of(x, dy, spec, attributes.accumulate)


ROWS: Final = {"conv_weight_grad": Operator(_weight_gradient)}
