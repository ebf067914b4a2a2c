"""Matrix products, reductions and softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.epilogue import Step, apply_epilogue, check_epilogue
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.types import TensorType

__all__ = [
    "REDUCTIONS",
    "ROWS",
    "AxisAttributes",
    "MatmulAttributes",
    "ReduceAttributes",
    "greatest_along",
    "least_along",
]


@dataclass(frozen=True, slots=True)
class MatmulAttributes(Attributes):
    """What follows the product, whose channels are its last axis."""

    epilogue: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class AxisAttributes(Attributes):
    """One axis; negative counts from the end."""

    axis: int = -1


@dataclass(frozen=True, slots=True)
class ReduceAttributes(Attributes):
    """Axes to reduce, not negative; they stay as extents of 1 with `keepdims`."""

    axes: tuple[int, ...]
    keepdims: bool = True


def greatest_along(x: Array, axis: int | tuple[int, ...], keepdims: bool) -> Array:
    """Return the greatest elements along some axes, NaN ignored: of nothing else -inf, as of nothing.

    NumPy's and ONNX's own reference propagate NaN, with ONNX Runtime it depends on where it lies. On x86 to ignore it is one instruction
    per element; to propagate it took 3x3 pools 1.2 to 3.6 times as long (Zen 4), and CUDA's `fmaxf` ignores it.

    Example:
        >>> greatest_along(np.array([[1.0, np.nan], [np.nan, np.nan]]), 1, False)
        array([  1., -inf])
    """
    limit = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    return np.fmax.reduce(x, axis, keepdims=keepdims, initial=limit) if axis != () else x


def least_along(x: Array, axis: int | tuple[int, ...], keepdims: bool) -> Array:
    """Return the least elements along some axes; NaN as for `greatest_along`, of nothing else inf."""
    limit = np.iinfo(x.dtype).max if x.dtype.kind in "iu" else np.inf
    return np.fmin.reduce(x, axis, keepdims=keepdims, initial=limit) if axis != () else x


REDUCTIONS: Final[dict[str, Callable[..., Array]]] = {
    "reduce_mean": np.mean,
    "reduce_sum": np.sum,
    "reduce_max": greatest_along,
    "reduce_min": least_along,
    "reduce_prod": np.prod,
}


def _infer_matmul(types: Sequence[TensorType], attributes: MatmulAttributes) -> TensorType:
    a, b = types[:2]
    if a.rank < 2 or b.rank < 2 or a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"matmul operands (.., M, K) and (.., K, N) must agree in K; got {a}, {b}."
        )
    if a.dtype != b.dtype:
        raise DTypeError(f"matmul operands must have one element type; got {a} and {b}.")
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(f"matmul batch dimensions must broadcast; got {a} and {b}.") from None
    result = TensorType((*map(int, batch), a.shape[-2], b.shape[-1]), a.dtype)
    check_epilogue("matmul", attributes.epilogue, types[2:], result, channel_axis=-1, spreads=True)
    return result


def _matmul_reference(arrays: Sequence[Array], a: MatmulAttributes) -> Array:
    left, right, *extras = arrays
    return apply_epilogue(left @ right, a.epilogue, extras, channel_axis=-1)


def _infer_reduce(name: str) -> Callable[[Sequence[TensorType], ReduceAttributes], TensorType]:
    def infer(types: Sequence[TensorType], a: ReduceAttributes) -> TensorType:
        data = types[0]
        # The mean of integers has no integer type that every library agrees on.
        if data.dtype == "bool" or (name == "reduce_mean" and not data.is_float):
            kind = "a float" if name == "reduce_mean" else "a number"
            raise DTypeError(f"{name} data must have {kind} type; got {data}.")
        if name in ("reduce_max", "reduce_min") and not data.size:
            raise ShapeError(f"{name} data must not be empty; got {data}.")
        return _reduced(data, a)

    return infer


def _reduced(data: TensorType, a: ReduceAttributes) -> TensorType:
    if any(not 0 <= axis < data.rank for axis in a.axes) or len(set(a.axes)) != len(a.axes):
        raise ShapeError(f"reduce axes must be distinct and in [0, {data.rank}); got {a.axes}.")
    shape = [1 if i in a.axes else n for i, n in enumerate(data.shape)]
    if not a.keepdims:
        shape = [n for i, n in enumerate(data.shape) if i not in a.axes]
    return TensorType(tuple(shape), data.dtype)


def _reduce_reference(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda arrays, a: np.asarray(
        function(arrays[0], axis=a.axes, keepdims=a.keepdims)
    ).astype(arrays[0].dtype)


def _infer_softmax(types: Sequence[TensorType], a: AxisAttributes) -> TensorType:
    data = types[0]
    if not data.is_float:
        raise DTypeError(f"softmax data must have a float type; got {data}.")
    if not -data.rank <= a.axis < data.rank:
        raise ShapeError(
            f"softmax axis must be in [{-data.rank}, {data.rank}); got {a.axis} for {data}."
        )
    return data


def _infer_softmax_grad(types: Sequence[TensorType], a: AxisAttributes) -> TensorType:
    result, gradient = types
    if gradient != result:
        raise ShapeError(f"softmax's gradient must be like the result, {result}; got {gradient}.")
    return _infer_softmax(types, a)


def _softmax_reference(arrays: Sequence[Array], a: AxisAttributes) -> Array:
    e = np.exp(arrays[0] - arrays[0].max(a.axis, keepdims=True))
    return e / e.sum(a.axis, keepdims=True)


def _log_softmax_reference(arrays: Sequence[Array], a: AxisAttributes) -> Array:
    shifted = arrays[0] - arrays[0].max(a.axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(a.axis, keepdims=True))


def _softmax_grad(arrays: Sequence[Array], a: AxisAttributes) -> Array:
    y, dy = arrays
    return y * (dy - (dy * y).sum(a.axis, keepdims=True))


def _log_softmax_grad(arrays: Sequence[Array], a: AxisAttributes) -> Array:
    y, dy = arrays
    return dy - np.exp(y) * dy.sum(a.axis, keepdims=True)


ROWS: Final = (
    OpDef(
        "matmul",
        MatmulAttributes,
        (2, None),
        _infer_matmul,
        _matmul_reference,
        floats=Floats.PRODUCT,
    ),
    OpDef("softmax", AxisAttributes, (1, 1), _infer_softmax, _softmax_reference),
    OpDef("log_softmax", AxisAttributes, (1, 1), _infer_softmax, _log_softmax_reference),
    OpDef("softmax_grad", AxisAttributes, (2, 2), _infer_softmax_grad, _softmax_grad),
    OpDef("log_softmax_grad", AxisAttributes, (2, 2), _infer_softmax_grad, _log_softmax_grad),
    *(
        OpDef(
            name,
            ReduceAttributes,
            (1, 1),
            _infer_reduce(name),
            _reduce_reference(function),
            floats=Floats.NEUTRAL if name in ("reduce_max", "reduce_min") else Floats.WIDE,
        )
        for name, function in REDUCTIONS.items()
    ),
)
