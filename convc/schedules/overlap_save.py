"""Overlap-save: how the result of a convolution is cut into tiles for transforms that wrap around.

A transform of t points gives m = t - r + 1 results that nothing has wrapped into; tiles therefore overlap by r - 1 points.

    dilation d        results apart by less than d share nothing: d phase images x[f + i d], each in tiles of its own, one filter
    more taps than t  the filter is cut into parts of r <= t / 2 taps; the part from tap g r on reads the tile that begins g r points later.
                      All are summed before the inverse transform, like so many times as many channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from convc.ir.spec import ConvSpec
from convc.schedules.layout import Halo

__all__ = ["LENGTHS", "Axis", "Tiling", "lengths"]

# Points of a transform. Lengths with factors 3 and 5 leave less of the last tile unused: 56 = 4 x 14 for 7 taps in 20 points.
# Longer ones are programs of 5000 steps and more, which LLVM takes minutes for.
LENGTHS: Final = (8, 12, 16, 20, 24, 32, 40, 48, 64)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a result in tiles.

    Attributes:
        t: points of a tile's transform.
        m: results of a tile.
        images: phase images of a dilated filter.
        blocks: tiles of each image.
        parts: parts of the filter.
        taps: of each part.
    """

    t: int
    m: int
    images: int
    blocks: int
    parts: int
    taps: int

    @staticmethod
    def of(spec: ConvSpec, axis: int, t: int) -> Axis:
        """Return an axis of a convolution for transforms of t points.

        Example:
            >>> Axis.of(ConvSpec.of((1, 8, 9, 300), (8, 8, 1, 100)), 1, 64)
            Axis(t=64, m=40, images=1, blocks=6, parts=4, taps=25)
        """
        kernel, outputs = spec.kernel[axis], spec.output[2 + axis]
        images = spec.dilations[axis] if kernel > 1 else 1
        parts = 1 if kernel <= t else -(-kernel // (t // 2))
        taps = -(-kernel // parts)
        m = min(t - taps + 1, -(-outputs // images))
        return Axis(t, m, images, -(-outputs // (m * images)), parts, taps)

    @property
    def tiles(self) -> int:
        """Tiles of all images, which lie side by side."""
        return self.blocks * self.images

    @property
    def reach(self) -> int:
        """Points of data that all tiles read."""
        last = (self.blocks - 1) * self.m + self.t - 1 + (self.parts - 1) * self.taps
        return (last + 1) * self.images

    def point(self, tile: Any, i: Any, part: Any) -> Any:
        """Return where point `i` of a tile lies in the data with its border; numbers or loop variables."""
        if self.images == 1:
            return tile * self.m + i + part * self.taps
        begin = tile // self.images * self.m + part * self.taps
        return (begin + i) * self.images + tile % self.images

    def tile_of(self, p: Any) -> tuple[Any, Any]:
        """Return (tile, place in the tile) of a result."""
        if self.images == 1:
            return p // self.m, p % self.m
        tile = p // (self.m * self.images) * self.images + p % self.images
        return tile, p // self.images % self.m


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a result is cut into tiles: rows of them, and columns."""

    high: Axis
    wide: Axis

    @staticmethod
    def of(spec: ConvSpec, t_h: int, t_w: int) -> Tiling:
        """Return the tiles of a result for given transforms.

        Example:
            >>> tiling = Tiling.of(ConvSpec.of((1, 8, 56, 56), (8, 8, 7, 7), pads=(3, 3, 3, 3)), 20, 20)
            >>> tiling.high.m, tiling.wide.m, tiling.tiles, tiling.parts
            (14, 14, 16, 1)
        """
        return Tiling(Axis.of(spec, 0, t_h), Axis.of(spec, 1, t_w))

    @property
    def bins(self) -> int:
        """Complex bins of one row of a tile."""
        return self.wide.t // 2

    @property
    def tiles(self) -> int:
        return self.high.tiles * self.wide.tiles

    @property
    def parts(self) -> int:
        """Parts of the filter, each a transform of data and of weights."""
        return self.high.parts * self.wide.parts

    def border(self, spec: ConvSpec) -> Halo:
        """Return how far whole tiles read around the data."""
        top, left = spec.pads[:2]
        bottom = self.high.reach - top - spec.data[2]
        right = self.wide.reach - left - spec.data[3]
        return Halo(top, left, max(0, bottom), max(0, right))


def lengths(spec: ConvSpec) -> list[tuple[int, int]]:
    """Return the lengths (t_h, t_w) to choose among, alike on both axes where filter and result are.

    Example:
        >>> lengths(ConvSpec.of((1, 8, 17, 17), (8, 8, 1, 7), pads=(0, 3, 0, 3)))
        [(1, 8), (1, 12), (1, 16), (1, 20), (1, 24)]
    """
    axes = []
    for axis, r in enumerate(spec.kernel):
        outputs = -(-spec.output[2 + axis] // spec.dilations[axis])
        if r == 1:
            # One tap needs no transform; along a row two points make one complex number.
            axes.append([1 + axis])
            continue
        fitting = [t for t in LENGTHS if t > r] or [LENGTHS[-1]]
        whole = [t for t in fitting if t - r + 1 >= outputs]
        axes.append([t for t in fitting if t not in whole[1:]])
    alike = spec.kernel[0] == spec.kernel[1] and spec.output[2] == spec.output[3]
    if alike and spec.dilations[0] == spec.dilations[1]:
        return [(t, t) for t in axes[0]]
    return [(t_h, t_w) for t_h in axes[0] for t_w in axes[1]]
