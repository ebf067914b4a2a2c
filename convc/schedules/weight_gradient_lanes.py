"""Weight gradient of a convolution in groups of few channels, depthwise ones among them: a vector is that many filters' own products.

THE ALGORITHM   dw[k, i, r, s] = sum over n, p, q of dy[n, k, p, q] x[n, c, p stride + r dilation, q stride + s dilation],
                c = (k / filters of a group) channels of a group + i: lane k of dy meets lane c of x, the same one if depthwise
                on x as NCHW[a]c with its halo, dy as NCHW[b]c; dw plain
                part[chunk, ...] = the sum over one chunk of rows of a few images, in registers: all taps by one vector of filters
                total = the sum of the parts, in the chunks' order
WHEN            1-D, 2-D, 3-D, every float type, groups of at most 16 channels, any stride, dilation and padding
COST            R S K C/group FMAs a point of dy, each with a load; groups of several channels gather their lanes
ACCURACY        as `weight_gradient`
SOURCE          Georganas et al., SC'18, section II-J, with one channel in the place of a block
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tvm import te, tirx

from convc.ir.ops.conv import accumulator
from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules.algorithm import Operands, channel_block, gathered_halo
from convc.schedules.divisors import divisors
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import Properties, sum_error
from convc.schedules.rank import raised
from convc.schedules.weight_gradient import (
    additions,
    chunks,
    in_chunks,
    pieces,
    registers_of_vector,
    work_of_product,
)
from convc.target import Target

__all__ = ["NAME", "ON_REQUEST", "compute", "cycles", "gradient_layout", "knobs", "knobs_within", "operands", "properties", "space", "supports"]  # fmt: skip

NAME = "grouped"
ON_REQUEST = ""

# Channels of a group: from 16 on a group is a block, which `weight_gradient` takes.
_MOST_CHANNELS = 16

# Times as long as a load, a gather of 16 lanes.
_GATHER = 8.0


def supports(spec: ConvSpec, target: Target) -> Unsupported | None:
    """Return why the convolution's weight gradient is not computed this way, or None."""
    if spec.group == 1:
        return Unsupported("groups must be several; got 1")
    if spec.weight[1] > _MOST_CHANNELS:
        return Unsupported(
            f"groups must have at most {_MOST_CHANNELS} channels; got {spec.weight[1]}"
        )
    return None


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return blocks, taps of a tile and chunk."""
    spec = raised(spec)
    *_, R, S = spec.kernel
    free = _free(spec, target)
    return {
        "data_block": channel_block(spec.in_channels, target),
        "block": channel_block(spec.out_channels, target),
        "tap_rows": next((r for r in range(R, 0, -1) if R % r == 0 and r * S <= free), 1),
        "tap_columns": next(s for s in range(S, 0, -1) if S % s == 0 and s <= free),
        **chunks(spec),
    }


def space(spec: ConvSpec, target: Target) -> Iterator[Knobs]:
    """Yield tiles of taps that fit the registers, each with every length of a chunk."""
    best, whole, free = knobs(spec, target), raised(spec), _free(spec, target)
    *_, R, S = whole.kernel
    for rows in reversed(divisors(R)):
        for columns in reversed(divisors(S)):
            if rows * columns <= free:
                for lengths in in_chunks(whole):
                    yield {**best, "tap_rows": rows, "tap_columns": columns, **lengths}


def _free(spec: ConvSpec, target: Target) -> int:
    """Return the accumulators that there is room for beside a vector of dy and one of x."""
    return target.registers // registers_of_vector(spec.dtype) - 2


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
    """Return the estimated cycles on one core: a load a vector of products, or a gather, and one of dy for all taps of a tile."""
    taps = knobs["tap_rows"] * knobs["tap_columns"]
    vectors = spec.flops / 2 / channel_block(spec.out_channels, target) * (taps + 1) / taps
    return work_of_product(spec.dtype) * vectors / 2 * (1.0 if spec.weight[1] == 1 else _GATHER)


def properties(spec: ConvSpec, knobs: Knobs) -> Properties:
    """Return them; the workspace is the sums over all chunks, in the kernel's order, before they are copied to their places."""
    sums = numpy_dtype(accumulator(spec.dtype)).itemsize * math.prod(_sums(raised(spec), knobs))
    return Properties(spec.flops, sums, sum_error(additions(spec, knobs)))


def _sums(spec: ConvSpec, knobs: Knobs) -> tuple[int, ...]:
    """Return the shape of the sums: blocks of filters, channels of a group, taps, lanes."""
    b = knobs["block"]
    return (-(-spec.out_channels // b), spec.weight[1], *spec.kernel, b)


def compute(spec: ConvSpec, knobs: Knobs) -> list[te.Tensor]:
    """Return x, dy, dw; blocks `part` (a chunk's sum), `total` (over the chunks) and `unpack`."""
    weight, spec = spec.weight, raised(spec)
    a, b, rank = knobs["data_block"], knobs["block"], spec.rank
    (N, K, *points), group_c = spec.output, spec.weight[1]
    group_k, k_blocks = K // spec.group, -(-K // b)
    extents = gathered_halo(spec).around(spec.data[2:])
    c_blocks = -(-spec.in_channels // a)
    x = te.placeholder((N, c_blocks, *extents, a), spec.dtype, name="data")
    dy = te.placeholder((N, k_blocks, *points, b), spec.dtype, name="gradient")
    axes, counts, place = pieces(spec, knobs)
    wide = accumulator(spec.dtype)

    def product(*at):
        (image, *out), (k, i, *taps, lane) = place(at[:rank]), at[rank:]
        channel = (k * b + lane) // group_k * group_c + i
        if K % b:
            # Lanes beyond the last filter, whose gradients are zeros and which nobody reads.
            channel = tirx.min(channel, spec.in_channels - 1)
        at_x = [
            o * s + r * d
            for o, r, s, d in zip(out, taps, spec.strides, spec.dilations, strict=True)
        ]
        value, gradient = x[(image, channel // a, *at_x, channel % a)], dy[(image, k, *out, lane)]
        return te.sum(value.astype(wide) * gradient.astype(wide), axis=axes)

    shape = _sums(spec, knobs)
    part = te.compute((*counts, *shape), product, name="part")
    chunk = [te.reduce_axis((0, count), f"chunk{i}") for i, count in enumerate(counts)]
    total = te.compute(shape, lambda *i: te.sum(part(*chunk, *i), axis=chunk), name="total")

    def unpack(k, i, *taps):
        at = taps if len(taps) == rank else (0, *taps)
        return total(k // b, i, *at, k % b).astype(spec.dtype)

    return [x, dy, te.compute(weight, unpack, name="unpack")]
