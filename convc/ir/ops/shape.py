"""Ops that move elements without computing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.types import TensorType

__all__ = [
    "ROWS",
    "ConcatAttributes",
    "PadAttributes",
    "PickChannelsAttributes",
    "ReshapeAttributes",
    "ResizeAttributes",
    "SliceAttributes",
    "TransposeAttributes",
]


@dataclass(frozen=True, slots=True)
class ReshapeAttributes(Attributes):
    """The whole new shape, nothing left to infer."""

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TransposeAttributes(Attributes):
    """Result axis i is operand axis perm[i]."""

    perm: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConcatAttributes(Attributes):
    """A non-negative axis."""

    axis: int


@dataclass(frozen=True, slots=True)
class PadAttributes(Attributes):
    """Constant padding: all beginnings, then all ends, one per axis."""

    pads: tuple[int, ...]
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class SliceAttributes(Attributes):
    """One begin, end and step per axis, resolved: 0 <= begin <= end <= extent, step >= 1."""

    begins: tuple[int, ...]
    ends: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ResizeAttributes(Attributes):
    """Enlarge by whole factors, one per axis, repeating elements (nearest, asymmetric, floor)."""

    factors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PickChannelsAttributes(Attributes):
    """Result channel k is channel `channels[k]` of operand `operands[k]`; all are (N, C, ...) and differ in C alone."""

    operands: tuple[int, ...]
    channels: tuple[int, ...]


def _infer_reshape(types: Sequence[TensorType], a: ReshapeAttributes) -> TensorType:
    if math.prod(a.shape) != types[0].size or min(a.shape, default=0) < 0:
        raise ShapeError(
            f"reshape must keep the element count {types[0].size} of {types[0]}; got shape {a.shape}."
        )
    return TensorType(a.shape, types[0].dtype)


def _infer_transpose(types: Sequence[TensorType], a: TransposeAttributes) -> TensorType:
    if sorted(a.perm) != list(range(types[0].rank)):
        raise ShapeError(f"transpose perm must order the axes of {types[0]}; got {a.perm}.")
    return TensorType(tuple(types[0].shape[p] for p in a.perm), types[0].dtype)


def _infer_concat(types: Sequence[TensorType], a: ConcatAttributes) -> TensorType:
    first = types[0]
    if not 0 <= a.axis < first.rank:
        raise ShapeError(f"concat axis must be in [0, {first.rank}); got {a.axis}.")
    for other in types[1:]:
        same = other.shape[: a.axis] + other.shape[a.axis + 1 :]
        if other.rank != first.rank or same != first.shape[: a.axis] + first.shape[a.axis + 1 :]:
            raise ShapeError(
                f"concat operands must agree except on axis {a.axis}; got {first} and {other}."
            )
        if other.dtype != first.dtype:
            raise DTypeError(f"concat operands must have one element type; got {first}, {other}.")
    total = sum(t.shape[a.axis] for t in types)
    return TensorType((*first.shape[: a.axis], total, *first.shape[a.axis + 1 :]), first.dtype)


def _infer_pad(types: Sequence[TensorType], a: PadAttributes) -> TensorType:
    n = types[0].rank
    if len(a.pads) != 2 * n or min(a.pads, default=0) < 0:
        raise ShapeError(
            f"pad pads must be {2 * n} non-negative values for {types[0]}; got {a.pads}."
        )
    shape = (s + a.pads[i] + a.pads[n + i] for i, s in enumerate(types[0].shape))
    return TensorType(tuple(shape), types[0].dtype)


def _infer_slice(types: Sequence[TensorType], a: SliceAttributes) -> TensorType:
    shape = types[0].shape
    if not len(a.begins) == len(a.ends) == len(a.steps) == len(shape):
        raise ShapeError(
            f"slice must have one begin, end and step per axis of {types[0]}; got {a.begins}, {a.ends}, {a.steps}."
        )
    for n, b, e, s in zip(shape, a.begins, a.ends, a.steps, strict=True):
        if not (0 <= b <= e <= n and s >= 1):
            raise ShapeError(
                f"slice must have 0 <= begin <= end <= extent {n} and step >= 1; got {b}, {e}, {s} on {types[0]}."
            )
    extents = (-(-(e - b) // s) for b, e, s in zip(a.begins, a.ends, a.steps, strict=True))
    return TensorType(tuple(extents), types[0].dtype)


def _slice_reference(arrays: Sequence[Array], a: SliceAttributes) -> Array:
    return arrays[0][tuple(map(slice, a.begins, a.ends, a.steps))]


def _infer_resize(types: Sequence[TensorType], a: ResizeAttributes) -> TensorType:
    if len(a.factors) != types[0].rank or min(a.factors, default=1) < 1:
        raise ShapeError(
            f"resize must have one factor >= 1 per axis of {types[0]}; got {a.factors}."
        )
    shape = (n * f for n, f in zip(types[0].shape, a.factors, strict=True))
    return TensorType(tuple(shape), types[0].dtype)


def _resize_reference(arrays: Sequence[Array], a: ResizeAttributes) -> Array:
    y = arrays[0]
    for axis, factor in enumerate(a.factors):
        y = np.repeat(y, factor, axis)
    return y


def _pad_reference(arrays: Sequence[Array], a: PadAttributes) -> Array:
    n = arrays[0].ndim
    border = list(zip(a.pads[:n], a.pads[n:], strict=True))
    return np.pad(arrays[0], border, constant_values=a.value)


def _infer_pick_channels(types: Sequence[TensorType], a: PickChannelsAttributes) -> TensorType:
    first = types[0]
    for other in types:
        if other.rank < 2 or (other.shape[0], *other.shape[2:]) != (
            first.shape[0],
            *first.shape[2:],
        ):
            raise ShapeError(
                f"pick_channels operands must be (N, C, ...) and agree in all but C; got {first} and {other}."
            )
        if other.dtype != first.dtype:
            raise DTypeError(
                f"pick_channels operands must have one element type; got {first}, {other}."
            )
    if len(a.operands) != len(a.channels):
        raise ShapeError(
            f"pick_channels must have an operand for each channel; got {len(a.operands)} and {len(a.channels)}."
        )
    for operand, channel in zip(a.operands, a.channels, strict=True):
        if not (0 <= operand < len(types) and 0 <= channel < types[operand].shape[1]):
            raise ShapeError(
                f"pick_channels must pick channels that there are; got channel {channel} of operand {operand} of {list(map(str, types))}."
            )
    return TensorType((first.shape[0], len(a.channels), *first.shape[2:]), first.dtype)


def _pick_channels_reference(arrays: Sequence[Array], a: PickChannelsAttributes) -> Array:
    picked = [arrays[i][:, c] for i, c in zip(a.operands, a.channels, strict=True)]
    first = arrays[0]
    return np.stack(picked, 1) if picked else first[:, :0]


ROWS: Final = (
    OpDef(
        "reshape",
        ReshapeAttributes,
        (1, 1),
        _infer_reshape,
        lambda arrays, a: arrays[0].reshape(a.shape),
        floats=Floats.NEUTRAL,
    ),
    OpDef(
        "transpose",
        TransposeAttributes,
        (1, 1),
        _infer_transpose,
        lambda arrays, a: arrays[0].transpose(a.perm),
        floats=Floats.NEUTRAL,
    ),
    OpDef(
        "concat",
        ConcatAttributes,
        (1, None),
        _infer_concat,
        lambda arrays, a: np.concatenate(arrays, a.axis),
        floats=Floats.NEUTRAL,
    ),
    OpDef(
        "pick_channels",
        PickChannelsAttributes,
        (1, None),
        _infer_pick_channels,
        _pick_channels_reference,
        floats=Floats.NEUTRAL,
    ),
    OpDef("pad", PadAttributes, (1, 1), _infer_pad, _pad_reference, floats=Floats.NEUTRAL),
    OpDef("slice", SliceAttributes, (1, 1), _infer_slice, _slice_reference, floats=Floats.NEUTRAL),
    OpDef(
        "resize", ResizeAttributes, (1, 1), _infer_resize, _resize_reference, floats=Floats.NEUTRAL
    ),
)
