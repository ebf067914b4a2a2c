"""Convolution of 8-bit integers on channel blocks: `direct` with four products to a lane where the CPU has an instruction for them.

THE ALGORITHM   acc[n, k, p, q] = sum over c, r, s of (x[n, c, ...] - x_zero) w[k, c, r, s] in int32, on x as NCHW[a]c, uint8; the
                zero point's part, x_zero times the sum of k's weights, is in the bias
                quads: x and w read as int32 of four channels each: acc += x0 w0 + x1 w1 + x2 w2 + x3 w3, one vpdpbusd
                q = saturate(round(acc factor[k])); y = q + y_zero, or saturate(round(q own + r other + shift)) + y_zero, r being other
                bytes; or acc factor[k] as a float
                transposed: the sums of `subpixel`, quads as above; what the filter's other taps read is the zero point, so that each
                phase has a bias of its own
                one to three channels: four bytes of a row in the instruction, see `quantized_rows`
                depthwise: four taps of a row in the instruction, see `quantized_taps`; without it, or with taps apart, the sums of
                `depthwise` in float32, which holds them exactly: 9 products of bytes are below 2^19 of 2^24
WHEN            constant int8 weights of zero point 0, one scale a channel; 1-D, 2-D, 3-D, any stride, dilation and group
COST            C/group R S / 4 steps of the register tile an output point; without the instruction as many as `direct`
ACCURACY        exact sums; one multiplication in float32 and one rounding, ties to even: y + 1.5 2^23 has the rounded y in its last bits
SOURCE          Jacob et al., CVPR'18, section 2.4; ONNX QLinearConv-10
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import numpy as np
from tvm import te

from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.spec import ConvSpec
from convc.schedules import clipping, quantized_phases, quantized_rows, quantized_taps
from convc.schedules.algorithm import Operands, Problem, gathered_halo
from convc.schedules.depthwise import ALGORITHM as DEPTHWISE
from convc.schedules.depthwise import sums_over_data
from convc.schedules.direct import ALGORITHM as DIRECT
from convc.schedules.layout import Layout, View
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.quads import QUAD, in_quads, multiply, seen_as, tile_knobs
from convc.schedules.rank import raised
from convc.schedules.register_tile import Tile, tile_cycles
from convc.schedules.requantized import Bias, finished
from convc.schedules.span import Span
from convc.target import Target

__all__ = ["as_read", "compute", "cycles", "is_depthwise", "knobs", "name", "of_layer", "operands", "pack", "posed", "reason", "remark", "saturates", "space", "supports"]  # fmt: skip

name = "quantized"

# Below it a float32 times 2^31 is a float32 below 2^31.
_LEAST_UNSAFE: Final = 1.0

# Of a tile's products: what is left where tests for padding are worth their time.
_CLIPPED: Final = 0.97

# Of a byte less its zero point.
_MOST_ADDED: Final = 512

# 255 x 128 each: the sum of so many is below 2^24, and every partial one whole.
_EXACT_PRODUCTS: Final = 512


def supports(spec: ConvSpec, target: Target) -> Unsupported | None:
    """Return None: there is no layer of bytes that it does not take."""
    return None


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return blocks and tile."""
    if _is_of_one(spec) and quantized_taps.applies(spec, target):
        return quantized_taps.knobs(spec, target)
    if is_depthwise(spec):
        return {
            **DEPTHWISE.knobs(_in_floats(spec), target),
            "block": target.lanes,
            "dot": 0,
            "depthwise": 1,
        }
    if quantized_rows.applies(spec, target):
        return quantized_rows.knobs(spec, target)
    if spec.transposed:
        return quantized_phases.knobs(spec, target)
    spec = raised(spec)
    return tile_knobs(spec, target, *spec.output[-2:])


def posed(spec: ConvSpec) -> ConvSpec:
    """Return a layer of images of one point each, the rows of a dense layer, as one of the points of one image; others as they are.

    The register tile is of points of an image: one of 197 images of one point (a transformer's tokens) ran at 39 % of the instruction's
    rate.

    Example:
        >>> posed(ConvSpec.of((197, 64, 1, 1), (192, 64, 1, 1))).output
        (1, 192, 1, 197)
    """
    N, C, *points = spec.data
    one = math.prod(points) == 1 and spec.is_pointwise and not any(spec.pads)
    if N == 1 or spec.rank != 2 or spec.group > 1 or spec.transposed or not one:
        return spec
    return replace(spec, data=(1, C, 1, N), strides=(1, 1))


def space(spec: ConvSpec, target: Target) -> tuple[Knobs, ...]:
    """Return the one setting that there is."""
    return (knobs(spec, target),)


def is_depthwise(spec: ConvSpec) -> bool:
    """Whether the layer is depthwise, its sums exact in float32 and over taps: those over the data take padding for zeros."""
    exact = math.prod(spec.kernel) <= _EXACT_PRODUCTS
    return _is_of_one(spec) and exact and not sums_over_data(raised(spec))


def _is_of_one(spec: ConvSpec) -> bool:
    """Whether each result is of one channel, its own."""
    one = spec.group == spec.in_channels == spec.out_channels and spec.group > 1
    return one and not spec.transposed


def _in_floats(spec: ConvSpec) -> Problem:
    return Problem(replace(spec, dtype="float32"))


def operands(spec: ConvSpec, target: Target, knobs: Knobs) -> Operands:
    """Return the layouts."""
    if knobs.get("taps"):
        return quantized_taps.operands(spec, target, knobs)
    if knobs.get("depthwise"):
        return DEPTHWISE.operands(_in_floats(spec), target, knobs)
    if knobs.get("row"):
        return quantized_rows.operands(spec, target, knobs)
    if spec.transposed:
        return quantized_phases.operands(spec, target, knobs)
    border = gathered_halo(spec)
    return Operands(Layout(knobs["data_block"], border), border, Layout(knobs["block"]))


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return the cycles of all tiles."""
    if knobs.get("taps"):
        return quantized_taps.cycles(spec, target, knobs)
    if knobs.get("depthwise"):
        return DEPTHWISE.cycles(_in_floats(spec), target, knobs)
    if knobs.get("row"):
        return quantized_rows.cycles(spec, target, knobs)
    if spec.transposed:
        return quantized_phases.cycles(spec, target, knobs)
    spec = raised(spec)
    tile = Tile(knobs["rows"], knobs["cols"], knobs["vectors"])
    vectors = -(-spec.out_channels // knobs["block"])
    channels = _span(spec, knobs).blocks * knobs["data_block"] / (QUAD if knobs["dot"] else 1)
    steps = spec.data[0] * math.prod(spec.output[2:-2]) * channels * math.prod(spec.kernel)
    rows, cols = spec.output[-2:]
    return steps * tile_cycles(target, tile, rows, cols, vectors, knobs["block"])


def clips(spec: ConvSpec, attributes: QuantizedConvAttributes, knobs: Knobs) -> bool:
    """Return whether tiles skip the taps that they would read from padding alone, which must add nothing, see `clipping`."""
    apart = {"taps", "depthwise", "row"} & set(knobs)
    if apart or spec.transposed or attributes.pad or attributes.dynamic:
        return False
    spec = raised(spec)
    tile = (*[1] * (spec.rank - 2), knobs["rows"], knobs["cols"])
    return clipping.share(spec, tile) < _CLIPPED


def saturates(attributes: QuantizedConvAttributes, factor: np.ndarray, target: Target) -> bool:
    """Return whether results may be made bytes by way of int32: the CPU packs vectors of them, and no sum times its factor is beyond.

    A sum is at most 2^31; a result that something is added to and what is added are of the magnitude of bytes, times their scales.
    """
    if attributes.added:
        own, other, shift = map(abs, attributes.added)
        small = _MOST_ADDED * (own + other) + shift < 2**30
    else:
        small = float(np.abs(factor).max(initial=0.0)) < _LEAST_UNSAFE
    return attributes.dtype != "float32" and small and "avx512bw" in target.features and target.lanes == 16  # fmt: skip


def of_layer(
    spec: ConvSpec, attributes: QuantizedConvAttributes, knobs: Knobs, factor: np.ndarray | None, target: Target
) -> Knobs:  # fmt: skip
    """Return whether taps are skipped, see `clips`, whether scales are known at run time only, or else whether results are packed."""
    clip = {"clip": 1} if clips(spec, attributes, knobs) else {}
    if factor is None:
        return {**clip, "dynamic": 1}
    return {**clip, "packs": int(saturates(attributes, factor, target))}


def as_read(view: View, knobs: Knobs) -> View:
    """Return the data as the instruction reads them: quads of channels, rows of bytes, or bytes of which the kernel makes quads."""
    if knobs.get("row"):
        return view.in_rows()
    return view.words(4) if knobs["dot"] and not knobs.get("taps") else view


def reason(knobs: Knobs) -> str:
    """Return how the kernel multiplies."""
    if knobs.get("taps"):
        return "four taps an instruction"
    if knobs["dot"]:
        return "four products an instruction"
    if knobs.get("depthwise"):
        return "exact sums in float32"
    return "one product at a time: the CPU has no avx512vnni"


def remark(knobs: Knobs, target: Target) -> str:
    """Return that the CPU lacks the instruction, where a kernel needs it; depthwise ones do not."""
    if knobs["dot"] or knobs.get("depthwise") or knobs.get("taps"):
        return ""
    return f"run one product at a time: {target.mcpu} has no instruction for four (avx512vnni). --dequantize may be faster."


def pack(weight: np.ndarray, spec: ConvSpec, knobs: Knobs) -> np.ndarray:
    """Return int8 weights as [K/(v b)][C/a][R][S][a][v b]; with quads [..][a/4][v b] int32 of four channels each."""
    if knobs.get("taps"):
        return quantized_taps.pack(weight, spec, knobs)
    if knobs.get("depthwise"):
        return DEPTHWISE.pack(weight.astype(np.float32), _in_floats(spec), knobs)
    if knobs.get("row"):
        return quantized_rows.pack(weight, spec, knobs)
    if spec.transposed:
        return quantized_phases.pack(weight, spec, knobs)
    packed = DIRECT.pack(weight, Problem(spec), knobs)
    return in_quads(packed) if knobs["dot"] else packed


def compute(
    spec: ConvSpec, attributes: QuantizedConvAttributes, target: Target, knobs: Knobs
) -> list[te.Tensor]:
    """Return data, weight, bias, factor, result; blocks `acc` and what follows."""
    if knobs.get("taps"):
        return quantized_taps.compute(spec, attributes, target, knobs)
    if knobs.get("depthwise"):
        x, w, sums = DEPTHWISE.compute(_in_floats(spec), target, knobs)
        bias = Bias(attributes, int(sums.shape[1]), knobs["block"])

        def whole(n, k, *at):
            return sums(n, k, *at).astype("int32") + bias(k, at[-1])

        return finished(attributes, (x, w, bias), sums.shape, whole, spec.out_channels)
    if knobs.get("row"):
        return quantized_rows.compute(spec, attributes, target, knobs)
    if spec.transposed:
        return quantized_phases.compute(spec, attributes, target, knobs)
    spec = raised(spec)
    a, b, v = knobs["data_block"], knobs["block"], knobs["vectors"]
    N, K, *points = spec.output
    extents = gathered_halo(spec).around(spec.data[2:])
    blocks, span = -(-K // b), _span(spec, knobs)
    wide = -(-blocks // v)
    steps, kinds = seen_as(a, knobs)
    times = multiply(knobs)
    x = te.placeholder((N, span.all_blocks, *extents, steps), kinds[0], name="data")
    w = te.placeholder((wide, span.blocks, *spec.kernel, steps, v * b), kinds[1], name="weight")
    bias = Bias(attributes, blocks, b)
    co, ci, channels = _channels(spec, span, steps, knobs)
    taps = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(spec.kernel)]

    def product(n, k, *at):
        *p, lane = at
        axes = zip(p, spec.strides, taps, spec.dilations, strict=True)
        position = [i * stride + r * dilation for i, stride, r, dilation in axes]
        left, right = x(n, span.first(k) + co, *position, ci), w(k, co, *taps, ci, lane)
        return te.sum(times(left, right), axis=[*channels[:-1], *taps, channels[-1]])

    clip = {clipping.ANNOTATION: clipping.reach(spec)} if knobs.get("clip") else {}
    acc = te.compute((N, wide, *points, v * b), product, name="acc", attrs=clip)

    def whole(n, k, *at):
        return acc(n, k // v, *at[:-1], k % v * b + at[-1]) + bias(k, at[-1])

    return finished(attributes, (x, w, bias), (N, blocks, *points, b), whole, K)


def _channels(spec: ConvSpec, span: Span, steps: int, knobs: Knobs) -> tuple[Any, Any, list[Any]]:
    """Return a product's block of channels and step in it, and the axes that are summed over.

    One tap's are one axis, which ends with the last quad that holds a channel: 24 channels are 6, where two blocks are 8.
    """
    quads = -(-spec.in_channels // QUAD)
    if knobs["dot"] and spec.group == 1 and spec.is_pointwise and quads < span.blocks * steps:
        quad = te.reduce_axis((0, quads), "quad")
        return quad // steps, quad % steps, [quad]
    axes = [te.reduce_axis((0, span.blocks), "co"), te.reduce_axis((0, steps), "ci")]
    return *axes, axes


def _span(spec: ConvSpec, knobs: Knobs) -> Span:
    return Span.of(spec, knobs["data_block"], knobs["vectors"] * knobs["block"])
