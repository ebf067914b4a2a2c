"""THE ALGORITHM of products on tensor cores whose operands both lie in rows of 16 bytes, as `ldmatrix` reads them.

An instruction multiplies 16 pixels x 32 bytes of the sum by 32 bytes of the sum x 8 channels of the result: 16 terms in half precision, 32
of bytes. Patches lie in shared memory as [block of channels][pixel][16 bytes], weights as [block][channel][16 bytes]: eight neighbouring
rows are 128 bytes, read without conflicts, and `ldmatrix` hands every lane what the instruction wants of it, which is four bytes of a
row, two halves or four numbers (PTX ISA, "mma.m16n8k16", "mma.m16n8k32", "ldmatrix"). Of the sums

    lane 4 a + b holds      [pixel a + 8 r][channel 2 b + p]        r, p = 0, 1

so that a lane stores two neighbouring channels at once and a warp writes rows of 128 bytes. A block of bytes has 16 channels, of two
instructions: their channels are dealt out so that a lane has four neighbours of them, and rows are 128 bytes again,

    instruction h, channel 2 b + p      is channel 4 b + 2 h + p of the block       h = 0, 1; see `dealt`
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tvm import te

from convc.ir.types import numpy_dtype
from convc.schedules.matrices import Matrices
from convc.schedules.vector_gemm import Element, Sums, lanes, weight_type

__all__ = ["CHANNELS", "PIXELS", "dealt", "depth_of", "met", "product"]

# Of one instruction; of a row of the sum, two blocks of 16 bytes.
PIXELS, CHANNELS, _ROW = 16, 8, 32

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def depth_of(dtype: str) -> int:
    """Return the terms of a sum that one instruction adds up.

    Example:
        >>> depth_of("float16"), depth_of("uint8")
        (16, 32)
    """
    return _ROW // numpy_dtype(dtype).itemsize


def dealt(packed: np.ndarray, dtype: str) -> np.ndarray:
    """Return weights as `vector_gemm.pack` makes them with a block's channels in the order of the instructions.

    Example:
        >>> dealt(np.arange(16).reshape(1, 1, 16, 1), "uint8").ravel().tolist()
        [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15]
    """
    z, depth, channels, e = packed.shape
    apart = packed.reshape(z, depth, -1, 4, lanes(dtype) // CHANNELS, 2, e)
    return np.ascontiguousarray(apart.swapaxes(3, 4)).reshape(z, depth, channels, e)


def product(m: Matrices, element: Element, dtype: str, accumulator: str) -> Sums:
    """Return the products of `vector_gemm`; blocks `patch` and `acc`, which is in fragments."""
    e, depth = lanes(dtype), depth_of(dtype)
    steps, together = m.padded_depth // m.step, m.step * e // depth
    w = te.placeholder(
        (m.products, m.padded_depth, m.padded_channels, e), weight_type(dtype), name="weight"
    )
    patch = te.compute(
        (m.products, steps, m.step, m.padded_pixels, e),
        lambda z, s, i, p, lane: element(z, s * m.step, i, p, lane),
        name="patch",
    )
    extents = (("s", steps), ("t", together), ("h", depth // e), ("e", e))
    axes = [te.reduce_axis((0, n), name) for name, n in extents]
    # Of a lane, beside each other: pairs of one instruction, or of two.
    own = (2,) if e == CHANNELS else (e // CHANNELS, 2)

    def term(z: Expr, p: Expr, a: Expr, k: Expr, b: Expr, *inner: Expr) -> Expr:
        step, t, h, lane = axes
        place = t * (depth // e) + h
        left = patch[z, step, place, p * 8 + a, lane]
        *first, pair = inner
        row = k * e + sum(i * CHANNELS for i in first) + b * 2 + pair
        right = w[z, step * m.step + place, row, lane]
        return te.sum(left.astype(accumulator) * right.astype(accumulator), axis=axes)

    fragments = (m.products, m.padded_pixels // 8, 8, m.padded_channels // e, 4, *own)
    acc = te.compute(fragments, term, name="acc")

    def index(z: Expr, k: Expr, p: Expr) -> tuple[Expr, ...]:
        inner = (k % 2,) if e == CHANNELS else (k % (e // 4) // 2, k % 2)
        return (z, p // 8, p % 8, k // e, k % e // (e // 4), *inner)

    def whose(z: Expr, p: Expr, a: Expr, k: Expr, b: Expr, *inner: Expr) -> tuple[Expr, Expr, Expr]:
        *first, pair = inner
        return z, k * e + b * (e // 4) + sum(i * 2 for i in first) + pair, p * 8 + a

    return Sums(w, acc, index, whose)


def met(m: Matrices, sums: Sums, channels: int) -> Sums:
    """Return the sums of all parts, of half precision, those of one tile apart by who adds them up: block `met`.

    Args:
        m: the products, as many as there are parts.
        sums: of `product`.
        channels: of a tile, of which each of its parts adds up a share.
    """
    tile = channels // CHANNELS
    share = tile // m.split
    _, pixels, *_ = sums.acc.shape
    shape = (m.split, pixels, 8, m.padded_channels // CHANNELS // m.split, 4, 2)

    def block(z: Expr, k: Expr) -> Expr:
        """Return the block of channels that is a part's `k`-th."""
        return k // share * tile + z * share + k % share

    def whole(z: Expr, p: Expr, a: Expr, k: Expr, b: Expr, pair: Expr) -> Expr:
        first, *more = (sums.acc(q, p, a, block(z, k), b, pair) for q in range(m.split))
        return sum(more, first)

    def index(z: Expr, k: Expr, p: Expr) -> tuple[Expr, ...]:
        place = k // CHANNELS
        own = place // tile * share + place % share
        return place // share % m.split, p // 8, p % 8, own, k % CHANNELS // 2, k % 2

    def whose(z: Expr, p: Expr, a: Expr, k: Expr, b: Expr, pair: Expr) -> tuple[Expr, Expr, Expr]:
        return 0, block(z, k) * CHANNELS + b * 2 + pair, p * 8 + a

    return replace(sums, acc=te.compute(shape, whole, name="met"), index=index, whose=whose)
