"""Weight gradient of a convolution on channel blocks: a matrix product (C R S) x (N P Q) x K that never builds its patches.

THE ALGORITHM   dw[k, c, r, s] = sum over n, p, q of dy[n, k, p, q] x[n, c, p stride + r dilation, q stride + s dilation]
                on x as NCHW[a]c with its halo, dy as NCHW[b]c; dw plain
                part[chunk, ...] = the sum over one chunk of rows of a few images, in registers: a tile of input channels (of taps,
                where the data has no blocks) by vectors of output channels; total = the sum of the parts, in the chunks' order
                groups smaller than a block: a vector of filters meets all channels of its groups; only the products within a group
                are read off at the end
WHEN            1-D, 2-D, 3-D, every float type (half types are widened as they are read), any stride, dilation and padding;
                one group, groups of whole blocks or several to a block
COST            C R S K FMAs a point of dy (C of its groups); each chunk of x and dy stays in L2 for all taps and channels of a tile's row
ACCURACY        one chain a chunk, then one chain over chunks: |error| <= (chunk + chunks) eps (|dy| * |x|), always in this order
SOURCE          Georganas et al., SC'18, section II-J (weight update on blocked tensors)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tvm import te

from convc.ir.ops.conv import accumulator
from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules.algorithm import Operands, channel_block, gathered_halo
from convc.schedules.divisors import divisors, greatest_divisor
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import Properties, sum_error
from convc.schedules.rank import raised
from convc.target import Target

__all__ = [
    "NAME",
    "ON_REQUEST",
    "additions",
    "chunks",
    "compute",
    "cycles",
    "gradient_layout",
    "in_chunks",
    "knobs",
    "knobs_within",
    "operands",
    "pieces",
    "properties",
    "registers_of_vector",
    "space",
    "supports",
    "work_of_product",
]

NAME = "blocked"
ON_REQUEST = ""

# Up to this many input channels the data stays NCHW and a tile is taps by vectors; as in `direct`.
_FEW_CHANNELS = 4

# Points of a chunk: more than 100 steps hide a tile's loads and stores (16 vectors each way), and x and dy of it fit L2.
_POINTS = 160

# And those to measure: a shorter chunk's x and dy fit L1, a longer one's sums are stored less often.
_TRIED = (40, 80, 160, 320, 640, 1280)

# Input channels of a tile: 8 by 2 vectors are 16 chains of FMAs with 10 loads a step, 8 by 3 are 24.
_TILE = 8
# Two FMAs a cycle, each of four cycles. Tiles of 1, 2, 4, 8, 16 chains took 5.4, 4.4, 3.0, 2.3, 2.1 ms (3x3, 32 groups of 4, 28 x 28).
_CHAINS = 8
# Vectors of a tile, the best first.
_VECTORS = (2, 3, 1)


def supports(spec: ConvSpec, target: Target) -> Unsupported | None:
    """Return why the convolution's weight gradient is not computed this way, or None.

    Args:
        spec: the forward convolution.
        target: the machine.
    """
    group_c, group_k = spec.weight[1], spec.out_channels // spec.group
    whole = group_c > _FEW_CHANNELS and not (
        group_c % channel_block(group_c, target) or group_k % channel_block(group_k, target)
    )
    if spec.group > 1 and not whole and _shared_block(spec, target) is None:
        return Unsupported(
            f"groups must be whole blocks of channels, or blocks whole groups of several; got {group_c} and {group_k} channels a group"
        )
    if spec.in_channels <= _FEW_CHANNELS and spec.kernel[-1] > _TILE:
        return Unsupported(
            f"filter must have at most {_TILE} columns for data of up to {_FEW_CHANNELS} channels; got {spec.kernel}"
        )
    return None


def _shared_block(spec: ConvSpec, target: Target) -> tuple[int, int, int] | None:
    """Return the block of dy, that of x, and how many of x belong to one of dy, where blocks hold several whole groups."""
    group_c, group_k = spec.weight[1], spec.out_channels // spec.group
    block = channel_block(spec.out_channels, target)
    if group_c == 1 or spec.out_channels % block or block % group_k or group_k == block:
        return None
    span = block // group_k * group_c
    sizes = (size for size in (target.lanes, target.lanes // 2) if span % size == 0)
    a = next(sizes, 0)
    return (block, a, span // a) if a else None


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return blocks, tile and chunk."""
    spec = raised(spec)
    group_c, group_k = spec.weight[1], spec.out_channels // spec.group
    if spec.group > 1 and (shared := _shared_block(spec, target)) is not None:
        block, a, span = shared
        # One vector a point: 16 points are as many chains as elsewhere 8 points by 2 vectors.
        size = registers_of_vector(spec.dtype)
        points = max(p for p in divisors(a) if _registers(p, 1, size) <= target.registers)
        tile = {"data_block": a, "block": block, "vectors": 1, "points": points}
        return {**tile, "span": span, **chunks(spec)}
    block = channel_block(group_k, target)
    a = 1 if group_c <= _FEW_CHANNELS else channel_block(group_c, target)
    blocks = -(-group_k // block)
    points = spec.kernel[-1] if a == 1 else min(a, _TILE)
    size = registers_of_vector(spec.dtype)
    fits = [v for v in _VECTORS if blocks % v == 0 and _registers(points, v, size) <= target.registers]  # fmt: skip
    return {
        "data_block": a,
        "block": block,
        "vectors": fits[0] if fits else 1,
        "points": points,
        "span": 0,
        **chunks(spec),
    }


def space(spec: ConvSpec, target: Target) -> Iterator[Knobs]:
    """Yield tiles that fit the registers, each with every length of a chunk; blocks are the layers' own, others would cost copies."""
    best, size = knobs(spec, target), registers_of_vector(spec.dtype)
    whole = raised(spec)
    wide = whole.kernel[-1] if best["data_block"] == 1 else best["data_block"]
    blocks = -(-whole.out_channels // whole.group // best["block"])
    for vectors in (1,) if best["span"] else _VECTORS:
        for points in reversed(divisors(wide)):
            if blocks % vectors == 0 and _registers(points, vectors, size) <= target.registers:
                for lengths in in_chunks(whole):
                    yield {**best, "vectors": vectors, "points": points, **lengths}


def _registers(points: int, vectors: int, size: int) -> int:
    """Return what a tile takes: the accumulators, the vectors of dy and one broadcast."""
    return size * (points * vectors + vectors) + 1


def registers_of_vector(dtype: str) -> int:
    """Return the registers that one block's sums take: blocks are as many channels as a register holds of float32."""
    return 2 if accumulator(dtype) == "float64" else 1


def work_of_product(dtype: str) -> float:
    """Return a product's work in float32 ones: half as many float64 fit a register, half types are converted first."""
    return 1.0 if dtype == "float32" else 2.0


def chunks(spec: ConvSpec, points: int = _POINTS) -> Knobs:
    """Return the rows, of one plane of how many images, that a chunk of the sum is over: of so many points at most."""
    *_, P, Q = spec.output
    rows = greatest_divisor(P, points // Q)
    return {"rows": rows, "images": greatest_divisor(spec.data[0], points // (rows * Q))}


def in_chunks(spec: ConvSpec) -> list[Knobs]:
    """Return the chunks to measure, each once."""
    found = {tuple(knobs.values()): knobs for knobs in (chunks(spec, n) for n in _TRIED)}
    return list(found.values())


def additions(spec: ConvSpec, knobs: Knobs) -> int:
    """Return the length of a chunk's chain and of the one over the chunks."""
    whole = raised(spec)
    points = knobs["rows"] * knobs["images"] * whole.output[-1]
    return points + whole.data[0] * math.prod(whole.output[2:]) // points


def pieces(
    spec: ConvSpec, knobs: Knobs
) -> tuple[list[te.IterVar], list[int], Callable[[Sequence[Any]], tuple[Any, ...]]]:
    """Return a chunk's sum: the axes inside it, how many chunks there are along each axis outside, and where a point of one lies.

    The last maps (batch, planes..., chunk) to (image, position in the result...).
    """
    (N, _, *planes, P, Q), rows, images = spec.output, knobs["rows"], knobs["images"]
    n, p, q = (te.reduce_axis((0, e), t) for e, t in ((images, "n"), (rows, "p"), (Q, "q")))

    def place(at: Sequence[Any]) -> tuple[Any, ...]:
        batch, *plane, chunk = at
        return (batch * images + n, *plane, chunk * rows + p, q)

    return [n, p, q], [N // images, *planes, P // rows], place


def operands(spec: ConvSpec, knobs: Knobs) -> Operands:
    """Return the layouts of x and of the result; dy's is `gradient_layout`."""
    border = gathered_halo(spec)
    return Operands(Layout(knobs["data_block"], border), border, PLAIN)


def gradient_layout(knobs: Knobs) -> Layout:
    """Return the layout of dy."""
    return Layout(knobs["block"], Halo())


def knobs_within(spec: ConvSpec, target: Target, policy: Policy) -> Knobs:
    """Return `knobs`, which no policy bounds."""
    return knobs(spec, target)


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return the FMA cycles, of whole blocks; more where a tile loads more than it multiplies, or has too few chains of FMAs."""
    shared = _shared_block(spec, target) if spec.group > 1 else None
    more = shared[1] * shared[2] / spec.weight[1] if shared else 1.0
    points, vectors = knobs["points"], knobs["vectors"]
    tile = max(1.0, (points + vectors) / (points * vectors), _CHAINS / (points * vectors))
    return work_of_product(spec.dtype) * tile * more * spec.flops / target.flops_per_cycle


def properties(spec: ConvSpec, knobs: Knobs) -> Properties:
    """Return them; the workspace is the sums over all chunks, in the kernel's order, before they are copied to their places."""
    sums = numpy_dtype(accumulator(spec.dtype)).itemsize * math.prod(_sums(raised(spec), knobs))
    return Properties(spec.flops, sums, sum_error(additions(spec, knobs)))


def _sums(spec: ConvSpec, knobs: Knobs) -> tuple[int, ...]:
    """Return the shape of the sums: vectors of filters, blocks of input channels (of a group), taps, a block, vectors, lanes."""
    a, b, v, span = (knobs[name] for name in ("data_block", "block", "vectors", "span"))
    # Of a group: where there are several, they are whole blocks, or a block of dy meets `span` blocks of x.
    return (-(-spec.out_channels // b) // v, span or -(-spec.weight[1] // a), *spec.kernel, a, v, b)


def compute(spec: ConvSpec, knobs: Knobs) -> list[te.Tensor]:
    """Return x, dy, dw; blocks `part` (a chunk's sum), `total` (over the chunks) and `unpack`."""
    weight, spec = spec.weight, raised(spec)
    shape, rank, span = _sums(spec, knobs), spec.rank, knobs["span"]
    (N, K, *points), (k_groups, c_blocks, *_, a, v, b) = spec.output, shape
    parts = k_groups if span else spec.group
    extents = gathered_halo(spec).around(spec.data[2:])
    x = te.placeholder((N, c_blocks * parts, *extents, a), spec.dtype, name="data")
    dy = te.placeholder((N, k_groups * v, *points, b), spec.dtype, name="gradient")
    axes, counts, place = pieces(spec, knobs)
    wide = accumulator(spec.dtype)

    def product(*at):
        (image, *out), (k, c, *taps, ci, vector, lane) = place(at[:rank]), at[rank:]
        if parts > 1:
            c = k // (k_groups // parts) * c_blocks + c
        at_x = [
            o * s + r * d
            for o, r, s, d in zip(out, taps, spec.strides, spec.dilations, strict=True)
        ]
        value, gradient = x[(image, c, *at_x, ci)], dy[(image, k * v + vector, *out, lane)]
        return te.sum(value.astype(wide) * gradient.astype(wide), axis=axes)

    part = te.compute((*counts, *shape), product, name="part")
    chunk = [te.reduce_axis((0, count), f"chunk{i}") for i, count in enumerate(counts)]
    total = te.compute(shape, lambda *i: te.sum(part(*chunk, *i), axis=chunk), name="total")

    def unpack(k, c, *taps):
        at = taps if len(taps) == rank else (0, *taps)
        lane = k % (v * b)
        if span:
            c = lane // (K // spec.group) * weight[1] + c
        return total(k // (v * b), c // a, *at, c % a, lane // b, lane % b).astype(spec.dtype)

    return [x, dy, te.compute(weight, unpack, name="unpack")]
