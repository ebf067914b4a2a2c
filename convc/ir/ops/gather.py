"""Ops that read or write at places which are data: gather and scatter. A negative index counts from the end.

An index out of range is the model's mistake; kernels must survive it: a gather reads the nearest element, a scatter writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.ops.linear import AxisAttributes
from convc.ir.types import TensorType

__all__ = [
    "REDUCTIONS",
    "ROWS",
    "BatchAttributes",
    "ScatterAttributes",
    "ScatterNDAttributes",
]


@dataclass(frozen=True, slots=True)
class BatchAttributes(Attributes):
    """How many leading axes data and indices share. Source: ONNX GatherND-12."""

    batch: int = 0


@dataclass(frozen=True, slots=True)
class ScatterAttributes(Attributes):
    """The axis that indices count along, and what happens to the element that is there. Source: ONNX ScatterElements-18."""

    axis: int
    reduction: str = "none"


@dataclass(frozen=True, slots=True)
class ScatterNDAttributes(Attributes):
    """What happens to the element that is there. Source: ONNX ScatterND-18."""

    reduction: str = "none"


REDUCTIONS: Final[dict[str, np.ufunc | None]] = {
    "none": None,
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def _check_indices(name: str, indices: TensorType) -> None:
    if indices.dtype not in ("int32", "int64"):
        raise DTypeError(f"{name} indices must be int32 or int64; got {indices}.")


def _check_axis(name: str, axis: int, data: TensorType) -> None:
    if not 0 <= axis < data.rank:
        raise ShapeError(f"{name} axis must be in [0, {data.rank}); got {axis} for {data}.")


def _check_not_empty(name: str, data: TensorType, result: TensorType) -> TensorType:
    if result.size and not data.size:
        raise ShapeError(f"{name} data must not be empty; got {data}.")
    return result


def _wrap(indices: Array, extent: int) -> Array:
    """Return indices counted from the front, those out of range moved to the nearest end."""
    return np.clip(np.where(indices < 0, indices + extent, indices), 0, max(0, extent - 1))


def _infer_gather(types: Sequence[TensorType], a: AxisAttributes) -> TensorType:
    data, indices = types
    _check_indices("gather", indices)
    _check_axis("gather", a.axis, data)
    shape = (*data.shape[: a.axis], *indices.shape, *data.shape[a.axis + 1 :])
    return _check_not_empty("gather", data, TensorType(shape, data.dtype))


def _gather(arrays: Sequence[Array], a: AxisAttributes) -> Array:
    x, indices = arrays
    if not x.size:
        return np.zeros((*x.shape[: a.axis], *indices.shape, *x.shape[a.axis + 1 :]), x.dtype)
    return np.take(x, _wrap(indices, x.shape[a.axis]), a.axis)


def _infer_gather_elements(types: Sequence[TensorType], a: AxisAttributes) -> TensorType:
    data, indices = types
    _check_indices("gather_elements", indices)
    _check_axis("gather_elements", a.axis, data)
    others = [
        (n, m)
        for i, (n, m) in enumerate(zip(indices.shape, data.shape, strict=False))
        if i != a.axis
    ]
    if indices.rank != data.rank or any(n > m for n, m in others):
        raise ShapeError(
            f"gather_elements indices must lie inside the data except on axis {a.axis}; got {indices} for {data}."
        )
    return _check_not_empty("gather_elements", data, TensorType(indices.shape, data.dtype))


def _gather_elements(arrays: Sequence[Array], a: AxisAttributes) -> Array:
    x, indices = arrays
    if not indices.size:
        return np.zeros(indices.shape, x.dtype)
    places = [np.asarray(p) for p in np.indices(indices.shape)]
    places[a.axis] = _wrap(indices, x.shape[a.axis])
    return x[tuple(places)]


def _infer_gather_nd(types: Sequence[TensorType], a: BatchAttributes) -> TensorType:
    data, indices = types
    _check_indices("gather_nd", indices)
    b = a.batch
    if not 0 <= b < min(data.rank, indices.rank) or data.shape[:b] != indices.shape[:b]:
        raise ShapeError(
            f"gather_nd data and indices must share {b} axes; got {data} and {indices}."
        )
    depth = indices.shape[-1]
    if not 1 <= depth <= data.rank - b:
        raise ShapeError(
            f"gather_nd indices must have 1 to {data.rank - b} values in the last axis; got {indices} for {data}."
        )
    shape = (*indices.shape[:-1], *data.shape[b + depth :])
    return _check_not_empty("gather_nd", data, TensorType(shape, data.dtype))


def _gather_nd(arrays: Sequence[Array], a: BatchAttributes) -> Array:
    x, indices = arrays
    b, depth = a.batch, indices.shape[-1]
    if not indices.size:
        return np.zeros((*indices.shape[:-1], *x.shape[b + depth :]), x.dtype)
    batch = np.indices(indices.shape[:-1])[:b]
    places = [_wrap(indices[..., i], x.shape[b + i]) for i in range(depth)]
    return x[(*batch, *places)]


def _check_scatter(name: str, types: Sequence[TensorType], reduction: str) -> None:
    data, indices, updates = types
    _check_indices(name, indices)
    if updates.dtype != data.dtype:
        raise DTypeError(
            f"{name} data and updates must have one element type; got {data}, {updates}."
        )
    if reduction not in REDUCTIONS:
        raise ShapeError(
            f"{name} reduction must be one of {', '.join(REDUCTIONS)}; got '{reduction}'."
        )
    if reduction != "none" and data.dtype == "bool":
        raise DTypeError(f"{name} with reduction {reduction} must have numbers; got {data}.")


def _infer_scatter_elements(types: Sequence[TensorType], a: ScatterAttributes) -> TensorType:
    data, indices, updates = types
    _check_scatter("scatter_elements", types, a.reduction)
    _check_axis("scatter_elements", a.axis, data)
    fits = indices.rank == data.rank and all(
        n <= m or i == a.axis
        for i, (n, m) in enumerate(zip(indices.shape, data.shape, strict=True))
    )
    if indices.shape != updates.shape or not fits:
        raise ShapeError(
            f"scatter_elements indices and updates must have one shape inside the data's; got {indices}, {updates} for {data}."
        )
    return data


def _infer_scatter_nd(types: Sequence[TensorType], a: ScatterNDAttributes) -> TensorType:
    data, indices, updates = types
    _check_scatter("scatter_nd", types, a.reduction)
    depth = indices.shape[-1] if indices.rank else 0
    wanted = (*indices.shape[:-1], *data.shape[depth:])
    if not 1 <= depth <= data.rank or updates.shape != wanted:
        raise ShapeError(
            f"scatter_nd updates must have shape {wanted}, indices 1 to {data.rank} values in the last axis; "
            f"got {updates} and {indices} for {data}."
        )
    return data


def _scatter(
    y: Array, places: list[Array], extents: Sequence[int], updates: Array, reduction: str
) -> Array:
    """Write the updates one after the other at places (arrays of one shape), leaving out what is out of range."""
    fixed = [np.where(p < 0, p + n, p) for p, n in zip(places, extents, strict=True)]
    inside = np.logical_and.reduce(
        [(p >= 0) & (p < n) for p, n in zip(fixed, extents, strict=True)]
    )
    at = tuple(p[inside] for p in fixed)
    function = REDUCTIONS[reduction]
    if function is not None:
        function.at(y, at, updates[inside])
        return y
    values = updates[inside]
    for i in range(len(values)):  # in order: of two updates of one place, the later one stays
        y[tuple(p[i] for p in at)] = values[i]
    return y


def _scatter_elements(arrays: Sequence[Array], a: ScatterAttributes) -> Array:
    x, indices, updates = arrays
    places = [np.asarray(p) for p in np.indices(indices.shape)]
    places[a.axis] = indices
    return _scatter(x.copy(), places, x.shape, updates, a.reduction)


def _scatter_nd(arrays: Sequence[Array], a: ScatterNDAttributes) -> Array:
    x, indices, updates = arrays
    depth = indices.shape[-1]
    places = [indices[..., i] for i in range(depth)]
    flat = [p.reshape(-1) for p in places]
    rows = updates.reshape(math.prod(indices.shape[:-1]), *x.shape[depth:])
    return _scatter(x.copy(), flat, x.shape[:depth], rows, a.reduction)


def _row(
    name: str, attributes: type[Attributes], arity: int, infer: Any, reference: Callable[..., Array]
) -> OpDef:
    return OpDef(name, attributes, (arity, arity), infer, reference, floats=Floats.NEUTRAL)


ROWS: Final = (
    _row("gather", AxisAttributes, 2, _infer_gather, _gather),
    _row("gather_elements", AxisAttributes, 2, _infer_gather_elements, _gather_elements),
    _row("gather_nd", BatchAttributes, 2, _infer_gather_nd, _gather_nd),
    _row("scatter_elements", ScatterAttributes, 3, _infer_scatter_elements, _scatter_elements),
    _row("scatter_nd", ScatterNDAttributes, 3, _infer_scatter_nd, _scatter_nd),
)
