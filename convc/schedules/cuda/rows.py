"""THE ALGORITHM of products on tensor cores whose operands both lie in rows of 16 bytes, as `ldmatrix` reads them.

An instruction multiplies 16 pixels x 16 channels of the sum by 16 channels of the sum x 8 channels of the result. Patches lie in shared
memory as [block of 8 channels][pixel][8], weights as [block][channel][8]: eight neighbouring rows are 128 bytes, read without conflicts,
and `ldmatrix` hands every lane what the instruction wants of it (PTX ISA, "mma.m16n8k16", "ldmatrix"). Of the sums

    lane 4 a + b holds      [pixel a + 8 r][channel 2 b + p]        r, p = 0, 1

so that a lane stores two neighbouring channels at once and a warp writes rows of 128 bytes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvm import te

from convc.schedules.matrices import Matrices
from convc.schedules.vector_gemm import Element, Sums, lanes

__all__ = ["CHANNELS", "DEPTH", "PIXELS", "met", "product"]

# Of one instruction.
PIXELS, CHANNELS, DEPTH = 16, 8, 16

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def product(m: Matrices, element: Element, dtype: str, accumulator: str) -> Sums:
    """Return the products of `vector_gemm`; blocks `patch` and `acc`, which is in fragments."""
    e = lanes(dtype)
    steps, together = m.padded_depth // m.step, m.step * e // DEPTH
    w = te.placeholder((m.products, m.padded_depth, m.padded_channels, e), dtype, name="weight")
    patch = te.compute(
        (m.products, steps, m.step, m.padded_pixels, e),
        lambda z, s, i, p, lane: element(z, s * m.step, i, p, lane),
        name="patch",
    )
    extents = (("s", steps), ("t", together), ("h", DEPTH // e), ("e", e))
    axes = [te.reduce_axis((0, n), name) for name, n in extents]

    def term(z: Expr, p: Expr, a: Expr, k: Expr, b: Expr, pair: Expr) -> Expr:
        step, t, h, lane = axes
        place = t * (DEPTH // e) + h
        left = patch[z, step, place, p * 8 + a, lane]
        right = w[z, step * m.step + place, k * CHANNELS + b * 2 + pair, lane]
        return te.sum(left.astype(accumulator) * right.astype(accumulator), axis=axes)

    fragments = (m.products, m.padded_pixels // 8, 8, m.padded_channels // CHANNELS, 4, 2)
    acc = te.compute(fragments, term, name="acc")
    return Sums(
        w,
        acc,
        lambda z, k, p: (z, p // 8, p % 8, k // CHANNELS, k % CHANNELS // 2, k % 2),
        lambda z, p, a, k, b, pair: (z, k * CHANNELS + b * 2 + pair, p * 8 + a),
    )


def met(m: Matrices, sums: Sums, channels: int) -> Sums:
    """Return the sums of all parts, those of one tile apart by who adds them up: block `met`.

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
