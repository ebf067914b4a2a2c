"""Elementwise ops: one table of scalar functions, used as graph ops and as epilogue steps of convolutions alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.types import TensorType

__all__ = ["BINARY", "ROWS", "UNARY", "Unary"]


@dataclass(frozen=True, slots=True)
class Unary:
    """A scalar function: its parameters with defaults, its NumPy form, and what it computes in (`Floats`)."""

    attributes: type[Attributes]
    function: Callable[..., Array]
    floats: Floats = Floats.WIDE


@dataclass(frozen=True, slots=True)
class NoAttributes(Attributes):
    """An op without attributes."""


@dataclass(frozen=True, slots=True)
class ClipAttributes(Attributes):
    """Bounds; an infinite one does not bind."""

    min: float = float("-inf")
    max: float = float("inf")


@dataclass(frozen=True, slots=True)
class LeakyAttributes(Attributes):
    alpha: float = 0.01


@dataclass(frozen=True, slots=True)
class AlphaAttributes(Attributes):
    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class HardSigmoidAttributes(Attributes):
    alpha: float = 0.2
    beta: float = 0.5


def _sigmoid(x: Array) -> Array:
    # Each branch only ever sees exponents <= 0, so neither overflows.
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


_erf = np.vectorize(math.erf, otypes=[np.float64])

# ONNX's names in lower case with underscores; parameters and their defaults are ONNX's too.
UNARY: Final[dict[str, Unary]] = {
    "relu": Unary(NoAttributes, lambda x: np.maximum(x, 0), Floats.NEUTRAL),
    "clip": Unary(
        ClipAttributes, lambda x, min, max: np.minimum(np.maximum(x, min), max), Floats.NEUTRAL
    ),
    "leaky_relu": Unary(
        LeakyAttributes, lambda x, alpha: np.where(x < 0, alpha * x, x), Floats.NEUTRAL
    ),
    "elu": Unary(
        AlphaAttributes, lambda x, alpha: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)
    ),
    "sigmoid": Unary(NoAttributes, _sigmoid),
    "hard_sigmoid": Unary(HardSigmoidAttributes, _hard_sigmoid),
    "hard_swish": Unary(NoAttributes, lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5)),
    "silu": Unary(NoAttributes, lambda x: x * _sigmoid(x)),
    "gelu": Unary(NoAttributes, lambda x: x / 2 * (1 + _erf(x * math.sqrt(0.5)))),
    "tanh": Unary(NoAttributes, np.tanh),
    "softplus": Unary(NoAttributes, lambda x: np.logaddexp(x, 0)),
    "exp": Unary(NoAttributes, np.exp),
    "log": Unary(NoAttributes, np.log),
    "sqrt": Unary(NoAttributes, np.sqrt),
    "reciprocal": Unary(NoAttributes, lambda x: 1 / x),
    "erf": Unary(NoAttributes, lambda x: _erf(x)),
    "abs": Unary(NoAttributes, np.abs, Floats.NEUTRAL),
    "neg": Unary(NoAttributes, np.negative, Floats.NEUTRAL),
    "sign": Unary(NoAttributes, np.sign, Floats.NEUTRAL),
    "floor": Unary(NoAttributes, np.floor),
    "ceil": Unary(NoAttributes, np.ceil),
    "round": Unary(NoAttributes, np.rint),
    "sin": Unary(NoAttributes, np.sin),
    "cos": Unary(NoAttributes, np.cos),
    "tan": Unary(NoAttributes, np.tan),
    "asin": Unary(NoAttributes, np.arcsin),
    "acos": Unary(NoAttributes, np.arccos),
    "atan": Unary(NoAttributes, np.arctan),
    "sinh": Unary(NoAttributes, np.sinh),
    "cosh": Unary(NoAttributes, np.cosh),
    "asinh": Unary(NoAttributes, np.arcsinh),
    "acosh": Unary(NoAttributes, np.arccosh),
    "atanh": Unary(NoAttributes, np.arctanh),
}
# These mean the same on integers; the others take floats alone.
_ON_INTEGERS: Final = frozenset({"relu", "abs", "neg", "sign"})


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    # Integers divide towards zero, as in C and ONNX; NumPy's // rounds down.
    quotient = np.floor_divide(a, b)
    return quotient + ((quotient < 0) & (quotient * b != a)).astype(quotient.dtype)


def _power(a: Array, b: Array) -> Array:
    """Return C's pow, which ONNX Runtime has, too; NumPy's of 1/2 is sqrt, wrong at -0.0 and minus infinity."""
    y = np.power(a, b)
    if y.dtype.kind != "f":
        return y
    apart = (b == 0.5) & ((a == 0) | np.isneginf(a))
    return np.where(apart, np.abs(a), y)


BINARY: Final[dict[str, Callable[[Array, Array], Array]]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _divide,
    "pow": _power,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


_WIDE: Final = frozenset({"div", "pow"})


def _infer_unary(name: str) -> Callable[[Sequence[TensorType], Any], TensorType]:
    def infer(types: Sequence[TensorType], attributes: Any) -> TensorType:
        kind = "a number" if name in _ON_INTEGERS else "a float"
        if types[0].dtype == "bool" or not (types[0].is_float or name in _ON_INTEGERS):
            raise DTypeError(f"{name} operand must have {kind} type; got {types[0]}.")
        if name == "clip" and (math.isnan(attributes.min) or math.isnan(attributes.max)):
            raise ShapeError(
                f"clip bounds must be numbers; got {attributes.min}, {attributes.max}."
            )
        return types[0]

    return infer


def _infer_binary(name: str) -> Callable[[Sequence[TensorType], Any], TensorType]:
    def infer(types: Sequence[TensorType], attributes: Any) -> TensorType:
        a, b = types
        if a.dtype != b.dtype:
            raise DTypeError(f"{name} operands must have one element type; got {a} and {b}.")
        if a.dtype == "bool":
            raise DTypeError(f"{name} operands must have a number type; got {a} and {b}.")
        try:
            shape = np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            raise ShapeError(f"{name} operands must broadcast; got {a} and {b}.") from None
        return TensorType(tuple(map(int, shape)), a.dtype)

    return infer


def _unary_reference(row: Unary) -> Callable[[Sequence[Array], Any], Array]:
    names = list(row.attributes.__dataclass_fields__)
    return lambda arrays, attributes: row.function(
        arrays[0], *(getattr(attributes, n) for n in names)
    )


def _binary_reference(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    return lambda arrays, attributes: function(*arrays)


ROWS: Final = (
    *(
        OpDef(n, u.attributes, (1, 1), _infer_unary(n), _unary_reference(u), True, u.floats)
        for n, u in UNARY.items()
    ),
    *(
        OpDef(
            n,
            NoAttributes,
            (2, 2),
            _infer_binary(n),
            _binary_reference(f),
            True,
            Floats.WIDE if n in _WIDE else Floats.NEUTRAL,
        )
        for n, f in BINARY.items()
    ),
)
