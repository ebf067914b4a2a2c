"""Ops that depend on order along an axis: the place of the greatest element, the k first in rank, running sums and products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.ops.linear import greatest_along, least_along
from convc.ir.types import TensorType

__all__ = ["ROWS", "ArgAttributes", "RunningAttributes", "TopKAttributes"]


@dataclass(frozen=True, slots=True)
class ArgAttributes(Attributes):
    """Where the greatest (`largest`) or least element lies along an axis; the first of equals unless `last`."""

    axis: int
    keepdims: bool = True
    largest: bool = True
    last: bool = False


@dataclass(frozen=True, slots=True)
class TopKAttributes(Attributes):
    """The places of the k greatest (or least) elements along an axis, the best first, of equals the first one first."""

    axis: int
    k: int
    largest: bool = True


@dataclass(frozen=True, slots=True)
class RunningAttributes(Attributes):
    """A running `sum` or `prod` along an axis; `exclusive`: of the elements before each one."""

    axis: int
    function: str = "sum"
    exclusive: bool = False


def _check(name: str, axis: int, data: TensorType) -> None:
    if not 0 <= axis < data.rank:
        raise ShapeError(f"{name} axis must be in [0, {data.rank}); got {axis} for {data}.")
    if data.dtype == "bool":
        raise DTypeError(f"{name} data must have a number type; got {data}.")


def _infer_arg(types: Sequence[TensorType], a: ArgAttributes) -> TensorType:
    data = types[0]
    _check("argmax", a.axis, data)
    if not data.shape[a.axis]:
        raise ShapeError(f"argmax data must have elements along axis {a.axis}; got {data}.")
    rest = (1,) if a.keepdims else ()
    return TensorType((*data.shape[: a.axis], *rest, *data.shape[a.axis + 1 :]), "int64")


def _arg(arrays: Sequence[Array], a: ArgAttributes) -> Array:
    x = arrays[0]
    held = x == (greatest_along if a.largest else least_along)(x, a.axis, keepdims=True)
    count = x.shape[a.axis]
    # A row of NaN alone holds none: its place is the last one that is looked at.
    if a.last:
        found = np.where(held.any(a.axis), count - 1 - np.argmax(np.flip(held, a.axis), a.axis), 0)
    else:
        found = np.where(held.any(a.axis), np.argmax(held, a.axis), count - 1)
    return (np.expand_dims(found, a.axis) if a.keepdims else np.asarray(found)).astype(np.int64)


def _infer_topk(types: Sequence[TensorType], a: TopKAttributes) -> TensorType:
    data = types[0]
    _check("topk", a.axis, data)
    if not 0 <= a.k <= data.shape[a.axis]:
        raise ShapeError(f"topk k must be in [0, {data.shape[a.axis]}]; got {a.k} for {data}.")
    return TensorType((*data.shape[: a.axis], a.k, *data.shape[a.axis + 1 :]), "int64")


def _topk(arrays: Sequence[Array], a: TopKAttributes) -> Array:
    x = np.moveaxis(arrays[0], a.axis, -1)
    if a.largest:  # stable in the other direction
        order = x.shape[-1] - 1 - np.argsort(x[..., ::-1], -1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(x, -1, kind="stable")
    return np.moveaxis(order[..., : a.k], -1, a.axis).astype(np.int64)


def _infer_running(types: Sequence[TensorType], a: RunningAttributes) -> TensorType:
    _check("running", a.axis, types[0])
    if a.function not in ("sum", "prod"):
        raise ShapeError(f"running function must be sum or prod; got '{a.function}'.")
    return types[0]


def _running(arrays: Sequence[Array], a: RunningAttributes) -> Array:
    x = arrays[0]
    function, neutral = (np.cumsum, 0) if a.function == "sum" else (np.cumprod, 1)
    result = function(x, a.axis).astype(x.dtype)
    if a.exclusive:
        first = np.full_like(np.take(result, [0], a.axis), neutral) if x.shape[a.axis] else result
        kept = np.take(result, range(max(0, x.shape[a.axis] - 1)), a.axis)
        result = np.concatenate([first, kept], a.axis) if x.shape[a.axis] else result
    return result


ROWS: Final = (
    OpDef("argmax", ArgAttributes, (1, 1), _infer_arg, _arg, floats=Floats.NEUTRAL),
    OpDef("topk", TopKAttributes, (1, 1), _infer_topk, _topk, floats=Floats.NEUTRAL),
    OpDef("running", RunningAttributes, (1, 1), _infer_running, _running),
)
