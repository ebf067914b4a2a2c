"""erf on float32 vectors, which GELU gates by.

THE ALGORITHM   x P(x^2) / Q(x^2) of x within [-4, 4], where erf is 1 to the last digit; a NaN stays one, which TOPI's clamp loses
COST            13 vector instructions, one of them the division
ACCURACY        4e-7
SOURCE          Eigen, MathFunctionsImpl.h (rational approximation of degree 13 over 8)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tvm import tirx

__all__ = ["erf"]

# Highest power of x^2 first.
_ABOVE: Final = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_BELOW: Final = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_END: Final = 4.0

Expr = Any


def erf(x: Expr) -> Expr:
    """Return the error function of a float32."""
    top, bottom = _const(_END), _const(-_END)
    clamped = tirx.Select(x > top, top, x)
    clamped = tirx.Select(clamped < bottom, bottom, clamped)
    square = clamped * clamped
    return clamped * _horner(_ABOVE, square) / _horner(_BELOW, square)


def _horner(coefficients: Sequence[float], x: Expr) -> Expr:
    total = _const(coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + _const(coefficient)
    return total


def _const(value: float) -> Expr:
    return tirx.const(value, "float32")
