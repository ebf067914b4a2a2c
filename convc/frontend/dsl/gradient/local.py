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
from convc.ir.types import Shape

__all__ = ["ROWS"]


def _spec(call: Call) -> ConvSpec:
    return spec_of_local([o.node.type for o in call.operands], call.attributes)


def _geometry(call: Call) -> tuple[Shape, Shape, Shape, int, str]:
    s = _spec(call)
    return s.strides, s.pads, s.dilations, s.group, call.attributes.accumulate


def _forward(x: Tensor, w: Tensor, call: Call) -> Tensor:
    return apply("conv_local", [x, w], LocalAttributes(*_geometry(call)))


def _data(dy: Tensor, w: Tensor, call: Call) -> Tensor:
    attributes = LocalDataGradAttributes(_spec(call).data[2:], *_geometry(call))
    return apply("conv_local_data_grad", [dy, w], attributes)


def _weight(x: Tensor, dy: Tensor, call: Call) -> Tensor:
    attributes = LocalWeightGradAttributes(_spec(call).kernel, *_geometry(call))
    return apply("conv_local_weight_grad", [x, dy], attributes)


def _conv_local(call: Call) -> Gradients:
    x, w = call.operands
    return [
        _data(call.dy, w, call) if call.needed[0] else None,
        _weight(x, call.dy, call) if call.needed[1] else None,
    ]


def _data_grad(call: Call) -> Gradients:
    g, w = call.operands
    return [
        _forward(call.dy, w, call) if call.needed[0] else None,
        _weight(call.dy, g, call) if call.needed[1] else None,
    ]


def _weight_grad(call: Call) -> Gradients:
    x, g = call.operands
    return [
        _data(g, call.dy, call) if call.needed[0] else None,
        _forward(x, call.dy, call) if call.needed[1] else None,
    ]


ROWS: Final[dict[str, Rule]] = {
    "conv_local": _conv_local,
    "conv_local_data_grad": _data_grad,
    "conv_local_weight_grad": _weight_grad,
}
