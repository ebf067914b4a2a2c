"""Values whose size is data: what NonMaxSuppression, NonZero and Compress select. In the graph they have room for the most there can be."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Counted", "CountedValue"]


class Counted(NamedTuple):
    """Which axis has room for the most there can be, and the int64 scalar of the graph that says how much is there."""

    axis: int
    counter: str


class CountedValue(NamedTuple):
    """A value of the graph of which only a part is there: what a converter answers."""

    value: str
    counted: Counted
