"""Exponentials of float32 vectors: softmax's terms, and what sigmoid and SiLU divide by, half of an EfficientNet's activations.

THE ALGORITHM   -x log2(e) = n + f, n whole, |f| <= 1/2:  n is what rounding leaves of the sum with 1.5 x 2^23, whose last bits it then is,
                so that 2^n is a shift of them; 2^f is a polynomial, and  1 + 2^n 2^f  one fused multiply-add.
COST            12 vector instructions: SiLU takes 14 cycles a vector on an Intel Xeon (Emerald Rapids), most of it the division; 24 with
                TOPI's exponential, which rounds, converts and multiplies by itself
ACCURACY        3e-7 relative for SiLU where |x| <= 20, polynomial 2e-9; infinities and NaN as by definition
SOURCE          Cody & Waite, Software Manual for the Elementary Functions, ch. 6; coefficients: Remez, relative error, in float64
"""

from __future__ import annotations

from typing import Any, Final

from tvm import tirx

__all__ = ["exp", "exp_of_minus", "one_plus_exp_of_minus"]

# 2^f on [-1/2, 1/2], lowest power first; exact at 0, so that sigmoid(0) is 1/2.
_POWERS: Final = (
    1.0,
    0.6931471824645996,
    0.24022646248340607,
    0.05550328642129898,
    0.009618489071726799,
    0.0013399930903688073,
    0.0001534581242594868,
)
_MINUS_LOG2_E: Final = -1.4426950408889634

# 1.5 x 2^23, where floats are whole numbers apart, and the bias of an exponent: the last 8 bits of a sum with it are 2^n's exponent.
_WHOLE: Final = 1.5 * 2.0**23 + 127
# Its bits where 2^n is infinite.
_INFINITE: Final = 0x4B400000 + 255

# log2(e) in two floats, and where exp(x) is infinite and nothing.
_LOG2_E: Final = (1.44269502162933349609375, 1.9259629911266174e-8)
_ENDS: Final = (89.0, -105.0)

# From here on exp(-x) is nothing beside 1, and its exponent would leave those 8 bits.
_LARGE: Final = 88.0

Expr = Any


def one_plus_exp_of_minus(x: Expr) -> Expr:
    """Return 1 + exp(-x) of a float32."""
    fraction, power = _powers(x)
    return fraction * power + _const(1.0)


def exp(x: Expr) -> Expr:
    """Return e to a float32 over the whole range of results.

    2^n is multiplied by in two halves, since 2^128 is no float32: TOPI's exponential is infinite from 88.38 on, where e^88.72 is finite.
    """
    top, bottom = map(_const, _ENDS)
    clamped = tirx.Select(x > top, top, x)  # a NaN stays one
    clamped = tirx.Select(clamped < bottom, bottom, clamped)
    total = tirx.reinterpret("int32", clamped * _const(_LOG2_E[0]) + _const(1.5 * 2.0**23))
    n = total - tirx.const(0x4B400000, "int32")
    fraction = clamped * _const(_LOG2_E[0]) - n.astype("float32") + clamped * _const(_LOG2_E[1])
    half = n >> 1
    return _polynomial(fraction) * _power_of_two(half) * _power_of_two(n - half)


def _power_of_two(n: Expr) -> Expr:
    return tirx.reinterpret("float32", (n + 127) << 23)


def exp_of_minus(x: Expr) -> Expr:
    """Return exp(-x) of a float32; 0 from 1.2e-38 down, infinite from 88.38 on."""
    fraction, power = _powers(x)
    return fraction * power


def _const(value: float) -> Expr:
    return tirx.const(value, "float32")


def _powers(x: Expr) -> tuple[Expr, Expr]:
    """Return 2^f and 2^n, whose product is exp(-x)."""
    clamped = tirx.Select(x > _const(_LARGE), _const(_LARGE), x)  # a NaN stays one
    total = clamped * _const(_MINUS_LOG2_E) + _const(_WHOLE)
    bits = tirx.min(tirx.reinterpret("int32", total), tirx.const(_INFINITE, "int32"))
    # By way of the bits, for TVM takes (a + b) - b for a.
    whole = tirx.reinterpret("float32", bits) - _const(_WHOLE)
    fraction = clamped * _const(_MINUS_LOG2_E) - whole
    return _polynomial(fraction), tirx.reinterpret("float32", bits << 23)


def _polynomial(fraction: Expr) -> Expr:
    """Return 2^f."""
    power = _const(_POWERS[-1])
    for coefficient in _POWERS[-2::-1]:
        power = power * fraction + _const(coefficient)
    return power
