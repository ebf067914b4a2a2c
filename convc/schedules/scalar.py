"""Tensor-expression forms of the scalar functions of `ir.ops.elementwise`, and of epilogues.

Transcendental functions on float32 go through TOPI's polynomials: LLVM turns `exp` on a vector into sixteen calls of libm (2 ns
an element, measured), and these into straight vector code. Every function here is elementwise, so a schedule can inline it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from tvm import te, tirx, topi

from convc.ir.epilogue import Step
from convc.ir.types import FLOATS
from convc.schedules.error_function import erf
from convc.schedules.logistic import exp, one_plus_exp_of_minus

__all__ = [
    "UNARY",
    "apply_steps",
    "cast",
    "factor",
    "is_once",
    "map_elements",
    "once",
    "zero_beyond",
]

ONCE: Final = "computed_once"

Tensor = te.Tensor
Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def map_elements(x: Tensor, function: Callable[[Expr], Expr]) -> Tensor:
    """Return the tensor of `function` of each element."""
    return te.compute(x.shape, lambda *i: function(x(*i)), name="map")


def once(shape: Sequence[int], function: Callable[..., Expr], name: str) -> Tensor:
    """Return a tensor that the schedules which take anything compute before its readers, and not anew for each of them."""
    return te.compute(tuple(shape), function, name=name, attrs={ONCE: 1})


def is_once(block: Any) -> bool:
    """Return whether a TensorIR block computes such a tensor."""
    return ONCE in block.annotations


def cast(x: Tensor, dtype: str) -> Tensor:
    """Return the tensor in another element type; itself if it has that type."""
    if x.dtype == dtype:
        return x
    return te.compute(x.shape, lambda *i: x(*i).astype(dtype), name="cast")


def zero_beyond(x: Tensor, channels: int, block: int) -> Tensor:
    """Return NCHW[b]c data with zeros in the lanes beyond the last channel.

    Every blocked value keeps zeros there. A reader multiplies them with zero weights, and 0 * inf or 0 * nan would not be 0.
    """
    if channels % block == 0:
        return x

    def masked(n: Expr, c: Expr, *at: Expr) -> Expr:
        return tirx.Select(c * block + at[-1] < channels, x(n, c, *at), _const(0, x))

    return te.compute(x.shape, masked, name="masked")


def _const(value: float, x: Tensor) -> Expr:
    return tirx.const(value, x.dtype)


def factor(value: float, dtype: Any) -> Expr:
    """Return a constant that is multiplied or divided.

    TVM makes 0 of a product with 0.0 and of 0.0 divided by something, where infinity and NaN give NaN. That the root of a zero is this
    zero, sign and all, is what the compilers behind it know and TVM does not.
    """
    number = tirx.const(value, dtype)
    return number if value or str(dtype) not in FLOATS else tirx.sqrt(number)


def _by_precision(
    fast: Callable[[Tensor], Tensor], exact: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """Return the function that uses the polynomial for float32, also for narrower types, and libm for float64."""

    def function(x: Tensor) -> Tensor:
        if x.dtype == "float64":
            return exact(x)
        return (
            fast(x) if x.dtype == "float32" else topi.cast(fast(topi.cast(x, "float32")), x.dtype)
        )

    return function


_exp = _by_precision(lambda x: map_elements(x, exp), topi.exp)
_tanh = _by_precision(topi.fast_tanh, topi.tanh)
_erf = _by_precision(lambda x: map_elements(x, erf), topi.erf)


def _clip(x: Tensor, low: float, high: float) -> Tensor:
    # In this order a NaN stays one, as it does in the reference; it is the order of maxps and minps, one instruction each.
    if low != float("-inf"):
        x = map_elements(x, lambda v: tirx.Select(v < _const(low, x), _const(low, x), v))
    if high != float("inf"):
        x = map_elements(x, lambda v: tirx.Select(v > _const(high, x), _const(high, x), v))
    return x


def _leaky_relu(x: Tensor, alpha: float) -> Tensor:
    return map_elements(x, lambda v: tirx.Select(v < _const(0, x), v * factor(alpha, x.dtype), v))


def _elu(x: Tensor, alpha: float) -> Tensor:
    e = _exp(x)
    return te.compute(
        x.shape,
        lambda *i: tirx.Select(
            x(*i) < _const(0, x), _const(alpha, x) * (e(*i) - _const(1, x)), x(*i)
        ),
        name="elu",
    )


def _exact_sigmoid(x: Tensor) -> Tensor:
    e = topi.exp(topi.negative(x))
    return map_elements(e, lambda v: _const(1, x) / (_const(1, x) + v))


_sigmoid = _by_precision(
    lambda x: map_elements(x, lambda v: _const(1, x) / one_plus_exp_of_minus(v)), _exact_sigmoid
)
_silu = _by_precision(
    lambda x: map_elements(x, lambda v: v / one_plus_exp_of_minus(v)),
    lambda x: topi.multiply(x, _exact_sigmoid(x)),
)


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    line = map_elements(x, lambda v: v * factor(alpha, x.dtype) + _const(beta, x))
    return _clip(line, 0.0, 1.0)


def _gelu(x: Tensor) -> Tensor:
    e = _erf(map_elements(x, lambda v: v * _const(math.sqrt(0.5), x)))
    return te.compute(
        x.shape, lambda *i: _const(0.5, x) * x(*i) * (_const(1, x) + e(*i)), name="gelu"
    )


def _softplus(x: Tensor) -> Tensor:
    # max(x, 0) + log(1 + exp(-|x|)) does not overflow; the sum itself would round 1 + exp(-17) to 1.
    e = _libm("log1p")(_exp(topi.negative(topi.abs(x))))
    return te.compute(x.shape, lambda *i: tirx.max(x(*i), _const(0, x)) + e(*i), name="softplus")


def _sign(x: Tensor) -> Tensor:
    def sign(v: Expr) -> Expr:
        below = tirx.Select(v < _const(0, x), _const(-1, x), v)  # zeros and NaN stay as they are
        return tirx.Select(v > _const(0, x), _const(1, x), below)

    return map_elements(x, sign)


def _libm(name: str) -> Callable[[Tensor], Tensor]:
    """Return a function that TVM hands to the C library, an element at a time; narrow types go through float32."""

    def function(x: Tensor) -> Tensor:
        wide = x.dtype in ("float32", "float64")
        dtype = x.dtype if wide else "float32"
        symbol = name if dtype == "float64" else f"{name}f"

        def element(v: Expr) -> Expr:
            y = tirx.call_pure_extern(dtype, symbol, v if wide else v.astype(dtype))
            return y if wide else y.astype(x.dtype)

        return map_elements(x, element)

    return function


UNARY: Final[dict[str, Callable[..., Tensor]]] = {
    "relu": lambda x: _clip(x, 0.0, float("inf")),
    "clip": _clip,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "sigmoid": _sigmoid,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": lambda x: topi.multiply(x, _hard_sigmoid(x, 1 / 6, 0.5)),
    "silu": _silu,
    "gelu": _gelu,
    "tanh": _tanh,
    "softplus": _softplus,
    "exp": _exp,
    "log": topi.log,
    "sqrt": topi.sqrt,
    "reciprocal": lambda x: map_elements(x, lambda v: _const(1, x) / v),
    "erf": _erf,
    "abs": topi.abs,
    "neg": topi.negative,
    "sign": _sign,
    "floor": topi.floor,
    "ceil": topi.ceil,
    "round": lambda x: map_elements(x, tirx.nearbyint),
    **{
        name: _libm(name)
        for name in (
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "asinh",
            "acosh",
            "atanh",
        )
    },
}


def apply_steps(
    y: Tensor,
    steps: Sequence[Step],
    extras: Sequence[Tensor],
    bias: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return `y` after an epilogue; `bias(y, b)` adds a packed bias, whose axes the algorithm alone knows."""
    operands: Iterator[Tensor] = iter(extras)
    for step in steps:
        if step.name == "bias":
            y = bias(y, next(operands))
        elif step.name == "add":
            y = topi.add(y, next(operands))
        elif step.name == "mul":
            y = topi.multiply(y, next(operands))
        else:
            y = UNARY[step.name](y, *step.arguments)
    return y
