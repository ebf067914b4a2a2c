"""Scalar functions: one IR op each, or a short composition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.operator_node import OperatorNode
from convc.ir.ops.definition import Attributes
from convc.ir.ops.elementwise import (
    AlphaAttributes,
    ClipAttributes,
    HardSigmoidAttributes,
    LeakyAttributes,
)
from convc.ir.ops.shape import ReshapeAttributes

__all__ = ["ROWS", "swish", "tanh_gelu"]


def _unary(
    op: str, attributes: Callable[[OperatorNode], Attributes] | None = None
) -> Callable[[OperatorNode], str]:
    """Return the converter of an operator that is one IR op."""

    def convert(node: OperatorNode) -> str:
        return node.emit(op, [node.value()], attributes(node) if attributes else None)

    return convert


def clip(node: OperatorNode) -> Result:
    """Write Clip: bounds as attributes (Clip-6) or inputs (Clip-11 on), which may be known at run time alone."""
    if node.version < 11:
        a = node.attributes
        # ONNX's default bounds are the largest float32, which bind nothing.
        low = a.real("min") if "min" in a else -math.inf
        high = a.real("max") if "max" in a else math.inf
        return node.emit("clip", [node.value()], ClipAttributes(low, high))
    bounds = {"maximum": 1, "minimum": 2}
    if node.type().is_float and all(not node.has(i) or node.is_constant(i) for i in (1, 2)):
        low = node.constant_scalar(1) if node.has(1) else -math.inf
        high = node.constant_scalar(2) if node.has(2) else math.inf
        return node.emit("clip", [node.value()], ClipAttributes(float(low), float(high)))
    x = node.value()
    for op, index in bounds.items():
        if node.has(index):
            x = node.step(op, [x, node.value(index)])
    return x


def prelu(node: OperatorNode) -> str:
    """Write max(x, 0) + slope * min(x, 0), a choice where slopes may be infinite or NaN; one slope for all is leaky_relu."""
    x, dtype = node.value(), node.type().dtype
    if node.is_constant(1) and node.type(1).size == 1 and node.type(1).rank <= node.type().rank:
        alpha = float(node.constant_scalar(1))
        return node.emit("leaky_relu", [x], LeakyAttributes(alpha))
    zero = node.literal(0.0, dtype, "zero")
    slope, data, given = node.value(1), node.type(), node.type(1)
    if given.shape == data.shape[1:2] and data.rank > 2 and data.shape[-1] != given.size:
        # Opset 6 wrote one slope a channel so, and files that were raised to a newer one still do.
        slope = node.step(
            "reshape", [slope], ReshapeAttributes((given.size, *(1,) * (data.rank - 2)))
        )
    if not (node.is_constant(1) and np.isfinite(node.constant(1)).all()):
        # 0 times infinity would be what is added to a positive x.
        below = node.step("less", [x, zero])
        return node.emit("where", [below, node.step("mul", [x, slope]), x])
    scaled = node.step("mul", [node.step("minimum", [x, zero]), slope])
    return node.emit("add", [node.step("relu", [x]), scaled])


def swish(node: OperatorNode, default: float = 1.0) -> str:
    """Write x * sigmoid(alpha x)."""
    alpha = node.attributes.real("alpha", default)
    x = node.value()
    if alpha == 1.0:
        return node.emit("silu", [x])
    scaled = node.step("mul", [x, node.literal(alpha, node.type().dtype, "alpha")])
    return node.emit("mul", [x, node.step("sigmoid", [scaled])])


def gelu(node: OperatorNode) -> str:
    """Write x/2 * (1 + erf(x / sqrt 2)), or its tanh approximation x/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).

    Source:
        ONNX Gelu-20.
    """
    approximate = node.attributes.text("approximate", "none", ("none", "tanh"))
    if approximate == "none":
        return node.emit("gelu", [node.value()])
    return tanh_gelu(node, node.value())


def tanh_gelu(node: OperatorNode, x: str) -> str:
    """Write x/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    dtype = node.step_type(x).dtype

    def scalar(value: float, stem: str) -> str:
        return node.literal(value, dtype, stem)

    cubic = node.step("mul", [node.step("mul", [x, x]), x])
    small = node.step("mul", [cubic, scalar(0.044715, "cubic_factor")])
    scale = scalar(math.sqrt(2 / math.pi), "scale")
    inner = node.step("tanh", [node.step("mul", [node.step("add", [x, small]), scale])])
    half = node.step("mul", [x, scalar(0.5, "half")])
    return node.emit("mul", [half, node.step("add", [inner, scalar(1.0, "one")])])


def selu(node: OperatorNode) -> str:
    """Write gamma * elu(x, alpha)."""
    alpha = node.attributes.real("alpha", 1.67326319217681884765625)
    gamma = node.attributes.real("gamma", 1.05070102214813232421875)
    inner = node.step("elu", [node.value()], AlphaAttributes(alpha))
    return node.emit("mul", [inner, node.literal(gamma, node.type().dtype, "gamma")])


def softsign(node: OperatorNode) -> str:
    """Write x / (1 + |x|)."""
    x = node.value()
    one = node.literal(np.ones(()), node.type().dtype, "one")
    return node.emit("div", [x, node.step("add", [node.step("abs", [x]), one])])


def mish(node: OperatorNode) -> str:
    """Write x * tanh(softplus(x))."""
    x = node.value()
    return node.emit("mul", [x, node.step("tanh", [node.step("softplus", [x])])])


def celu(node: OperatorNode) -> str:
    """Write max(x, 0) + min(0, alpha (exp(x / alpha) - 1))."""
    alpha = node.attributes.real("alpha", 1.0)
    x, dtype = node.value(), node.type().dtype
    scaled = node.step("div", [x, node.literal(alpha, dtype, "alpha")])
    inner = node.step("elu", [scaled], AlphaAttributes(1.0))
    return node.emit("mul", [inner, node.literal(alpha, dtype, "alpha")])


def thresholded_relu(node: OperatorNode) -> str:
    """Write x where x > alpha, else 0."""
    alpha = node.attributes.real("alpha", 1.0)
    x, dtype = node.value(), node.type().dtype
    above = node.step("greater", [x, node.literal(alpha, dtype, "alpha")])
    return node.emit("where", [above, x, node.literal(0.0, dtype, "zero")])


def shrink(node: OperatorNode) -> str:
    """Write x + bias below -lambd, x - bias above lambd, 0 between."""
    a, x, dtype = node.attributes, node.value(), node.type().dtype
    bias, lambd = a.real("bias", 0.0), a.real("lambd", 0.5)

    def scalar(value: float, stem: str) -> str:
        return node.literal(value, dtype, stem)

    zero = scalar(0.0, "zero")
    below = node.step("less", [x, scalar(-lambd, "low")])
    above = node.step("greater", [x, scalar(lambd, "high")])
    lower = node.step("add", [x, scalar(bias, "bias")])
    upper = node.step("sub", [x, scalar(bias, "bias")])
    return node.emit("where", [below, lower, node.step("where", [above, upper, zero])])


_LIBM: Final = {
    **dict.fromkeys(("Sin", "Cos", "Tan", "Asin", "Acos", "Atan"), (7, 22)),
    **dict.fromkeys(("Sinh", "Cosh", "Asinh", "Acosh", "Atanh"), (9, 22)),
}

ROWS: Final = (
    Converter("Relu", (6, 13, 14), _unary("relu"), folds=True),
    Converter("Clip", (6, 11, 12, 13), clip, folds=True),
    Converter(
        "LeakyRelu",
        (6, 16),
        _unary("leaky_relu", lambda node: LeakyAttributes(node.attributes.real("alpha", 0.01))),
    ),
    Converter("PRelu", (7, 9, 16), prelu),
    Converter(
        "Elu",
        (6, 22),
        _unary("elu", lambda node: AlphaAttributes(node.attributes.real("alpha", 1.0))),
    ),
    Converter("Sigmoid", (6, 13), _unary("sigmoid")),
    Converter(
        "HardSigmoid",
        (6, 22),
        _unary(
            "hard_sigmoid",
            lambda node: HardSigmoidAttributes(
                node.attributes.real("alpha", 0.2), node.attributes.real("beta", 0.5)
            ),
        ),
    ),
    Converter("HardSwish", (14, 22), _unary("hard_swish")),
    Converter("Swish", (24,), swish),
    Converter("Gelu", (20,), gelu),
    Converter("Selu", (6, 22), selu),
    Converter("Softsign", (1, 22), softsign),
    Converter("Mish", (18, 22), mish),
    Converter("Tanh", (6, 13), _unary("tanh")),
    Converter("Softplus", (1, 22), _unary("softplus")),
    Converter("Exp", (6, 13), _unary("exp"), folds=True),
    Converter("Log", (6, 13), _unary("log"), folds=True),
    Converter("Sqrt", (6, 13), _unary("sqrt"), folds=True),
    Converter("Reciprocal", (6, 13), _unary("reciprocal"), folds=True),
    Converter("Erf", (9, 13), _unary("erf")),
    *(Converter(n, since, _unary(n.lower()), folds=True) for n, since in _LIBM.items()),
    Converter("Celu", (12, 28), celu),
    Converter("ThresholdedRelu", (10, 22), thresholded_relu),
    Converter("Shrink", (9,), shrink),
    Converter("Round", (11, 22), _unary("round"), folds=True),
    Converter("Sign", (9, 13), _unary("sign"), folds=True),
    Converter("Abs", (6, 13), _unary("abs"), folds=True),
    Converter("Neg", (6, 13), _unary("neg"), folds=True),
    Converter("Floor", (6, 13), _unary("floor"), folds=True),
    Converter("Ceil", (6, 13), _unary("ceil"), folds=True),
)
