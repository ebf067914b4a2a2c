"""Depthwise convolution of bytes, four taps of a row at a time, see `quantized`.

THE ALGORITHM   acc[n, k, p, q] = sum over r, g of dot(X[n, k, p stride + r dilation, b + 4 g], W[k, r, q mod u, g]),
                b = (q - q mod u) stride;
                X[.., c] = (x[c], x[c + 1], x[c + 2], x[c + 3]), four neighbours of a row in one lane of int32;
                W[k, r, j] = a row of the filter behind j stride zeros, so that u results read the same X
WHEN            group = C = K, taps next to each other, an instruction for four products
COST            R ceil(S / 4) dots a result, and R ceil(S / 4) / u loads with a permutation of bytes, which results of a column share;
                3x3: 3 and 1 where it was 9 multiply-adds and 2 instructions to widen a vector of data
ACCURACY        exact sums
SOURCE          the layer: MobileNets, arXiv:1704.04861; vpdpbusd: Intel 64 manual, AVX-512 VNNI
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from tvm import te

from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, gathered_halo, row_chunks
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs
from convc.schedules.quads import QUAD, has_dot, multiply, quad_of
from convc.schedules.rank import raised, raised_weight
from convc.schedules.requantized import Bias, finished
from convc.target import Target

__all__ = ["applies", "compute", "cycles", "knobs", "operands", "pack"]

# Cycles of a Zen 4: a load of 64 bytes, which mostly lie in two lines, with its permutation; what a vector's scaling, packing and storing
# take in a group of four, of two, and alone.
_QUAD_CYCLES: Final = 1.5
_STORES: Final = {4: 2.5, 2: 3.0, 1: 5.0}

# Sums in registers beside the data of a row and the weights that stay.
_MOST_SUMS: Final = 18


@dataclass(frozen=True, slots=True)
class _Row:
    """How results of a row read quads.

    Attributes:
        quads: of a result's taps.
        shared: results that read the same quads.
        step: points between the first quads of neighbouring groups of results.
    """

    quads: int
    shared: int
    step: int

    @staticmethod
    def of(spec: ConvSpec) -> _Row:
        """Return the row of a raised problem.

        Example:
            >>> _Row.of(ConvSpec.of((1, 16, 9, 9), (16, 1, 3, 3), group=16))
            _Row(quads=1, shared=2, step=2)
        """
        quads = -(-spec.kernel[-1] // QUAD)
        shared = (QUAD * quads - spec.kernel[-1]) // spec.strides[-1] + 1
        return _Row(quads, shared, shared * spec.strides[-1])

    def reach(self, results: int) -> int:
        """Return how many points `results` of them read."""
        return (results - 1) // self.shared * self.step + QUAD * self.quads


def applies(spec: ConvSpec, target: Target) -> bool:
    """Whether four taps of a row are one product: the layer is depthwise, which the caller knows."""
    together = spec.dilations[-1] == 1 or spec.kernel[-1] == 1
    return has_dot(target) and together


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return the tile with the least cycles."""
    spec = raised(spec)
    row, (P, Q) = _Row.of(spec), spec.output[-2:]
    tiles = [
        (rows, cols)
        for rows, cols in itertools.product((1, 2, 3, 4), range(row.shared, Q + row.shared))
        if P % rows == 0 and rows * cols <= _MOST_SUMS and (cols % row.shared == 0 or cols == Q)
    ] or [(1, min(row.shared, Q))]
    rows, cols = min(tiles, key=lambda tile: (_plane(spec, *tile), tile[0], -tile[1]))
    chunks = row_chunks(spec, target, rows, P)
    shape = {"rows": rows, "cols": min(cols, Q), "vectors": 1, "chunks": chunks}
    return {**shape, "block": target.lanes, "dot": 1, "taps": 1}


def _plane(spec: ConvSpec, rows: int, cols: int) -> float:
    """Return the cycles of a plane of one vector of channels."""
    row, (P, Q) = _Row.of(spec), spec.output[-2:]
    *_, R, _ = spec.kernel
    read = (rows - 1) * spec.strides[-2] + spec.effective_kernel[-2] if spec.dilations[-2] == 1 else rows * R  # fmt: skip
    total = 0.0
    whole, rest = divmod(Q, cols)
    for width, times in ((cols, whole), (rest, 1 if rest else 0)):
        left, store = width, 0.0
        for count, each in _STORES.items():
            store += left // count * count * each
            left %= count
        bases = -(-width // row.shared)
        # Neighbouring groups of results read the same quads where these are a quad apart.
        quads = bases + row.quads - 1 if row.step == QUAD else bases * row.quads
        dots = rows * width * R * row.quads
        total += times * (dots + _QUAD_CYCLES * read * quads + rows * store)
    outer = math.prod(spec.kernel[:-2]) * math.prod(spec.output[2:-2])
    return total * outer * (P // rows)


def operands(spec: ConvSpec, target: Target, knobs: Knobs) -> Operands:
    """Return the layouts; rows are as long as the last quad of the last result reaches."""
    halo, row = gathered_halo(spec), _Row.of(raised(spec))
    begins, ends = list(halo.begins(spec.rank)), list(halo.ends(spec.rank))
    ends[-1] = max(ends[-1], row.reach(spec.output[-1]) - spec.data[-1] - begins[-1])
    border = Halo.of(begins, ends)
    return Operands(Layout(knobs["block"], border), border, Layout(knobs["block"]))


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return the cycles of all planes."""
    spec = raised(spec)
    vectors = -(-spec.out_channels // knobs["block"])
    return spec.data[0] * vectors * _plane(spec, knobs["rows"], knobs["cols"])


def pack(weight: np.ndarray, spec: ConvSpec, knobs: Knobs) -> np.ndarray:
    """Return int8 weights as [C/b][R][u][S/4][b] int32 of four taps each.

    Example:
        >>> spec = ConvSpec.of((1, 1, 1, 8), (1, 1, 1, 3))
        >>> packed = pack(np.array([[[[1, 2, 3]]]], np.int8), spec, {"block": 1})
        >>> packed.view(np.int8).tolist()
        [[[[[1, 2, 3, 0]], [[0, 1, 2, 3]]]]]
    """
    weight, b = raised_weight(weight), knobs["block"]
    spec = raised(spec)
    row = _Row.of(spec)
    k, _, *rows, S = weight.shape
    moved = np.zeros((-(-k // b) * b, *rows, row.shared, QUAD * row.quads), np.int8)
    for j in range(row.shared):
        begin = j * spec.strides[-1]
        moved[:k, ..., j, begin : begin + S] = weight[:, 0]
    lanes = moved.reshape(-1, b, *moved.shape[1:-1], row.quads, QUAD)
    return np.ascontiguousarray(np.moveaxis(lanes, 1, -2)).view(np.int32)[..., 0]


def compute(
    spec: ConvSpec, attributes: QuantizedConvAttributes, target: Target, knobs: Knobs
) -> list[te.Tensor]:
    """Return data, weight, bias, factor, what is added, result; blocks `acc` and what follows."""
    border = operands(spec, target, knobs).border
    spec = raised(spec)
    row, b = _Row.of(spec), knobs["block"]
    N, K, *points = spec.output
    blocks = -(-K // b)
    extents = border.around(spec.data[2:])
    x = te.placeholder((N, blocks, *extents, b), "uint8", name="data")
    shape = (blocks, *spec.kernel[:-1], row.shared, row.quads, b)
    w = te.placeholder(shape, "int32", name="weight")
    bias = Bias(attributes, blocks, b)
    taps = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(spec.kernel[:-1])]
    quad, times = te.reduce_axis((0, row.quads), "quad"), multiply(knobs)

    def product(n, k, *at):
        *p, q, lane = at
        axes = zip(p, spec.strides, taps, spec.dilations, strict=False)
        rows = [i * stride + r * dilation for i, stride, r, dilation in axes]
        first = q // row.shared * row.step + quad * QUAD
        left = quad_of([x(n, k, *rows, first + i, lane) for i in range(QUAD)])
        right = w(k, *taps, q % row.shared, quad, lane)
        return te.sum(times(left, right), axis=[*taps, quad])

    acc = te.compute((N, blocks, *points, b), product, name="acc")

    def whole(n, k, *at):
        return acc(n, k, *at) + bias(k, at[-1])

    return finished(attributes, (x, w, bias), acc.shape, whole, K)
