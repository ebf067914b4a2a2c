"""The stages of `fft` between the rows' transforms and those back, as tensor expressions, dense and depthwise.

Each transform is the sum that defines it: re + i im times exp(i angle) is cos(angle) and its quarter turns; schedules replace them by
the programs of `fft_transform`.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import te, tirx

from convc.schedules.overlap_save import Tiling
from convc.schedules.plan import Knobs
from convc.schedules.span import Span

__all__ = [
    "dense",
    "depthwise",
    "planes_of",
    "three_filter",
    "three_forward",
    "three_inverse",
    "wave",
]


def planes_of(knobs: Knobs) -> int:
    """Return the planes of U and M: one for each of three products, or re and im."""
    return 3 if knobs["products"] == 3 else 2


def wave(numerator: Any, denominator: int, quarters: Any) -> Any:
    """Return cos(2 pi numerator / denominator + pi / 2 quarters)."""
    step = (4 * numerator + quarters * denominator) % (4 * denominator)
    return tirx.cos(step.astype("float32") * tirx.const(math.pi / 2 / denominator, "float32"))


def three_forward(numerator: Any, denominator: int, part: Any, plane: Any) -> Any:
    """Return what part (re, im) of a point adds to plane (re, im, re + im) of its transform."""
    re, im = (wave(numerator, denominator, part - q) for q in (0, 1))
    return tirx.Select(plane == 2, re + im, wave(numerator, denominator, part - plane))


def three_filter(numerator: Any, denominator: int, part: Any, plane: Any) -> Any:
    """Return what part (re, im) of a point adds to plane (im - re, im + re, re) of U, the conjugate of a filter's transform."""
    re, im = (wave(numerator, denominator, part - q) for q in (0, 1))
    return tirx.Select(plane == 0, -(re + im), tirx.Select(plane == 1, re - im, re))


def three_inverse(numerator: Any, denominator: int, plane: Any, part: Any) -> Any:
    """Return what a product (Vr (Ui - Ur), Vi (Ui + Ur), (Vr + Vi) Ur) adds to part (re, im): re = third - second, im = third + first."""
    re, im = (wave(numerator, denominator, q - part) for q in (0, 1))
    return tirx.Select(plane == 0, im, tirx.Select(plane == 1, -re, re + im))


def depthwise(
    S: te.Tensor, tiling: Tiling, blocks: int, knobs: Knobs
) -> tuple[te.Tensor, te.Tensor]:
    """Return U and Z = sum over bins e of U[e] V[e] exp(2 pi i e p / t_h), with V written out."""
    t_h, b = tiling.high.t, knobs["block"]
    U = te.placeholder((blocks, tiling.bins, t_h, 2, b), S.dtype, name="U")
    e, u = te.reduce_axis((0, t_h), "e"), te.reduce_axis((0, 2), "u")
    i, v = te.reduce_axis((0, t_h), "i"), te.reduce_axis((0, 2), "v")
    Z = te.compute(
        (tiling.bins, S.shape[1], blocks, tiling.tiles, tiling.high.m, 2, b),
        lambda h, n, k, t, p, s, lane: te.sum(
            S[h, n, k, t, i, v, lane]
            * U[k, h, e, u, lane]
            * wave(e * (p - i + t_h), t_h, u + v - s),
            axis=[e, u, i, v],
        ),
        name="Z",
    )
    return U, Z


def dense(
    S: te.Tensor, tiling: Tiling, blocks: int, span: Span, knobs: Knobs
) -> tuple[te.Tensor, te.Tensor]:
    """Return U and Z, by way of V and M.

    Args:
        S: rows' transforms; its blocks of channels are those of the filter's first part, of the second ...
        tiling: the tiles.
        blocks: of result channels.
        span: which blocks of data each vector of results reads.
        knobs: the algorithm's.
    """
    t_h, a, b, v = tiling.high.t, knobs["data_block"], knobs["block"], knobs["vectors"]
    planes, parts, c_blocks = planes_of(knobs), tiling.parts, span.all_blocks
    N, wide = S.shape[1], -(-blocks // v)
    U = te.placeholder(
        (wide, tiling.bins, t_h, planes, parts * span.blocks * a, v * b), S.dtype, name="U"
    )
    i, s = te.reduce_axis((0, t_h), "i"), te.reduce_axis((0, 2), "s")

    def forward(numerator: Any, part: Any, plane: Any) -> Any:
        """Of four products, planes (-im, re, im): both ways in which im is read."""
        if planes == 3:
            return three_forward(numerator, t_h, part, plane)
        return wave(numerator, t_h, part - plane + 1)

    def inverse(numerator: Any, plane: Any, part: Any) -> Any:
        if planes == 3:
            return three_inverse(numerator, t_h, plane, part)
        return wave(numerator, t_h, plane - part)

    V = te.compute(
        (tiling.bins, t_h, 3, N, parts * c_blocks, tiling.tiles, a),
        lambda h, e, z, n, c, t, lane: te.sum(
            S[h, n, c, t, i, s, lane] * forward(e * (t_h - i), s, z), axis=[i, s]
        ),
        name="V",
    )
    co, ci = te.reduce_axis((0, parts * span.blocks), "co"), te.reduce_axis((0, a), "ci")
    u = te.reduce_axis((0, 2), "u")

    def read(o: Any) -> Any:
        """Return the block of V that step `co` of a vector's sum reads."""
        if span.blocks == c_blocks:
            return co
        if parts == 1:
            return span.first(o) + co
        return co // span.blocks * c_blocks + span.first(o) + co % span.blocks

    def product(h: Any, e: Any, z: Any, n: Any, o: Any, t: Any, lane: Any) -> Any:
        """Three planes: each by itself. Two: re = Vr Ur + (-Vi) Ui, im = Vi Ur + Vr Ui."""
        if planes == 3:
            return te.sum(
                V[h, e, z, n, read(o), t, ci] * U[o, h, e, z, co * a + ci, lane], axis=[co, ci]
            )
        return te.sum(
            V[h, e, 1 + z - u, n, read(o), t, ci] * U[o, h, e, u, co * a + ci, lane],
            axis=[u, co, ci],
        )

    acc = te.compute((tiling.bins, t_h, planes, N, wide, tiling.tiles, v * b), product, name="acc")
    M = te.compute(acc.shape, lambda *i: acc(*i), name="M")
    e, z = te.reduce_axis((0, t_h), "e"), te.reduce_axis((0, planes), "z")

    Z = te.compute(
        (tiling.bins, N, blocks, tiling.tiles, tiling.high.m, 2, b),
        lambda h, n, k, t, p, part, lane: te.sum(
            M[h, e, z, n, k // v, t, k % v * b + lane] * inverse(e * p, z, part),
            axis=[e, z],
        ),
        name="Z",
    )
    return U, Z
