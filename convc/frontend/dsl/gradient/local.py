"""Rules of unshared convolutions and their two gradients, which are closed among themselves.

y  = conv_local(x, w)              dx = conv_local_data_grad(dy, w)       dw = conv_local_weight_grad(x, dy)
x' = conv_local_data_grad(g, w)    dg = conv_local(dx', w)                dw = conv_local_weight_grad(dx', g)
w' = conv_local_weight_grad(x, g)  dx = conv_local_data_grad(g, dw')      dg = conv_local(x, dw')
"""

from __future__ import annotations

from typing import Final

from convc.frontend.dsl.gradient.rule import Call, Gradients, Rule
from convc.frontend.dsl.tensor import Tensor, apply
from convc.ir.ops.conv_local import (
    LocalAttributes,
    LocalDataGradAttributes,
    LocalWeightGradAttributes,
    spec_of_local,
)
from convc.ir.spec import ConvSpec

__all__ = ["ROWS"]


def _spec(call: Call) -> ConvSpec:
    return spec_of_local([o.node.type for o in call.operands], call.attributes)


def _forward(x: Tensor, w: Tensor, s: ConvSpec) -> Tensor:
    return apply("conv_local", [x, w], LocalAttributes(s.strides, s.pads, s.dilations, s.group))


def _data(dy: Tensor, w: Tensor, s: ConvSpec) -> Tensor:
    attributes = LocalDataGradAttributes(s.data[2:], s.strides, s.pads, s.dilations, s.group)
    return apply("conv_local_data_grad", [dy, w], attributes)


def _weight(x: Tensor, dy: Tensor, s: ConvSpec) -> Tensor:
    attributes = LocalWeightGradAttributes(s.kernel, s.strides, s.pads, s.dilations, s.group)
    return apply("conv_local_weight_grad", [x, dy], attributes)


def _conv_local(call: Call) -> Gradients:
    (x, w), spec = call.operands, _spec(call)
    return [
        _data(call.dy, w, spec) if call.needed[0] else None,
        _weight(x, call.dy, spec) if call.needed[1] else None,
    ]


def _data_grad(call: Call) -> Gradients:
    (g, w), spec = call.operands, _spec(call)
    return [
        _forward(call.dy, w, spec) if call.needed[0] else None,
        _weight(call.dy, g, spec) if call.needed[1] else None,
    ]


def _weight_grad(call: Call) -> Gradients:
    (x, g), spec = call.operands, _spec(call)
    return [
        _data(g, call.dy, spec) if call.needed[0] else None,
        _forward(x, call.dy, spec) if call.needed[1] else None,
    ]


ROWS: Final[dict[str, Rule]] = {
    "conv_local": _conv_local,
    "conv_local_data_grad": _data_grad,
    "conv_local_weight_grad": _weight_grad,
}
