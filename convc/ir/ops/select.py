"""Ops whose result has as many rows as the data says.

A type has one size, so that it is the largest there can be: rows that are not there hold -1, behind those that are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.definition import Array, Attributes, OpDef
from convc.ir.types import FLOATS, TensorType

__all__ = ["ROWS", "NmsAttributes"]


@dataclass(frozen=True, slots=True)
class NmsAttributes(Attributes):
    """Non-maximum suppression.

    Attributes:
        most: boxes kept of one class of one image.
        overlap: two boxes whose intersection is more than this part of their union are one object.
        score: boxes that do not score more are none.
        centred: a box is (x, y, width, height) with x and y in its middle, not two opposite corners (y, x, y, x).
    """

    most: int
    overlap: float = 0.0
    score: float = float("-inf")
    centred: bool = False


def _infer_nms(types: Sequence[TensorType], a: NmsAttributes) -> TensorType:
    boxes, scores, order = types
    fits = (
        boxes.rank == scores.rank == 3
        and boxes.shape == (scores.shape[0], scores.shape[2], 4)
        and order.shape == scores.shape
    )
    if not fits:
        raise ShapeError(
            f"nms must take boxes (B, N, 4), scores (B, C, N) and an order (B, C, N); got {boxes}, {scores} and {order}."
        )
    if boxes.dtype not in FLOATS or scores.dtype != boxes.dtype or order.dtype != "int64":
        raise DTypeError(
            f"nms must take floats of one type and an int64 order; got {boxes}, {scores} and {order}."
        )
    images, classes, count = scores.shape
    if not 0 <= a.most <= count:
        raise ShapeError(f"nms most must be in [0, {count}]; got {a.most} for {boxes}.")
    return TensorType((images * classes * a.most, 3), "int64")


def _corners(boxes: Array, centred: bool) -> tuple[Array, Array]:
    """Return the least and the greatest corner of boxes (N, 4)."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if centred:
        return first - second / 2, first + second / 2
    return np.minimum(first, second), np.maximum(first, second)


def _overlaps(low: Array, high: Array, i: int, others: Sequence[int]) -> Array:
    """Return the intersection over the union of box i and each of the others; 0 where there is none."""
    sides = np.maximum(np.minimum(high[i], high[others]) - np.maximum(low[i], low[others]), 0)
    both = sides.prod(1)
    areas = (high - low).prod(1)
    union = areas[i] + areas[others] - both
    valid = (both > 0) & (areas[i] > 0) & (areas[others] > 0) & (union > 0)
    return np.divide(both, union, out=np.zeros_like(both), where=valid)


def _nms(arrays: Sequence[Array], a: NmsAttributes) -> Array:
    boxes, scores, order = arrays
    images, classes, _ = scores.shape
    found: list[tuple[int, int, int]] = []
    for image in range(images):
        low, high = _corners(boxes[image], a.centred)
        for kind in range(classes):
            kept: list[int] = []
            for place in map(int, order[image, kind]):
                if len(kept) == a.most:
                    break
                if not scores[image, kind, place] > a.score:
                    continue
                if not (_overlaps(low, high, place, kept) > a.overlap).any():
                    kept.append(place)
            found += [(image, kind, place) for place in kept]
    result = np.full((images * classes * a.most, 3), -1, np.int64)
    result[: len(found)] = np.array(found, np.int64).reshape(-1, 3)
    return result


def _infer_nonzero(types: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (data,) = types
    if not data.rank:
        raise ShapeError(f"nonzero data must have an axis; got {data}.")
    return TensorType((data.rank, math.prod(data.shape)), "int64")


def _nonzero(arrays: Sequence[Array], attributes: Attributes) -> Array:
    found = np.array(np.nonzero(arrays[0]), np.int64)
    result = np.full((arrays[0].ndim, arrays[0].size), -1, np.int64)
    result[:, : found.shape[1]] = found
    return result


ROWS: Final = (
    OpDef("nms", NmsAttributes, (3, 3), _infer_nms, _nms),
    OpDef("nonzero", Attributes, (1, 1), _infer_nonzero, _nonzero),
)
