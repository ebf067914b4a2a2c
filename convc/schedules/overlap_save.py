"""Overlap-save: how the result of a convolution is cut into tiles for transforms that wrap around.

A transform of t points gives m = t - r + 1 results that nothing has wrapped into; tiles therefore overlap by r - 1 points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from convc.ir.spec import ConvSpec
from convc.schedules.layout import Halo

__all__ = ["LENGTHS", "Tiling", "lengths"]

# Points of a transform. Lengths with factors 3 and 5 leave less of the last tile unused: 56 = 4 x 14 for 7 taps in 20 points.
LENGTHS: Final = (8, 12, 16, 20, 24, 32, 40, 48, 64)


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a result is cut into tiles.

    Attributes:
        t_h, t_w: points of a tile's transform.
        m_h, m_w: results of a tile.
        rows, cols: number of tiles.
    """

    t_h: int
    t_w: int
    m_h: int
    m_w: int
    rows: int
    cols: int

    @staticmethod
    def of(spec: ConvSpec, t_h: int, t_w: int) -> Tiling:
        """Return the tiles of a result for given transforms, each at least as long as the filter.

        Example:
            >>> Tiling.of(ConvSpec.of((1, 8, 56, 56), (8, 8, 7, 7), pads=(3, 3, 3, 3)), 20, 20)
            Tiling(t_h=20, t_w=20, m_h=14, m_w=14, rows=4, cols=4)
        """
        (R, S), (P, Q) = spec.kernel, spec.output[2:]
        m_h, m_w = min(t_h - R + 1, P), min(t_w - S + 1, Q)
        return Tiling(t_h, t_w, m_h, m_w, -(-P // m_h), -(-Q // m_w))

    @property
    def bins(self) -> int:
        """Complex bins of one row of a tile."""
        return self.t_w // 2

    @property
    def tiles(self) -> int:
        return self.rows * self.cols

    def border(self, spec: ConvSpec) -> Halo:
        """Return how far whole tiles read around the data."""
        top, left = spec.pads[:2]
        height = (self.rows - 1) * self.m_h + self.t_h
        width = (self.cols - 1) * self.m_w + self.t_w
        bottom, right = height - top - spec.data[2], width - left - spec.data[3]
        return Halo(top, left, max(0, bottom), max(0, right))


def lengths(spec: ConvSpec) -> list[tuple[int, int]]:
    """Return the lengths (t_h, t_w) to choose among, alike on both axes where filter and result are.

    Example:
        >>> lengths(ConvSpec.of((1, 8, 17, 17), (8, 8, 1, 7), pads=(0, 3, 0, 3)))
        [(1, 8), (1, 12), (1, 16), (1, 20), (1, 24)]
    """
    axes = []
    for axis, (r, outputs) in enumerate(zip(spec.kernel, spec.output[2:], strict=True)):
        if r == 1:
            # One tap needs no transform; along a row two points make one complex number.
            axes.append([1 + axis])
            continue
        fitting = [t for t in LENGTHS if t > r or t == LENGTHS[-1] >= r]
        whole = [t for t in fitting if t - r + 1 >= outputs]
        axes.append([t for t in fitting if t not in whole[1:]])
    if spec.kernel[0] == spec.kernel[1] and spec.output[2] == spec.output[3]:
        return [(t, t) for t in axes[0]]
    return [(t_h, t_w) for t_h in axes[0] for t_w in axes[1]]
