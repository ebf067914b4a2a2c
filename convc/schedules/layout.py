"""Layout: how a value of logical shape (N, C, H, W) lies in memory; (N, C, W) and (N, C, D, H, W) alike.

    plain            the logical shape, row-major
    blocked          NCHW[b]c: (N, ceil(C/b), H, W, b), NCW[b]c, NCDHW[b]c; channels beyond C are zeros
    blocked + halo   the same inside a border of zeros, so that a padded convolution reads without a test and without a copy

A kernel never sees a halo as such: it gets a strided view of the buffer, larger or smaller than the value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from convc.ir.types import Shape, numpy_dtype

__all__ = ["PLAIN", "Halo", "Layout", "View"]

ALIGNMENT = 64  # bytes: one AVX-512 register, one cache line; also what TVM assumes of every buffer


@dataclass(frozen=True, slots=True)
class Halo:
    """Zeros around each (H, W) plane, and planes of zeros before and behind those of a (D, H, W) volume."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    front: int = 0
    back: int = 0

    @staticmethod
    def of(begins: Sequence[int], ends: Sequence[int]) -> Halo:
        """Return the halo of these extents along the spatial axes, of which there are 1 to 3, W last.

        Example:
            >>> Halo.of((1, 2), (3, 4))
            Halo(top=1, left=2, bottom=3, right=4, front=0, back=0)
        """
        front, top, left = (*(0,) * (3 - len(begins)), *begins)
        back, bottom, right = (*(0,) * (3 - len(ends)), *ends)
        return Halo(top, left, bottom, right, front, back)

    def begins(self, rank: int) -> Shape:
        """Return the extents before the last `rank` spatial axes."""
        return (self.front, self.top, self.left)[3 - rank :]

    def ends(self, rank: int) -> Shape:
        """Return the extents behind the last `rank` spatial axes."""
        return (self.back, self.bottom, self.right)[3 - rank :]

    def around(self, extents: Sequence[int]) -> Shape:
        """Return spatial extents with the halo's added."""
        rank = len(extents)
        axes = zip(self.begins(rank), extents, self.ends(rank), strict=True)
        return tuple(begin + extent + end for begin, extent, end in axes)

    def __bool__(self) -> bool:
        return any((*self.begins(3), *self.ends(3)))

    def union(self, other: Halo) -> Halo:
        """Return the smallest halo that holds both."""
        return Halo.of(
            tuple(map(max, self.begins(3), other.begins(3))),
            tuple(map(max, self.ends(3), other.ends(3))),
        )

    def __str__(self) -> str:
        rank = 3 if self.front or self.back else 2
        return ".".join(map(str, (*self.begins(rank), *self.ends(rank))))


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

    def raised(self) -> View:
        """Return the same bytes with (N, C/b, W, b) seen as an image of height 1; other blocked views as they are.

        Example:
            >>> Layout(8).view((1, 16, 20), "float32").raised().shape
            (1, 2, 1, 20, 8)
        """
        if len(self.shape) != 4:
            return self
        (n, c, w, b), (sn, sc, sw, sb) = self.shape, self.strides
        return replace(self, shape=(n, c, 1, w, b), strides=(sn, sc, w * sw, sw, sb))

    def in_rows(self) -> View:
        """Return the same bytes with the points of a row and their channels, of one block, as one axis.

        Example:
            >>> Layout(3).view((1, 3, 4, 5), "uint8").in_rows().shape
            (1, 4, 15)
        """
        (n, _, *rows, columns, b), (sn, _, *steps, _, sb) = self.shape, self.strides
        return replace(self, shape=(n, *rows, columns * b), strides=(sn, *steps, sb))

    def in_one_row(self) -> View:
        """Return blocked images of one point each seen as the points of one image, a row.

        Example:
            >>> Layout(16).view((197, 64, 1, 1), "uint8").in_one_row().shape
            (1, 4, 1, 197, 16)
        """
        (n, c, *_, b), (sn, sc, *_, sb) = self.shape, self.strides
        return replace(self, shape=(1, c, 1, n, b), strides=(n * sn, sc, n * sn, sn, sb))

    def words(self, elements: int) -> View:
        """Return the same bytes with so many neighbouring elements of the last axis, 32 bits, seen as one int32.

        Example:
            >>> Layout(16).view((1, 32, 2, 2), "uint8").words(4).shape
            (1, 2, 2, 2, 4)
            >>> Layout(16).view((1, 32, 2, 2), "bfloat16").words(2).shape
            (1, 2, 2, 2, 8)
        """
        *outer, lanes = self.shape
        strides = (*(s // elements for s in self.strides[:-1]), 1)
        return replace(self, shape=(*outer, lanes // elements), strides=strides, dtype="int32")

    def rows_joined(self, axes: int) -> View | None:
        """Return the same bytes with so many spatial axes seen as one, or None if the rows do not lie one behind the other.

        Example:
            >>> Layout(8).view((1, 16, 14, 14), "float32").rows_joined(2).shape
            (1, 2, 196, 8)
            >>> Layout(8, Halo(1, 1, 1, 1)).view((1, 16, 14, 14), "float32").rows_joined(2) is None
            True
        """
        shape, strides = self.shape[2 : 2 + axes], self.strides[2 : 2 + axes]
        if any(strides[i] != strides[i + 1] * shape[i + 1] for i in range(axes - 1)):
            return None
        joined = (*self.shape[:2], math.prod(shape), *self.shape[2 + axes :])
        steps = (*self.strides[:2], *self.strides[1 + axes :])
        return replace(self, shape=joined, strides=steps)

    def split(self, *factors: int) -> View:
        """Return the same bytes with each spatial axis seen as (extent / factor, factor); for blocked views only."""
        (n, c, *spatial, b), (sn, sc, *steps, sb) = self.shape, self.strides
        shape, strides = [n, c], [sn, sc]
        for extent, step, factor in zip(spatial, steps, factors, strict=True):
            shape += [extent // factor, factor]
            strides += [step * factor, step]
        return replace(self, shape=(*shape, b), strides=(*strides, sb))


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
        n, c, *spatial = shape
        return (n, -(-c // self.block), *spatial, self.block)

    def buffer_shape(self, shape: Shape) -> Shape:
        """Return the dimensions of the whole buffer, halo included."""
        if not self.block:
            return shape
        n, cb, *spatial, b = self.physical(shape)
        return (n, cb, *self.halo.around(spatial), b)

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
        n, cb, *spatial, b = self.physical(shape)
        rank = len(spatial)
        seen = (n, cb, *border.around(spatial), b)
        first = (h - w for h, w in zip(self.halo.begins(rank), border.begins(rank), strict=True))
        size = numpy_dtype(dtype).itemsize
        alignment = ALIGNMENT if seen == whole else math.gcd(ALIGNMENT, b * size)
        offset = sum(i * stride for i, stride in zip(first, strides[2:], strict=False)) * size
        if image is not None:
            alignment = math.gcd(ALIGNMENT, b * size)
            offset += channel // b * strides[1] * size
            # The distance between images of a batch of one is free: as for a value of its own, so that kernels are shared.
            if n != 1:
                strides = (_compact(self.buffer_shape(image))[0], *strides[1:])
        return View(seen, strides, offset, dtype, alignment)

    def bands(self, shape: Shape, dtype: str) -> list[View]:
        """Return the views of the halo: whole planes before and behind, then whole rows, then what is left beside the rows."""
        if not self.halo:
            return []
        whole = self.view(shape, dtype, self.halo)
        _, _, *extents, b = whole.shape
        rank, size = len(extents), numpy_dtype(dtype).itemsize
        alignment = math.gcd(ALIGNMENT, b * size)
        at, box, views = [0] * rank, list(extents), []
        for axis, (begin, end) in enumerate(
            zip(self.halo.begins(rank), self.halo.ends(rank), strict=True)
        ):
            for first, count in ((0, begin), (extents[axis] - end, end)):
                at[axis], box[axis] = first, count
                if all(box):
                    offset = sum(i * s for i, s in zip(at, whole.strides[2:], strict=False)) * size
                    seen = (*whole.shape[:2], *box, b)
                    views.append(View(seen, whole.strides, offset, dtype, alignment))
            at[axis], box[axis] = begin, extents[axis] - begin - end
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
    return math.prod(shape[2:]) == 1 and shape[1] % layout.block == 0


PLAIN = Layout()
