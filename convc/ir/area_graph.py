"""What `area.open_area` returns: a graph of the largest area, and what of each value is valid for each size."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from convc.ir.graph import Graph
from convc.ir.ops.definition import Array
from convc.ir.resampling import Rules, table

__all__ = ["AreaGraph", "Extents", "Taps"]


@dataclass(frozen=True, slots=True)
class Extents:
    """Valid rows and columns of a value for each height and width of the input, from 1 on; 0 where there is no result."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]

    def at(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns for one size of the input."""
        return self.rows[height - 1], self.cols[width - 1]


@dataclass(frozen=True, slots=True)
class Taps:
    """How a resampling along one axis goes for each height or width of the input: two inputs of the graph, to be filled for a size.

    Attributes:
        axis: 2 follows from the height, 3 from the width.
        rules: how places and weights come from extents.
        scale: between the extents; 0 where it is their ratio.
        extents: of the operand, for each height or width from 1 on.
        results: those of the result; 0 where there is none.
    """

    axis: int
    rules: Rules
    scale: float
    extents: tuple[int, ...]
    results: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many points a result is made of at most."""
        ratios = (Fraction(r, e) for e, r in zip(self.extents, self.results, strict=True) if r)
        least = Fraction(self.scale) if self.scale else min(ratios, default=Fraction(1))
        return self.rules.most_taps(least)

    def at(self, size: int) -> tuple[Array, Array]:
        """Return places and weights for a height or width, (results, points) each."""
        return table(self.rules, self.scale, self.extents[size - 1], self.results[size - 1])


@dataclass(frozen=True)
class AreaGraph:
    """The graph of one largest area.

    Attributes:
        graph: with the masks as further inputs, bool [1, 1, rows, columns], true where a value is valid.
        masks: mask's name -> its extents.
        taps: names of two inputs, places and weights -> what fills them.
        values: value of the source graph -> its extents, for those that have height and width.
        least: the smallest height and width that every op takes.
    """

    graph: Graph
    masks: dict[str, Extents]
    taps: dict[tuple[str, str], Taps]
    values: dict[str, Extents]
    least: tuple[int, int]
