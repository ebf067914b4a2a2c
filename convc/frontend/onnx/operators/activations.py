"""Scalar functions: one IR op each, or a short composition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.ir.ops.definition import Attributes
from convc.ir.ops.elementwise import (
    AlphaAttributes,
    ClipAttributes,
    HardSigmoidAttributes,
    LeakyAttributes,
)

__all__ = ["ROWS"]


def _unary(
    op: str, attributes: Callable[[OperatorNode], Attributes] | None = None
) -> Callable[[OperatorNode], str]:
    """Return the converter of an operator that is one IR op."""

    def convert(node: OperatorNode) -> str:
        node.require_float(0)
        return node.emit(op, [node.value()], attributes(node) if attributes else None)

    return convert


def _clip_attributes(node: OperatorNode) -> ClipAttributes:
    """Read bounds from attributes (Clip-6) or inputs (Clip-11 on)."""
    if node.version < 11:
        a = node.attributes
        # ONNX's default bounds are the largest float32, which bind nothing.
        low = a.real("min") if "min" in a else -math.inf
        return ClipAttributes(low, a.real("max") if "max" in a else math.inf)
    low = node.constant_scalar(1) if node.has(1) else -math.inf
    high = node.constant_scalar(2) if node.has(2) else math.inf
    return ClipAttributes(float(low), float(high))


def prelu(node: OperatorNode) -> str:
    """Write max(x, 0) + slope * min(x, 0); one slope for all is leaky_relu."""
    node.require_float(0)
    x, dtype = node.value(), node.type().dtype
    if node.is_constant(1) and node.type(1).size == 1 and node.type(1).rank <= node.type().rank:
        alpha = float(node.constant_scalar(1))
        return node.emit("leaky_relu", [x], LeakyAttributes(alpha))
    negative = node.step("minimum", [x, node.literal(0.0, dtype, "zero")])
    scaled = node.step("mul", [negative, node.value(1)])
    return node.emit("add", [node.step("relu", [x]), scaled])


def swish(node: OperatorNode) -> str:
    """Write x * sigmoid(alpha x)."""
    alpha = node.attributes.real("alpha", 1.0)
    node.require_float(0)
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
    node.require_float(0)
    x, dtype = node.value(), node.type().dtype

    def scalar(value: float, stem: str) -> str:
        return node.literal(value, dtype, stem)

    if approximate == "none":
        inner = node.step("erf", [node.step("mul", [x, scalar(math.sqrt(0.5), "sqrt_half")])])
    else:
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
    node.require_float(0)
    inner = node.step("elu", [node.value()], AlphaAttributes(alpha))
    return node.emit("mul", [inner, node.literal(gamma, node.type().dtype, "gamma")])


def softsign(node: OperatorNode) -> str:
    """Write x / (1 + |x|)."""
    node.require_float(0)
    x = node.value()
    one = node.literal(np.ones(()), node.type().dtype, "one")
    return node.emit("div", [x, node.step("add", [node.step("abs", [x]), one])])


def mish(node: OperatorNode) -> str:
    """Write x * tanh(softplus(x))."""
    node.require_float(0)
    x = node.value()
    return node.emit("mul", [x, node.step("tanh", [node.step("softplus", [x])])])


ROWS: Final = (
    Converter("Relu", (6, 13, 14), _unary("relu"), "floats"),
    Converter("Clip", (6, 11, 12, 13), _unary("clip", _clip_attributes), "floats, constant bounds"),
    Converter(
        "LeakyRelu",
        (6, 16),
        _unary("leaky_relu", lambda node: LeakyAttributes(node.attributes.real("alpha", 0.01))),
    ),
    Converter("PRelu", (7, 9, 16), prelu, "floats"),
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
    Converter("Erf", (9, 13), _unary("erf"), "floats"),
    Converter("Abs", (6, 13), _unary("abs"), "floats; any type if constant", folds=True),
    Converter("Neg", (6, 13), _unary("neg"), "floats; any type if constant", folds=True),
    Converter("Floor", (6, 13), _unary("floor"), folds=True),
    Converter("Ceil", (6, 13), _unary("ceil"), folds=True),
    Converter("Sign", (9, 13), _unary("sign"), "floats; any type if constant", folds=True),
)
