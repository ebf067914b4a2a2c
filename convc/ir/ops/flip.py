"""Reversal of axes: what makes a textbook's convolution of a cross-correlation when the filter is known only at run time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import ShapeError
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.types import TensorType

__all__ = ["ROWS", "FlipAttributes"]


@dataclass(frozen=True, slots=True)
class FlipAttributes(Attributes):
    """Axes to reverse: distinct and not negative."""

    axes: tuple[int, ...]


def _infer(types: Sequence[TensorType], a: FlipAttributes) -> TensorType:
    if any(not 0 <= axis < types[0].rank for axis in a.axes) or len(set(a.axes)) != len(a.axes):
        raise ShapeError(
            f"flip axes must be distinct and in [0, {types[0].rank}) for {types[0]}; got {a.axes}."
        )
    return types[0]


def _reference(arrays: Sequence[Array], a: FlipAttributes) -> Array:
    return np.flip(arrays[0], a.axes)


ROWS: Final = (OpDef("flip", FlipAttributes, (1, 1), _infer, _reference, floats=Floats.NEUTRAL),)
