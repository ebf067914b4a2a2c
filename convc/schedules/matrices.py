"""The matrix products that a convolution is: how many, how large, and which sum is which element of the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import te

from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules.plan import Knobs

__all__ = ["Matrices", "gather", "point", "ravel", "unravel"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


@dataclass(frozen=True, slots=True)
class Matrices:
    """The extents of the products that a convolution is, before and after padding to whole tiles.

    Attributes:
        groups, phases, split: of which there are so many products each; `z` counts (split, phase, group).
        channels, depth, pixels: of one product, of which `depth` is one part of the sum.
        padded_channels, padded_depth, padded_pixels: in whole tiles.
        step: of the sum, the depth of a tile.
        taps: of one phase, per axis.
        points: results of one phase, per axis.
    """

    groups: int
    phases: int
    split: int
    channels: int
    depth: int
    pixels: int
    padded_channels: int
    padded_depth: int
    padded_pixels: int
    step: int
    taps: tuple[int, ...]
    points: tuple[int, ...]

    @staticmethod
    def of(spec: ConvSpec, knobs: Knobs) -> Matrices:
        """Return the products of a convolution.

        Example:
            >>> spec = ConvSpec.of((2, 64, 14, 14), (96, 64, 3, 3), pads=(1, 1, 1, 1))
            >>> m = Matrices.of(spec, {"pixels": 64, "channels": 64, "step": 16, "split": 1})
            >>> m.products, m.depth, m.padded_channels, m.padded_pixels
            (1, 576, 128, 448)
        """
        taps, points, phases = spec.kernel, spec.output[2:], 1
        if spec.transposed:
            taps = tuple(-(-r // s) for r, s in zip(spec.kernel, spec.strides, strict=True))
            points = tuple(p // s for p, s in zip(points, spec.strides, strict=True))
            phases = math.prod(spec.strides)
        depth = spec.in_channels // spec.group * math.prod(taps)
        channels, pixels = spec.out_channels // spec.group, spec.data[0] * math.prod(points)
        part = -(-depth // knobs["split"])
        return Matrices(
            spec.group, phases, knobs["split"], channels, depth, pixels,
            _whole(channels, knobs["channels"]), _whole(part, knobs["step"]), _whole(pixels, knobs["pixels"]),
            knobs["step"], tuple(taps), tuple(points),
        )  # fmt: skip

    @property
    def products(self) -> int:
        return self.split * self.phases * self.groups

    def partial_bytes(self, accumulator: str) -> int:
        """Return what the parts of split sums take, which a second kernel adds up; 0 where none is split.

        Example:
            >>> spec = ConvSpec.of((2, 64, 14, 14), (96, 64, 3, 3), pads=(1, 1, 1, 1))
            >>> tile = {"pixels": 64, "channels": 64, "step": 16}
            >>> [Matrices.of(spec, {**tile, "split": n}).partial_bytes("float32") for n in (1, 2)]
            [0, 458752]
        """
        if self.split == 1:
            return 0
        sums = self.products * self.padded_channels * self.padded_pixels
        return sums * numpy_dtype(accumulator).itemsize


def _whole(extent: int, tile: int) -> int:
    return -(-extent // tile) * tile


def unravel(position: Expr, extents: Sequence[int]) -> list[Expr]:
    """Return the index at a row-major position; the first axis takes what is left."""
    at = []
    for extent in reversed(extents[1:]):
        at.append(position % extent)
        position = position // extent
    return [position, *reversed(at)]


def ravel(at: Sequence[Expr], extents: Sequence[int]) -> Expr:
    """Return the row-major position of an index."""
    position = at[0]
    for index, extent in zip(at[1:], extents[1:], strict=True):
        position = position * extent + index
    return position


def point(spec: ConvSpec, m: Matrices, z: Expr, pixel: Expr) -> list[Expr]:
    """Return image and point of the result that is a pixel of product `z`, of sums that are not split."""
    n, *at = unravel(pixel, (1, *m.points))
    if m.phases == 1:
        return [n, *at]
    phase = unravel(z // m.groups, spec.strides)
    return [n, *(p * s + f for p, s, f in zip(at, spec.strides, phase, strict=True))]


def gather(
    spec: ConvSpec,
    m: Matrices,
    shape: Sequence[int],
    logical: Callable[..., tuple[Expr, Expr, Sequence[Expr]]],
    acc: Callable[[Expr, Expr, Expr], Expr],
) -> te.Tensor:
    """Return the sums of products in the result's order: block `unpack`, or `total`, which adds up the parts of split ones.

    Args:
        spec: the convolution.
        m: its products.
        shape: of the result in memory.
        logical: index in it -> image, channel, point.
        acc: product, channel, pixel -> sum.
    """

    def at(*index: Expr) -> tuple[Expr, Expr, Expr]:
        n, k, p = logical(*index)
        z = k // m.channels if m.groups > 1 else 0
        channel = k % m.channels if m.groups > 1 else k
        if m.phases > 1:
            residues = [i % s for i, s in zip(p, spec.strides, strict=True)]
            z = ravel(residues, spec.strides) * m.groups + z
            p = [i // s for i, s in zip(p, spec.strides, strict=True)]
        return z, channel, ravel([n, *p], [1, *m.points])

    if m.split == 1:
        return te.compute(shape, lambda *i: acc(*at(*i)), name="unpack")
    part = te.reduce_axis((0, m.split), "part")

    def total(*index: Expr) -> Expr:
        z, channel, pixel = at(*index)
        return te.sum(acc(part * (m.phases * m.groups) + z, channel, pixel), axis=part)

    return te.compute(shape, total, name="total")
