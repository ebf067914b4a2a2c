"""THE ALGORITHM of products whose operands lie in rows of 16 bytes of one term of the sum each, as `ldmatrix.trans` reads them.

As `rows`, but that what lies together are eight pixels, or eight channels, of one term, not eight terms of one of them:

    patch[z, step, block of 8 pixels, term, 8]        weight[z, step, block of 8 channels, term, 8]

Eight neighbouring rows are 128 bytes again, read without conflicts; `.trans` hands every lane what the instruction wants of it. Sums are
in the fragments of `rows`.
"""

from __future__ import annotations

from typing import Any

from tvm import te

from convc.schedules.cuda.rows import CHANNELS, depth_of
from convc.schedules.cuda.weight_products import Side
from convc.schedules.matrices import Matrices
from convc.schedules.vector_gemm import lanes

__all__ = ["product"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def product(m: Matrices, weight: Any, patch: Any, dtype: str, accumulator: str) -> te.Tensor:
    """Return sums [product][channel][pixel]; blocks `weight`, `patch`, `acc`, which is in fragments, and `flat`.

    Args:
        m: the products' extents, channels and pixels in blocks of 8.
        weight: lane -> a `Side` of blocks.
        patch: likewise.
        dtype: of the operands.
        accumulator: type of the sums.
    """
    e, steps = lanes(dtype), m.padded_depth // m.step

    def rows(side: Any, blocks: int, name: str) -> te.Tensor:
        def element(z: Expr, s: Expr, block: Expr, i: Expr, lane: Expr) -> Expr:
            of_lane: Side = side(lane)
            return of_lane(z, s * m.step, i, block)

        return te.compute((m.products, steps, blocks, m.step, e), element, name=name)

    left, right = rows(weight, m.padded_channels, "weight"), rows(patch, m.padded_pixels, "patch")
    depth = depth_of(dtype)
    extents = (("s", steps), ("t", m.step // depth), ("h", depth // e), ("e", e))
    axes = [te.reduce_axis((0, n), name) for name, n in extents]

    def term(z: Expr, p: Expr, a: Expr, k: Expr, b: Expr, pair: Expr) -> Expr:
        s, t, h, i = axes
        at = t * depth + h * e + i
        x, dy = right[z, s, p, at, a], left[z, s, k, at, b * 2 + pair]
        return te.sum(x.astype(accumulator) * dy.astype(accumulator), axis=axes)

    fragments = (m.products, m.padded_pixels, 8, m.padded_channels, CHANNELS // 2, 2)
    acc = te.compute(fragments, term, name="acc")
    return te.compute(
        (m.products, m.padded_channels * 8, m.padded_pixels * 8),
        lambda z, k, p: acc[z, p // 8, p % 8, k // CHANNELS, k % CHANNELS // 2, k % 2],
        name="flat",
    )
