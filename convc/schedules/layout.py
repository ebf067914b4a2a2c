"""Layout: how a value of logical shape (N, C, H, W) lies in memory.

    plain            the logical shape, row-major
    blocked          NCHW[b]c: (N, ceil(C/b), H, W, b); channels beyond C are zeros
    blocked + halo   the same inside a border of zeros, so that a padded convolution reads without a test and without a copy

A kernel never sees a halo as such: it gets a strided view of the buffer, larger or smaller than the value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from convc.ir.types import Shape, numpy_dtype

__all__ = ["PLAIN", "Halo", "Layout", "View"]

ALIGNMENT = 64  # bytes: one AVX-512 register, one cache line; also what TVM assumes of every buffer


@dataclass(frozen=True, slots=True)
class Halo:
    """Zeros around each (H, W) plane."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return any((self.top, self.left, self.bottom, self.right))

    def union(self, other: Halo) -> Halo:
        """Return the smallest halo that holds both."""
        return Halo(
            max(self.top, other.top),
            max(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def __str__(self) -> str:
        return f"{self.top}.{self.left}.{self.bottom}.{self.right}"


@dataclass(frozen=True, slots=True)
class View:
    """A strided box inside a buffer, as a kernel's argument.

    Attributes:
        shape, strides: in elements.
        offset: bytes from the buffer's start.
        dtype: element type.
        alignment: bytes that the address is a multiple of.
    """

    shape: Shape
    strides: Shape
    offset: int
    dtype: str
    alignment: int = ALIGNMENT

    @property
    def is_compact(self) -> bool:
        return self.strides == _compact(self.shape)

    def split(self, rows: int, cols: int) -> View:
        """Return the same bytes with H seen as (H/rows, rows) and W as (W/cols, cols); for blocked views only."""
        (n, c, h, w, b), (sn, sc, sh, sw, sb) = self.shape, self.strides
        shape = (n, c, h // rows, rows, w // cols, cols, b)
        return replace(self, shape=shape, strides=(sn, sc, sh * rows, sh, sw * cols, sw, sb))


def _compact(shape: Shape) -> Shape:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


@dataclass(frozen=True, slots=True)
class Layout:
    """Memory order of one value.

    Attributes:
        block: channels in a block; 0 is plain (any rank), 1 is NCHW seen as five dimensions.
        halo: border of zeros; none when plain.

    Example:
        >>> Layout(16, Halo(1, 1, 1, 1)).buffer_shape((1, 64, 56, 56))
        (1, 4, 58, 58, 16)
    """

    block: int = 0
    halo: Halo = Halo()

    def __str__(self) -> str:
        if not self.block:
            return "plain"
        name = "nchw" if self.block == 1 else f"nchw{self.block}c"
        return f"{name}+{self.halo}" if self.halo else name

    def physical(self, shape: Shape) -> Shape:
        """Return the dimensions a kernel indexes, without the halo."""
        if not self.block:
            return shape
        n, c, h, w = shape
        return (n, -(-c // self.block), h, w, self.block)

    def buffer_shape(self, shape: Shape) -> Shape:
        """Return the dimensions of the whole buffer, halo included."""
        if not self.block:
            return shape
        n, cb, h, w, b = self.physical(shape)
        return (
            n,
            cb,
            h + self.halo.top + self.halo.bottom,
            w + self.halo.left + self.halo.right,
            b,
        )

    def nbytes(self, shape: Shape, dtype: str) -> int:
        """Return the buffer's size."""
        return math.prod(self.buffer_shape(shape)) * numpy_dtype(dtype).itemsize

    def view(
        self,
        shape: Shape,
        dtype: str,
        border: Halo | None = None,
        *,
        image: Shape | None = None,
        channel: int = 0,
    ) -> View:
        """Return the view of the value together with `border` of its halo (default: none of it).

        Args:
            shape: the value's.
            dtype: its element type.
            border: part of the halo to see; reaches beyond the halo on no side.
            image: the larger image (N, more channels, H, W) that the value is a part of, if it is.
            channel: where in that image it begins, a multiple of the block.
        """
        whole = self.buffer_shape(shape)
        strides = _compact(whole)
        if not self.block:
            return View(shape, strides, 0, dtype)
        border = border or Halo()
        assert self.halo.union(border) == self.halo, f"{border} reaches beyond {self.halo}"
        n, cb, h, w, b = self.physical(shape)
        top, left = self.halo.top - border.top, self.halo.left - border.left
        seen = (n, cb, h + border.top + border.bottom, w + border.left + border.right, b)
        size = numpy_dtype(dtype).itemsize
        alignment = ALIGNMENT if seen == whole else math.gcd(ALIGNMENT, b * size)
        offset = (top * strides[2] + left * strides[3]) * size
        if image is not None:
            alignment = math.gcd(ALIGNMENT, b * size)
            offset += channel // b * strides[1] * size
            # The distance between images of a batch of one is free: as for a value of its own, so that kernels are shared.
            if n != 1:
                strides = (_compact(self.buffer_shape(image))[0], *strides[1:])
        return View(seen, strides, offset, dtype, alignment)

    def bands(self, shape: Shape, dtype: str) -> list[View]:
        """Return the views of the halo: whole rows above and below, then what is left beside the rows between."""
        if not self.halo:
            return []
        whole = self.view(shape, dtype, self.halo)
        n, c, height, width, b = whole.shape
        halo = self.halo
        rows, cols = height - halo.top - halo.bottom, width - halo.left - halo.right
        boxes = (
            (0, 0, halo.top, width),
            (height - halo.bottom, 0, halo.bottom, width),
            (halo.top, 0, rows, halo.left),
            (halo.top, halo.left + cols, rows, halo.right),
        )
        size = numpy_dtype(dtype).itemsize
        alignment = math.gcd(ALIGNMENT, b * size)
        views = []
        for top, left, h, w in boxes:
            if h and w:
                offset = (top * whole.strides[2] + left * whole.strides[3]) * size
                views.append(View((n, c, h, w, b), whole.strides, offset, dtype, alignment))
        return views

    def with_halo(self, halo: Halo) -> Layout:
        """Return the layout with another halo."""
        return replace(self, halo=halo)

    def same_bytes(self, other: Layout, shape: Shape) -> bool:
        """Whether a value of this shape is the same run of bytes in both layouts, so that no copy is needed."""
        if self == other:
            return True
        if self.halo or other.halo:
            return False
        return all(_is_row_major(layout, shape) for layout in (self, other))


def _is_row_major(layout: Layout, shape: Shape) -> bool:
    if layout.block in (0, 1):
        return True
    c, h, w = shape[1:]
    return h == w == 1 and c % layout.block == 0


PLAIN = Layout()
