"""Resample along one axis: every result is a weighted sum of a few points, whose places and weights are operands.

Tables of places and weights are constants, computed once from a rule (`ir.resampling`). Where height and width are open the rule itself
is needed, for each size anew: the attributes hold it. Kernels and reference look at the axis alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.definition import Array, Attributes, OpDef
from convc.ir.resampling import Rules
from convc.ir.types import TensorType

__all__ = ["ROWS", "ResampleAttributes"]


@dataclass(frozen=True, slots=True)
class ResampleAttributes(Attributes):
    """The axis; and, for an open height and width, by which rule (`resampling.Rules`) and from what its new extent follows.

    From `scale`, if it is not 0; else from the extent of the value `like` along the same axis, n, of which `extents` gives the
    (n - 1)-th, or n itself where that is empty; else it is always the same. Without a `coordinate` nothing is known.
    """

    axis: int
    coordinate: str = ""
    mode: str = "linear"
    rounding: str = "floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    scale: float = 0.0
    like: str = ""
    extents: tuple[int, ...] = ()

    @staticmethod
    def of(axis: int, rules: Rules) -> ResampleAttributes:
        """Return the attributes that hold these rules."""
        return ResampleAttributes(axis, rules.coordinate, rules.mode, rules.rounding, rules.cubic, rules.antialias, rules.exclude_outside)  # fmt: skip

    @property
    def rules(self) -> Rules:
        return Rules(self.coordinate, self.mode, self.rounding, self.cubic, self.antialias, self.exclude_outside)  # fmt: skip

    @property
    def has_rule(self) -> bool:
        """Whether it is known what it does for another size; extents that are equal for one need not be for another."""
        return bool(self.coordinate)

    def result(self, extent: int, other: int, fixed: int) -> int:
        """Return the new extent; 0 where there is none.

        Args:
            extent: of the operand.
            other: that of `like`, if there is one.
            fixed: what it is if it always is the same.

        Example:
            >>> ResampleAttributes(2, "half_pixel", scale=1.5).result(5, 0, 9)
            7
            >>> ResampleAttributes(2, "half_pixel", like="x", extents=(1, 1, 2, 2)).result(1, 4, 9)
            2
        """
        if self.scale:
            return int(extent * Fraction(self.scale))
        if self.like:
            # An extent worked out as n - 10 is none for a small n.
            return max(0, self.extents[other - 1] if self.extents else other) if extent and other else 0  # fmt: skip
        return fixed if extent else 0


def _infer_resample(types: Sequence[TensorType], a: ResampleAttributes) -> TensorType:
    data, places, weights = types
    if not 0 <= a.axis < data.rank:
        raise ShapeError(f"resample axis must be in [0, {data.rank}); got {a.axis} for {data}.")
    if places.rank != 2 or places.shape != weights.shape or places.dtype != "int32":
        raise ShapeError(
            f"resample places (int32) and weights must be (points, taps) alike; got {places} and {weights}."
        )
    if not data.is_float or weights.dtype != data.dtype:
        raise DTypeError(
            f"resample data and weights must have one float type; got {data} and {weights}."
        )
    return TensorType(
        (*data.shape[: a.axis], places.shape[0], *data.shape[a.axis + 1 :]), data.dtype
    )


def _resample(arrays: Sequence[Array], a: ResampleAttributes) -> Array:
    x, places, weights = arrays
    along = [1] * x.ndim
    along[a.axis] = -1
    taps = [
        np.take(x, places[:, t], a.axis) * weights[:, t].reshape(along)
        for t in range(places.shape[1])
    ]
    return np.sum(taps, 0)


ROWS: Final = (OpDef("resample", ResampleAttributes, (3, 3), _infer_resample, _resample),)
