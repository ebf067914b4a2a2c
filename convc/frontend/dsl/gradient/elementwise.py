"""Rules of the elementwise ops.

At a kink the gradient is a subgradient: relu and abs have 0 at 0, clip has 1 on its bounds, maximum and minimum give half of it
to each of two equal operands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from convc.frontend.dsl.gradient.rule import Call, Gradients, Rule, sum_to
from convc.frontend.dsl.tensor import Tensor, apply

__all__ = ["ROWS"]


def _scaled(derivative: Callable[[Call], Tensor | float]) -> Rule:
    """Return the rule dx = dy f'(x) of a scalar function."""
    return lambda call: [call.dy * derivative(call)]


def _sign(x: Tensor) -> Tensor:
    return apply("sign", [x])


def _equal(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 where two tensors are equal, else 0."""
    return 1.0 - apply("abs", [_sign(a - b)])


def _above_zero(x: Tensor) -> Tensor:
    return _sign(apply("relu", [x]))


def _leaky(call: Call) -> Tensor:
    alpha = call.attributes.alpha
    return alpha + (1.0 - alpha) * _above_zero(call.x)


def _elu(call: Call) -> Tensor:
    above = _above_zero(call.x)
    return above + (1.0 - above) * (apply("minimum", [call.y, 0.0]) + call.attributes.alpha)


def _hard_sigmoid(call: Call) -> Tensor:
    a = call.attributes
    return a.alpha * _equal(a.alpha * call.x + a.beta, call.y)


def _hard_swish(call: Call) -> Tensor:
    line = call.x * (1 / 6) + 0.5
    gate = apply("minimum", [apply("relu", [line]), 1.0])
    return gate + call.x * (1 / 6) * _equal(line, gate)


def _silu(call: Call) -> Tensor:
    s = apply("sigmoid", [call.x])
    return s + call.x * s * (1.0 - s)


def _gelu(call: Call) -> Tensor:
    share = 0.5 + 0.5 * apply("erf", [call.x * math.sqrt(0.5)])
    return share + call.x * apply("exp", [-0.5 * (call.x * call.x)]) / math.sqrt(2 * math.pi)


UNARY: Final[dict[str, Rule]] = {
    "relu": _scaled(lambda c: _sign(c.y)),
    "clip": _scaled(lambda c: _equal(c.x, c.y)),
    "leaky_relu": _scaled(_leaky),
    "elu": _scaled(_elu),
    "sigmoid": _scaled(lambda c: c.y * (1.0 - c.y)),
    "hard_sigmoid": _scaled(_hard_sigmoid),
    "hard_swish": _scaled(_hard_swish),
    "silu": _scaled(_silu),
    "gelu": _scaled(_gelu),
    "tanh": _scaled(lambda c: 1.0 - c.y * c.y),
    "softplus": _scaled(lambda c: apply("sigmoid", [c.x])),
    "exp": _scaled(lambda c: c.y),
    "log": lambda c: [c.dy / c.x],
    "sqrt": lambda c: [c.dy * 0.5 / c.y],
    "reciprocal": _scaled(lambda c: -(c.y * c.y)),
    "erf": _scaled(lambda c: 2 / math.sqrt(math.pi) * apply("exp", [-(c.x * c.x)])),
    "abs": _scaled(lambda c: _sign(c.x)),
    "neg": lambda c: [-c.dy],
    # Constant between their jumps.
    "sign": lambda c: [None],
    "floor": lambda c: [None],
    "ceil": lambda c: [None],
    "round": lambda c: [None],
    "sin": _scaled(lambda c: apply("cos", [c.x])),
    "cos": _scaled(lambda c: -apply("sin", [c.x])),
    "tan": _scaled(lambda c: 1.0 + c.y * c.y),
    "asin": lambda c: [c.dy / apply("sqrt", [1.0 - c.x * c.x])],
    "acos": lambda c: [-c.dy / apply("sqrt", [1.0 - c.x * c.x])],
    "atan": lambda c: [c.dy / (1.0 + c.x * c.x)],
    "sinh": _scaled(lambda c: apply("cosh", [c.x])),
    "cosh": _scaled(lambda c: apply("sinh", [c.x])),
    "asinh": lambda c: [c.dy / apply("sqrt", [1.0 + c.x * c.x])],
    "acosh": lambda c: [c.dy / apply("sqrt", [c.x * c.x - 1.0])],
    "atanh": lambda c: [c.dy / (1.0 - c.x * c.x)],
}


def _binary(
    left: Callable[[Call, Tensor, Tensor], Tensor], right: Callable[[Call, Tensor, Tensor], Tensor]
) -> Rule:
    """Return the rule of a binary op from the gradients of its operands as if they were not broadcast."""

    def rule(call: Call) -> Gradients:
        a, b = call.operands
        return [
            sum_to(side(call, a, b), operand.shape) if needed else None
            for side, operand, needed in zip((left, right), (a, b), call.needed, strict=True)
        ]

    return rule


def _half_of_ties(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 where a > b, 0 where a < b, 1/2 where they are equal."""
    return 0.5 * _sign(a - b) + 0.5


BINARY: Final[dict[str, Rule]] = {
    "add": _binary(lambda c, a, b: c.dy, lambda c, a, b: c.dy),
    "sub": _binary(lambda c, a, b: c.dy, lambda c, a, b: -c.dy),
    "mul": _binary(lambda c, a, b: c.dy * b, lambda c, a, b: c.dy * a),
    "div": _binary(lambda c, a, b: c.dy / b, lambda c, a, b: -(c.dy * c.y / b)),
    "pow": _binary(
        lambda c, a, b: c.dy * b * a ** (b - 1.0),
        lambda c, a, b: c.dy * c.y * apply("log", [a]),
    ),
    "maximum": _binary(
        lambda c, a, b: c.dy * _half_of_ties(a, b), lambda c, a, b: c.dy * _half_of_ties(b, a)
    ),
    "minimum": _binary(
        lambda c, a, b: c.dy * _half_of_ties(b, a), lambda c, a, b: c.dy * _half_of_ties(a, b)
    ),
}

ROWS: Final[dict[str, Rule]] = {**UNARY, **BINARY}
