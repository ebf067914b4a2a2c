"""How Winograd's tiles lie on data and result: plain, strided by polyphase, dilated by phase images, transposed by phases.

F(m, r) needs a stride-1 convolution. Every other one is several of them, on each axis by itself:

    stride s      sum over g < s of stride-1 convolutions: filter w[g + j s] on data x[g + i s]; all sum up before the inverse
                  transform, like s times as many channels of ceil(R / s) taps
    dilation d    d results apart nothing is shared: d phase images x[f + i d], each with the same filter
    transposed    result f + i s takes the taps w[(f + pad) % s + j s], ceil(R / s) of them: s filters on the same data

SOURCE  Vaidyanathan, Multirate Systems and Filter Banks, 1993 (polyphase)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from convc.ir.spec import ConvSpec
from convc.schedules.cook_toom import POINTS, Transform, cook_toom
from convc.schedules.divisors import divisors
from convc.schedules.layout import Halo
from convc.schedules.plan import Knobs

__all__ = ["Axis", "Depth", "Tiles", "block_shares", "taps_of"]


def taps_of(spec: ConvSpec, axis: int) -> int:
    """Return the taps of the stride-1 convolutions on a spatial axis, counted from the last with negative numbers."""
    return -(-spec.kernel[axis] // spec.strides[axis])


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a convolution in tiles.

    Attributes:
        transform: F(m, r) of one tile.
        images: phase images that share the filter (dilation); tiles lie side by side, image by image within a tile's extent.
        filters: phases with filters of their own (transposed).
        parts: phases of data and filter that are summed (stride).
        step: points of data from one point of a tile to the next.
        kernel: taps of the whole filter.
        pad: points before the data, or cut off the result when transposed.
        transposed: whether the convolution is.
        blocks: tiles along the axis for each image and filter.
    """

    transform: Transform
    images: int
    filters: int
    parts: int
    step: int
    kernel: int
    pad: int
    transposed: bool
    blocks: int

    @staticmethod
    def of(spec: ConvSpec, axis: int, m: int) -> Axis:
        """Return a spatial axis, counted from the last with negative numbers; one tap needs no transform."""
        kernel, stride, dilation = spec.kernel[axis], spec.strides[axis], spec.dilations[axis]
        r, pad = taps_of(spec, axis), spec.pads[spec.rank + axis]
        transform = cook_toom(m if r > 1 else 1, r)
        images = dilation if kernel > 1 else 1
        filters = stride if spec.transposed else 1
        parts = 1 if spec.transposed else min(stride, kernel)
        step = 1 if spec.transposed else max(stride, images)
        blocks = -(-spec.output[axis] // (images * filters * transform.m))
        return Axis(transform, images, filters, parts, step, kernel, pad, spec.transposed, blocks)

    @property
    def tiles(self) -> int:
        """Tiles of all images, which share a filter: their places are multiplied by the same matrix."""
        return self.blocks * self.images

    @property
    def pitch(self) -> int:
        """Results from one block to the next: a tile of each image or filter."""
        return self.transform.m * self.images * self.filters

    def point(self, tile: Any, i: Any, phase: Any, part: Any) -> Any:
        """Return where point `i` of a tile lies in the data with its border; numbers or loop variables."""
        if self.images > 1:
            block, image = tile // self.images, tile % self.images
            return (block * self.transform.m + i) * self.step + image
        first = (tile * self.transform.m + i) * self.step + part
        return first + (phase + self.pad) // self.filters if self.transposed else first

    def place_of(self, p: Any) -> tuple[Any, Any, Any]:
        """Return (block, image, place in the tile) of a result; of its place among those of one filter, when transposed."""
        return (
            p // (self.transform.m * self.images),
            p % self.images,
            p // self.images % self.transform.m,
        )

    def result(self, tile: int, place: int, filter: int) -> int:
        """Return which result this is: the inverse of `place_of`."""
        block, image = divmod(tile, self.images)
        return ((block * self.transform.m + place) * self.images + image) * self.filters + filter

    def taps(self, phase: int, part: int) -> list[int]:
        """Return which tap of the whole filter each of the r taps is; -1, behind the last one, for a zero."""
        r = self.transform.r
        if self.transposed:
            first = (phase + self.pad) % self.filters
            taps = [first + (r - 1 - j) * self.filters for j in range(r)]
        elif self.parts > 1:
            taps = [part + j * self.step for j in range(r)]
        else:
            taps = list(range(r))
        return [tap if tap < self.kernel else -1 for tap in taps]


# Greatest |error| / greatest |result| by the number of points at C = 256, normal data; measured at C = 8, 64 and 256 it grows as C^0.4.
_ERRORS: Final = {2: 6e-7, 3: 6e-7, 4: 4.8e-6, 5: 2.6e-6, 6: 7.4e-6, 7: 1.6e-5}


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tiles of an image, or of every slice of a volume."""

    high: Axis
    wide: Axis

    @staticmethod
    def of(spec: ConvSpec, m: int) -> Tiles:
        """Return the tiles for F(m, r) on both axes.

        Example:
            >>> spec = ConvSpec.of((1, 8, 14, 14), (8, 8, 3, 3), pads=(1, 1, 1, 1))
            >>> tiles = Tiles.of(spec, 4)
            >>> tiles.rows, tiles.cols, tiles.alphas
            (4, 4, 36)
        """
        return Tiles(Axis.of(spec, -2, m), Axis.of(spec, -1, m))

    @staticmethod
    def fit(spec: ConvSpec, m: int) -> bool:
        """Whether there are points for F(m, r) on both axes."""
        return all(r == 1 or m + r - 2 in POINTS for r in (taps_of(spec, -2), taps_of(spec, -1)))

    @property
    def rows(self) -> int:
        return self.high.tiles

    @property
    def cols(self) -> int:
        return self.wide.tiles

    @property
    def alphas(self) -> int:
        """Products of one tile, channel and part."""
        return self.high.transform.alpha * self.wide.transform.alpha

    @property
    def filters(self) -> int:
        return self.high.filters * self.wide.filters

    @property
    def parts(self) -> int:
        return self.high.parts * self.wide.parts

    def expected_error(self, sums: int) -> float:
        """Return the expected greatest |error| over greatest |result| of so many products a sum."""
        points = max(len(axis.transform.points) for axis in (self.high, self.wide))
        return _ERRORS[points] * (sums / 256) ** 0.4

    def border(self, spec: ConvSpec) -> Halo:
        """Return how far whole tiles read around the planes of the data."""
        begins, ends = [], []
        for axis, extent in zip((self.high, self.wide), spec.data[-2:], strict=True):
            begin = axis.transform.r - 1 if spec.transposed else axis.pad
            last = axis.point(
                axis.tiles - 1, axis.transform.alpha - 1, axis.filters - 1, axis.parts - 1
            )
            begins.append(begin)
            ends.append(max(0, int(last) + 1 - begin - extent))
        return Halo.of(begins, ends)


@dataclass(frozen=True, slots=True)
class Depth:
    """The depth axis of a volume, whose taps are summed before the inverse transform; of an image, one slice.

    Attributes:
        taps, stride, dilation: of the filter.
        slices: slices of results in all, and computed with one V.
        together: how many of them share one V.
    """

    taps: int
    stride: int
    dilation: int
    slices: int
    together: int

    @staticmethod
    def of(spec: ConvSpec, knobs: Knobs) -> Depth:
        """Return the depth of a convolution of at least two spatial axes."""
        if spec.rank < 3:
            return Depth(1, 1, 1, 1, 1)
        axis = (spec.kernel[0], spec.strides[0], spec.dilations[0], spec.output[2])
        return Depth(*axis, knobs["slices"])

    @property
    def read(self) -> int:
        """Slices of data that the results of one V need."""
        return (self.together - 1) * self.stride + (self.taps - 1) * self.dilation + 1


def block_shares(spec: ConvSpec, m: int) -> Iterator[tuple[int, int]]:
    """Yield (tile rows, slices) of one block: divisors of their numbers."""
    slices = divisors(spec.output[2]) if spec.rank == 3 else [1]
    yield from itertools.product(divisors(Tiles.of(spec, m).high.blocks), slices)
