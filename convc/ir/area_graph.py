"""What `area.open_area` returns: a graph of the largest area, and what of each value is valid for each size."""

from __future__ import annotations

from dataclasses import dataclass

from convc.ir.graph import Graph

__all__ = ["AreaGraph", "Extents"]


@dataclass(frozen=True, slots=True)
class Extents:
    """Valid rows and columns of a value for each height and width of the input, from 1 on; 0 where there is no result."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]

    def at(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns for one size of the input."""
        return self.rows[height - 1], self.cols[width - 1]


@dataclass(frozen=True)
class AreaGraph:
    """The graph of one largest area.

    Attributes:
        graph: with the masks as further inputs, bool [1, 1, rows, columns], true where a value is valid.
        masks: mask's name -> its extents.
        values: value of the source graph -> its extents, for those that have height and width.
        least: the smallest height and width that every op takes.
    """

    graph: Graph
    masks: dict[str, Extents]
    values: dict[str, Extents]
    least: tuple[int, int]
