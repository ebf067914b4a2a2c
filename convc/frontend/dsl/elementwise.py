"""Elementwise functions, one for each row of `ir.ops.elementwise`."""

from __future__ import annotations

from typing import Protocol

from convc.frontend.dsl.arguments import number
from convc.frontend.dsl.tensor import Operand, Tensor, apply, binary, building
from convc.ir.ops.elementwise import (
    AlphaAttributes,
    ClipAttributes,
    HardSigmoidAttributes,
    LeakyAttributes,
)

__all__ = [
    "abs",
    "acos",
    "acosh",
    "add",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "ceil",
    "clip",
    "cos",
    "cosh",
    "div",
    "elu",
    "erf",
    "exp",
    "floor",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "leaky_relu",
    "log",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "pow",
    "reciprocal",
    "relu",
    "round",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "sub",
    "tan",
    "tanh",
]


class Unary(Protocol):
    """A function of one tensor."""

    def __call__(self, x: Operand, *, name: str | None = None) -> Tensor: ...


def _unary(op: str) -> Unary:
    def function(x: Operand, *, name: str | None = None) -> Tensor:
        return apply(op, [x], name=name)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = f"Return {op}(x), element by element."
    return building(function)


relu = _unary("relu")
sigmoid = _unary("sigmoid")
hard_swish = _unary("hard_swish")
silu = _unary("silu")
gelu = _unary("gelu")
sign = _unary("sign")
tanh = _unary("tanh")
softplus = _unary("softplus")
exp = _unary("exp")
log = _unary("log")
sqrt = _unary("sqrt")
reciprocal = _unary("reciprocal")
erf = _unary("erf")
abs = _unary("abs")
neg = _unary("neg")
floor = _unary("floor")
ceil = _unary("ceil")
sin = _unary("sin")
cos = _unary("cos")
tan = _unary("tan")
asin = _unary("asin")
acos = _unary("acos")
atan = _unary("atan")
sinh = _unary("sinh")
cosh = _unary("cosh")
asinh = _unary("asinh")
acosh = _unary("acosh")
atanh = _unary("atanh")
round = _unary("round")

add = binary("add")
sub = binary("sub")
mul = binary("mul")
div = binary("div")
pow = binary("pow")
maximum = binary("maximum")
minimum = binary("minimum")


@building
def clip(
    x: Operand, min: float = float("-inf"), max: float = float("inf"), *, name: str | None = None
) -> Tensor:
    """Return x limited to [min, max]."""
    return apply("clip", [x], ClipAttributes(number("min", min), number("max", max)), name=name)


@building
def leaky_relu(x: Operand, alpha: float = 0.01, *, name: str | None = None) -> Tensor:
    """Return x where positive, else alpha x."""
    return apply("leaky_relu", [x], LeakyAttributes(number("alpha", alpha)), name=name)


@building
def elu(x: Operand, alpha: float = 1.0, *, name: str | None = None) -> Tensor:
    """Return x where positive, else alpha (exp(x) - 1)."""
    return apply("elu", [x], AlphaAttributes(number("alpha", alpha)), name=name)


@building
def hard_sigmoid(
    x: Operand, alpha: float = 0.2, beta: float = 0.5, *, name: str | None = None
) -> Tensor:
    """Return alpha x + beta limited to [0, 1]."""
    attributes = HardSigmoidAttributes(number("alpha", alpha), number("beta", beta))
    return apply("hard_sigmoid", [x], attributes, name=name)
