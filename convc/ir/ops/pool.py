"""Pooling over windows, and local response normalisation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.spec import pooled_extent
from convc.ir.types import Shape, TensorType

__all__ = [
    "ROWS",
    "AveragePoolAttributes",
    "LRNAttributes",
    "MaxPoolAttributes",
    "MaxPoolIndicesAttributes",
    "infer_pool",
    "pool_counts",
]


@dataclass(frozen=True, slots=True)
class MaxPoolAttributes(Attributes):
    """ONNX MaxPool; padding never wins."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False


@dataclass(frozen=True, slots=True)
class MaxPoolIndicesAttributes(Attributes):
    """Where the greatest element of each window lies in the whole tensor, the first of equals; planes may count by columns."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False
    column_major: bool = False


@dataclass(frozen=True, slots=True)
class AveragePoolAttributes(Attributes):
    """ONNX AveragePool; `count_include_pad` divides by the points of the padded data under the window, else by data points."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False
    count_include_pad: bool = False


@dataclass(frozen=True, slots=True)
class LRNAttributes(Attributes):
    """Local response normalisation across channels: x / (bias + alpha/size * sum of squares)^beta. Source: ONNX LRN-13."""

    size: int
    alpha: float = 0.0001
    beta: float = 0.75
    bias: float = 1.0


PoolAttributes = MaxPoolAttributes | MaxPoolIndicesAttributes | AveragePoolAttributes


def _resolved(a: PoolAttributes) -> tuple[Shape, Shape, Shape]:
    n = len(a.kernel)
    return a.strides or (1,) * n, a.pads or (0,) * (2 * n), a.dilations or (1,) * n


def infer_pool(types: Sequence[TensorType], a: PoolAttributes) -> TensorType:
    """Return the type of a pool's result; raises ShapeError or DTypeError if there is none."""
    data, n = types[0], len(a.kernel)
    strides, pads, dilations = _resolved(a)
    if data.rank != n + 2 or n == 0:
        raise ShapeError(f"pool data must have rank {n + 2} for kernel {a.kernel}; got {data}.")
    if data.dtype == "bool" or (isinstance(a, AveragePoolAttributes) and not data.is_float):
        kind = "a float" if isinstance(a, AveragePoolAttributes) else "a number"
        raise DTypeError(f"pool data must have {kind} type; got {data}.")
    if len(strides) != n or len(dilations) != n or len(pads) != 2 * n:
        raise ShapeError(
            f"pool strides, dilations and pads must have {n}, {n} and {2 * n} values; got {strides}, {dilations}, {pads}."
        )
    if min((*a.kernel, *strides, *dilations)) < 1 or min(pads) < 0:
        raise ShapeError(
            f"pool kernel, strides and dilations must be positive and pads not negative; "
            f"got {a.kernel}, {strides}, {dilations}, {pads}."
        )
    extents = []
    for axis in range(n):
        covered = dilations[axis] * (a.kernel[axis] - 1) + 1
        both = (pads[axis], pads[n + axis])
        if covered <= max(both):
            raise ShapeError(f"pool pads must be smaller than the window {covered}; got {both}.")
        count = pooled_extent(
            data.shape[2 + axis],
            a.kernel[axis],
            strides[axis],
            both,
            dilations[axis],
            ceil_mode=a.ceil_mode,
        )
        if count < 1:
            raise ShapeError(
                f"pool window {covered} must fit the padded extent on spatial axis {axis}; got {data.shape[2 + axis] + sum(both)} of {data}."
            )
        extents.append(count)
    return TensorType((*data.shape[:2], *extents), data.dtype)


def _windows(x: Array, a: PoolAttributes, fill: float) -> Array:
    """Return every tap of every window stacked in front: (taps, N, C, *output)."""
    strides, pads, dilations = _resolved(a)
    n = len(a.kernel)
    extents = infer_pool([TensorType(x.shape, "float64")], a).shape[2:]
    # ceil_mode may hang over the end: pad as far as the last window reaches.
    border = [(0, 0), (0, 0)]
    for axis in range(n):
        reach = (extents[axis] - 1) * strides[axis] + dilations[axis] * (a.kernel[axis] - 1) + 1
        over = max(pads[n + axis], reach - x.shape[2 + axis] - pads[axis])
        border.append((pads[axis], over))
    padded = np.pad(x, border, constant_values=fill)
    taps = []
    for tap in itertools.product(*map(range, a.kernel)):
        begins = [t * d for t, d in zip(tap, dilations, strict=True)]
        box = tuple(
            slice(b, b + (e - 1) * s + 1, s)
            for b, e, s in zip(begins, extents, strides, strict=True)
        )
        taps.append(padded[(..., *box)])
    return np.stack(taps)


def pool_counts(extents: Shape, a: AveragePoolAttributes) -> Array:
    """Return by how many points each output of an average pool is divided, shape (1, 1, *output)."""
    strides, pads, _ = _resolved(a)
    n = len(a.kernel)
    ones = np.ones((1, 1, *extents))
    if a.count_include_pad:
        border = [(0, 0), (0, 0), *zip(pads[:n], pads[n:], strict=True)]
        ones = np.pad(ones, border, constant_values=1.0)
        bare = AveragePoolAttributes(a.kernel, strides, (), a.dilations, a.ceil_mode)
        full = infer_pool([TensorType((1, 1, *extents), "float64")], a).shape
        return _windows(ones, bare, 0.0).sum(0)[tuple(map(slice, full))]
    return _windows(ones, a, 0.0).sum(0)


def _max_reference(arrays: Sequence[Array], a: MaxPoolAttributes) -> Array:
    # NaN is ignored: a window of nothing else has nothing in it.
    least = _least(arrays[0])
    return np.fmax.reduce(_windows(arrays[0], a, least), 0, initial=least)


def _least(x: Array) -> float | int:
    return -np.inf if x.dtype.kind == "f" else int(np.iinfo(x.dtype).min)


def _infer_indices(types: Sequence[TensorType], a: MaxPoolIndicesAttributes) -> TensorType:
    return TensorType(infer_pool(types, a).shape, "int64")


def _indices_reference(arrays: Sequence[Array], a: MaxPoolIndicesAttributes) -> Array:
    x = arrays[0]
    plane = np.arange(int(np.prod(x.shape[2:])))
    order = plane.reshape(x.shape[2:][::-1]).T if a.column_major else plane.reshape(x.shape[2:])
    base = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * (x.ndim - 2))
    places = (base * plane.size + order).astype(np.int64)
    taps, first = _windows(x, a, _least(x)), _windows(places, a, -1)
    held = (taps == np.fmax.reduce(taps, 0, initial=_least(x))) & (first >= 0)
    chosen = np.take_along_axis(first, np.argmax(held, 0)[None], 0)[0]
    # A window of NaN alone names the last place of all.
    return np.where(held.any(0), chosen, places.size - 1)


def _average_reference(arrays: Sequence[Array], a: AveragePoolAttributes) -> Array:
    x = arrays[0]
    return _windows(x, a, 0.0).sum(0) / pool_counts(x.shape[2:], a)


def _infer_lrn(types: Sequence[TensorType], a: LRNAttributes) -> TensorType:
    if types[0].rank < 2 or not types[0].is_float:
        raise ShapeError(f"lrn data must be a float tensor (N, C, ...); got {types[0]}.")
    if a.size < 1:
        raise ShapeError(f"lrn size must be positive; got {a.size}.")
    return types[0]


def _lrn_reference(arrays: Sequence[Array], a: LRNAttributes) -> Array:
    x = arrays[0]
    squares, total = x * x, np.zeros_like(x)
    before = (a.size - 1) // 2
    for c in range(x.shape[1]):
        first, last = max(0, c - before), min(x.shape[1], c - before + a.size)
        total[:, c] = squares[:, first:last].sum(1)
    return x / (a.bias + a.alpha / a.size * total) ** a.beta


ROWS: Final = (
    OpDef("max_pool", MaxPoolAttributes, (1, 1), infer_pool, _max_reference, floats=Floats.NEUTRAL),
    OpDef(
        "max_pool_indices",
        MaxPoolIndicesAttributes,
        (1, 1),
        _infer_indices,
        _indices_reference,
        floats=Floats.NEUTRAL,
    ),
    OpDef("average_pool", AveragePoolAttributes, (1, 1), infer_pool, _average_reference),
    OpDef("lrn", LRNAttributes, (1, 1), _infer_lrn, _lrn_reference),
)
