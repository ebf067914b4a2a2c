"""Convolution of bytes of one to three channels: the points of a row lie one behind the other, and four bytes are a quad, see `quantized`.

THE ALGORITHM   acc[n, k, p, q] = sum over r, g of dot(X[n, p stride + r dilation, q stride C + 4 g], W[k, r, g]);
                X[.., i] = (x[i], x[i + 1], x[i + 2], x[i + 3]), four neighbours in memory of a row of NHWC;
                W[k, r] = a row of the filter, channels innermost, zeros behind it
WHEN            one group, taps of a row next to each other, and fewer quads than taps: 7x7 of 3 channels are 7 x 6, not 49
COST            R ceil(S C / 4) steps of the register tile an output point
ACCURACY        exact sums
SOURCE          the filter's row as one vector of products: Lavin & Gray, arXiv:1509.09308, section 1 (direct convolution of first layers)
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from tvm import te

from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, gathered_halo
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs
from convc.schedules.quads import QUAD, has_dot, multiply, quad_of, tile_knobs
from convc.schedules.rank import raised, raised_weight
from convc.schedules.register_tile import Tile, tile_cycles
from convc.schedules.requantized import Bias, finished
from convc.target import Target

__all__ = ["applies", "compute", "cycles", "knobs", "operands", "pack"]

# Four channels are quads as they are.
_MOST_CHANNELS: Final = QUAD - 1


def _quads(spec: ConvSpec) -> int:
    """Return the quads of a row of the filter."""
    return -(-spec.kernel[-1] * spec.in_channels // QUAD)


def applies(spec: ConvSpec, target: Target) -> bool:
    """Whether rows of bytes make fewer products than quads of channels."""
    few = spec.in_channels <= _MOST_CHANNELS and spec.group == 1 and not spec.transposed
    return has_dot(target) and few and spec.dilations[-1] == 1 and _quads(spec) < spec.kernel[-1]


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return blocks and tile; `row` is the bytes of a point."""
    spec = raised(spec)
    return {**tile_knobs(spec, target, *spec.output[-2:]), "row": spec.in_channels}


def operands(spec: ConvSpec, target: Target, knobs: Knobs) -> Operands:
    """Return the layouts; rows are as long as the last quad of the last result reaches."""
    halo = gathered_halo(spec)
    begins, ends = list(halo.begins(spec.rank)), list(halo.ends(spec.rank))
    last = (spec.output[-1] - 1) * spec.strides[-1] * spec.in_channels
    points = -(-(last + QUAD * _quads(spec)) // spec.in_channels)
    ends[-1] = max(ends[-1], points - spec.data[-1] - begins[-1])
    border = Halo.of(begins, ends)
    return Operands(Layout(knobs["row"], border), border, Layout(knobs["block"]))


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return the cycles of all tiles."""
    spec = raised(spec)
    tile = Tile(knobs["rows"], knobs["cols"], knobs["vectors"])
    vectors = -(-spec.out_channels // knobs["block"])
    rows, cols = spec.output[-2:]
    steps = spec.data[0] * math.prod(spec.output[2:-2]) * math.prod(spec.kernel[:-1])
    return steps * _quads(spec) * tile_cycles(target, tile, rows, cols, vectors, knobs["block"])


def pack(weight: np.ndarray, spec: ConvSpec, knobs: Knobs) -> np.ndarray:
    """Return int8 weights as [K/(v b)][S C/4][R][v b] int32 of four bytes each.

    Example:
        >>> spec = ConvSpec.of((1, 1, 1, 8), (1, 1, 1, 5))
        >>> packed = pack(np.array([[[[1, 2, 3, 4, 5]]]], np.int8), spec, {"block": 1, "vectors": 1})
        >>> packed.view(np.int8).tolist()
        [[[[1, 2, 3, 4]], [[5, 0, 0, 0]]]]
    """
    rows = np.moveaxis(raised_weight(weight), 1, -1)
    k, *outer, taps, channels = rows.shape
    wide = knobs["block"] * knobs["vectors"]
    padded = np.zeros((-(-k // wide) * wide, *outer, QUAD * _quads(spec)), np.int8)
    padded[:k, ..., : taps * channels] = rows.reshape(k, *outer, -1)
    lanes = padded.reshape(-1, wide, *outer, _quads(spec), QUAD)
    moved = np.moveaxis(np.moveaxis(lanes, 1, -2), -3, 1)
    return np.ascontiguousarray(moved).view(np.int32)[..., 0]


def compute(
    spec: ConvSpec, attributes: QuantizedConvAttributes, target: Target, knobs: Knobs
) -> list[te.Tensor]:
    """Return data, weight, bias, factor, what is added, result; blocks `acc` and what follows."""
    border = operands(spec, target, knobs).border
    quads = _quads(spec)
    spec = raised(spec)
    b, v, c = knobs["block"], knobs["vectors"], spec.in_channels
    N, K, *points = spec.output
    blocks = -(-K // b)
    *rows, columns = border.around(spec.data[2:])
    x = te.placeholder((N, *rows, columns * c), "uint8", name="data")
    shape = (-(-blocks // v), quads, *spec.kernel[:-1], v * b)
    w = te.placeholder(shape, "int32", name="weight")
    bias = Bias(attributes, blocks, b)
    taps = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(spec.kernel[:-1])]
    quad, times = te.reduce_axis((0, quads), "quad"), multiply(knobs)

    def product(n, k, *at):
        *p, q, lane = at
        axes = zip(p, spec.strides, taps, spec.dilations, strict=False)
        position = [i * stride + r * dilation for i, stride, r, dilation in axes]
        first = q * (spec.strides[-1] * c) + quad * QUAD
        left = quad_of([x(n, *position, first + i) for i in range(QUAD)])
        # Quads of a row outermost: innermost, LLVM unrolls them and keeps the bytes that neighbouring results share, for which it has no
        # registers (7x7, 3 -> 64 channels at stride 2: 658 us, so 592).
        return te.sum(times(left, w(k, quad, *taps, lane)), axis=[quad, *taps])

    acc = te.compute((N, shape[0], *points, v * b), product, name="acc")

    def whole(n, k, *at):
        return acc(n, k // v, *at[:-1], k % v * b + at[-1]) + bias(k, at[-1])

    return finished(attributes, (x, w, bias), (N, blocks, *points, b), whole, K)
