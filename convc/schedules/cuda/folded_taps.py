"""Taps folded into channels: a convolution of few channels as one of more channels and fewer taps, on data laid out anew.

THE ALGORITHM   r = t u + f, 0 <= f < u, on each axis:
                y = sum over t, c, f of w'[k, (c, f), t] x'[n, (c, f), p s / g + t u d / g]
                x'[n, (c, f), j] = x[n, c, j g + f d - pad], 0 outside;  w'[k, (c, f), t] = w[k, c, t u + f], 0 beyond the filter
                s: stride, d: dilation, g: points from one of x' to the next, gcd(s, u d), or s where one t holds all taps
WHEN            channels fill no block: three in a block of 8 waste five of eight products, with u = 2 the six waste two
COST            x' is written and read once more; with u = s it has the elements of x, with all taps those that im2col would store
ACCURACY        exact: the same products
SOURCE          u = s on both axes is "space to depth", as first layers are brought to TPUs (Kumar et al., arXiv:1909.09756); with all taps
                it is im2col (Chetlur et al., arXiv:1410.0759)
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.ir.types import Shape
from convc.schedules.matrices import unravel
from convc.schedules.packing import Read, within
from convc.schedules.rank import raised, raised_weight
from convc.schedules.vector_gemm import lanes

__all__ = ["Folding", "foldings"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


class _Axis(NamedTuple):
    """One axis of a folding, by itself.

    Attributes:
        taps: u.
        grid: g.
        left: taps that stay taps.
        stride, dilation, extent: of the convolution on folded data.
    """

    taps: int
    grid: int
    left: int
    stride: int
    dilation: int
    extent: int


@dataclass(frozen=True, slots=True)
class Folding:
    """How many neighbouring taps of each axis become channels.

    Attributes:
        spec: the convolution, of two spatial axes at least, not transposed, of one group.
        taps: u of each axis.
    """

    spec: ConvSpec
    taps: Shape

    @property
    def grid(self) -> Shape:
        """Points of the data from one point of the folded data to the next, per axis."""
        return tuple(a.grid for a in _axes(self.spec, self.taps))

    @property
    def folded(self) -> ConvSpec:
        """The convolution on the folded data: no pads, which are part of that.

        Example:
            >>> stem = ConvSpec.of((32, 3, 224, 224), (64, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3), dtype="float16")
            >>> Folding(stem, (1, 2)).folded.key
            'conv2d-f16-n32c6h229w115-k64r7s4-st2x1-pd0.0.0.0-dl1x1-g1'
        """
        return _folded(self.spec, self.taps)

    @property
    def blocks(self) -> int:
        """Blocks of 16 bytes that a sum has."""
        return _blocks(self.folded)

    @property
    def elements(self) -> int:
        """Elements of the folded data."""
        n, c, *extents = self.folded.data
        e = lanes(self.spec.dtype)
        return n * (-(-c // e) * e) * math.prod(extents)

    def data(self, x: te.Tensor, fill: int = 0) -> te.Tensor:
        """Return the folded data in blocks of channels: block `folded`.

        Args:
            x: the plain data, of the convolution or of the one-dimensional one that it stands for.
            fill: what lies outside of them, and beyond the last channel.
        """
        spec, rank = self.spec, len(x.shape) - 2
        (n, c, *extents), inner = self.folded.data, math.prod(self.taps)
        e, begins = lanes(spec.dtype), spec.pads[: spec.rank]
        blocks = -(-c // e)

        def value(n: Expr, block: Expr, *at: Expr) -> Expr:
            *point, lane = at
            channel = block * e + lane
            inside = [channel < c] if c % e else []
            index = []
            for axis, f in enumerate(unravel(channel % inner, self.taps)):
                g, d, pad = self.grid[axis], spec.dilations[axis], begins[axis]
                position = point[axis] * g + f * d - pad
                last = (extents[axis] - 1) * g + (self.taps[axis] - 1) * d - pad
                inside += [position >= 0] if pad else []
                inside += [position < spec.data[2 + axis]] if last >= spec.data[2 + axis] else []
                index.append(position)
            element = x(n, channel // inner, *index[spec.rank - rank :])
            if not inside:
                return element
            return tirx.if_then_else(tirx.all(*inside), element, tirx.const(fill, spec.dtype))

        return te.compute((n, blocks, *extents, e), value, name="folded")

    def weight(self, weight: np.ndarray) -> np.ndarray:
        """Return the filter of the folded convolution.

        Example:
            >>> spec = ConvSpec.of((1, 1, 1, 9), (1, 1, 1, 3), strides=(1, 2), dtype="float16")
            >>> Folding(spec, (1, 2)).weight(np.array([[[[1, 2, 3]]]], np.float16))[0, :, 0].tolist()
            [[1.0, 3.0], [2.0, 0.0]]
        """
        left = self.folded.kernel
        axes = zip(left, self.taps, self.spec.kernel, strict=True)
        ends = [(0, t * u - r) for t, u, r in axes]
        whole = np.pad(raised_weight(weight), [(0, 0), (0, 0), *ends])
        pairs = [n for t, u in zip(left, self.taps, strict=True) for n in (t, u)]
        k, c = weight.shape[:2]
        rank = self.spec.rank
        apart = whole.reshape(k, c, *pairs)
        order = [0, 1, *range(3, 3 + 2 * rank, 2), *range(2, 2 + 2 * rank, 2)]
        return apart.transpose(order).reshape(self.folded.weight)

    def read(self, read: Read) -> Read:
        """Return how the folded filter is read, of one that is read at run time."""
        inner, kernel = math.prod(self.taps), self.spec.kernel
        ends = [t * u for t, u in zip(self.folded.kernel, self.taps, strict=True)]

        def folded(k: Expr, channel: Expr, taps: Sequence[Expr]) -> Expr:
            inners = unravel(channel % inner, self.taps)
            at = [t * u + f for t, u, f in zip(taps, self.taps, inners, strict=True)]
            bounds = list(zip(at, kernel, ends, strict=True))
            return within(bounds, read(k, channel // inner, at), self.spec.dtype)

        return folded


# A model asks for each of a thousand settings of a layer, and checking a convolution's extents takes longer than the estimate.
@functools.lru_cache(maxsize=256)
def _folded(spec: ConvSpec, taps: Shape) -> ConvSpec:
    inner, axes = math.prod(taps), _axes(spec, taps)
    return replace(
        spec,
        data=(spec.data[0], spec.in_channels * inner, *(a.extent for a in axes)),
        weight=(spec.out_channels, spec.in_channels * inner, *(a.left for a in axes)),
        strides=tuple(a.stride for a in axes),
        pads=(0,) * (2 * spec.rank),
        dilations=tuple(a.dilation for a in axes),
    )


def _axes(spec: ConvSpec, taps: Shape) -> tuple[_Axis, ...]:
    points = spec.output[2:]
    return tuple(_axis(spec, axis, points[axis], u) for axis, u in enumerate(taps))


def _axis(spec: ConvSpec, axis: int, points: int, u: int) -> _Axis:
    r, s, d = spec.kernel[axis], spec.strides[axis], spec.dilations[axis]
    grid = s if u >= r else math.gcd(s, u * d)
    left, stride = -(-r // u), s // grid
    dilation = u * d // grid if left > 1 else 1
    return _Axis(u, grid, left, stride, dilation, (points - 1) * stride + (left - 1) * dilation + 1)


@functools.lru_cache(maxsize=256)
def foldings(spec: ConvSpec) -> tuple[Folding, ...]:
    """Return the foldings that leave fewer blocks to a sum than there are, of which no other has as few and as little data.

    Of equals, that whose neighbouring results read neighbours, in whole sectors.

    Example:
        >>> stem = ConvSpec.of((32, 3, 224, 224), (64, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3), dtype="float16")
        >>> [(f.taps, f.blocks) for f in foldings(stem)][:2]
        [((1, 2), 28), ((2, 4), 24)]
    """
    spec = raised(spec)
    points, e, most = spec.output[2:], lanes(spec.dtype), _blocks(spec)
    each = [
        [_axis(spec, axis, points[axis], u) for u in _counts(r, s)]
        for axis, (r, s) in enumerate(zip(spec.kernel, spec.strides, strict=True))
    ]
    # In numbers alone: filters of 31 x 31 have 2500 foldings, of which a few are kept.
    found: list[tuple[int, int, int, Shape]] = []
    for axes in itertools.product(*each):
        channels = -(-spec.in_channels * math.prod(a.taps for a in axes) // e)
        blocks = channels * math.prod(a.left for a in axes)
        if blocks < most:
            elements = channels * math.prod(a.extent for a in axes)
            stride = math.prod(a.stride for a in axes)
            found.append((elements, blocks, stride, tuple(a.taps for a in axes)))
    kept: list[Folding] = []
    for _, blocks, _, taps in sorted(found, key=lambda row: row[:3]):
        if blocks < most:
            most = blocks
            kept.append(Folding(spec, taps))
    return tuple(kept)


def _counts(taps: int, stride: int) -> list[int]:
    """Return how many of an axis' taps may become channels: as few as leave so many outside, and whole strides."""
    even = {-(-taps // left) for left in range(1, taps + 1)}
    return sorted(even | set(range(stride, taps + stride, stride)))


def _blocks(spec: ConvSpec) -> int:
    return -(-spec.in_channels // lanes(spec.dtype)) * math.prod(spec.kernel)
