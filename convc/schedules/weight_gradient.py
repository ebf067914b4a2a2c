"""Weight gradient of a convolution on channel blocks: a matrix product (C R S) x (N P Q) x K that never builds its patches.

THE ALGORITHM   dw[k, c, r, s] = sum over n, p, q of dy[n, k, p, q] x[n, c, p stride + r dilation, q stride + s dilation]
                on x as NCHW[a]c with its halo, dy as NCHW[b]c; dw plain
                part[chunk, ...] = the sum over one chunk of rows of a few images, in registers: a tile of input channels (of taps,
                where the data has no blocks) by vectors of output channels; total = the sum of the parts, in the chunks' order
WHEN            1-D, 2-D, float32, one group, any stride, dilation and padding
COST            C R S K FMAs a point of dy; each chunk of x and dy stays in L2 for all taps and channels of a tile's row
ACCURACY        one chain a chunk, then one chain over chunks: |error| <= (chunk + chunks) eps (|dy| * |x|), always in this order
SOURCE          Georganas et al., SC'18, section II-J (weight update on blocked tensors)
"""

from __future__ import annotations

from tvm import te

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, channel_block, gathered_halo
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised
from convc.target import Target

__all__ = ["compute", "cycles", "gradient_layout", "knobs", "operands", "supports"]

# Up to this many input channels the data stays NCHW and a tile is taps by vectors; as in `direct`.
_FEW_CHANNELS = 4

# Points of a chunk: more than 100 steps hide a tile's loads and stores (16 vectors each way), and x and dy of it fit L2.
_POINTS = 160

# Input channels of a tile: 8 by 2 vectors are 16 chains of FMAs with 10 loads a step, 8 by 3 are 24.
_TILE = 8


def supports(spec: ConvSpec, target: Target) -> Unsupported | None:
    """Return why the convolution's weight gradient is not computed this way, or None.

    Args:
        spec: the forward convolution.
        target: the machine.
    """
    if spec.rank > 2:
        return Unsupported(f"data must have at most 2 spatial dimensions; got {spec.rank}")
    if spec.group > 1:
        return Unsupported(f"group must be 1; got {spec.group}")
    if spec.dtype != "float32":
        return Unsupported(f"element type must be float32; got {spec.dtype}")
    if spec.in_channels <= _FEW_CHANNELS and spec.kernel[-1] > _TILE:
        return Unsupported(
            f"filter must have at most {_TILE} columns for data of up to {_FEW_CHANNELS} channels; got {spec.kernel}"
        )
    return None


def _divisor(n: int, most: int) -> int:
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= max(1, most))


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return blocks, tile and chunk."""
    spec = raised(spec)
    block = channel_block(spec.out_channels, target)
    c = spec.in_channels
    a = 1 if c <= _FEW_CHANNELS else channel_block(c, target)
    blocks = -(-spec.out_channels // block)
    # Registers: the accumulators, the vectors of dy and one broadcast.
    points = spec.kernel[1] if a == 1 else min(a, _TILE)
    fits = [
        v for v in (2, 3, 1) if blocks % v == 0 and points * v + v + 1 <= target.registers
    ]  # fmt: skip
    P, Q = spec.output[2:]
    rows = _divisor(P, _POINTS // Q)
    images = _divisor(spec.data[0], _POINTS // (rows * Q))
    return {
        "data_block": a,
        "block": block,
        "vectors": fits[0] if fits else 1,
        "points": points,
        "rows": rows,
        "images": images,
    }


def operands(spec: ConvSpec, knobs: Knobs) -> Operands:
    """Return the layouts of x and of the result; dy's is `gradient_layout`."""
    border = gathered_halo(spec)
    return Operands(Layout(knobs["data_block"], border), border, PLAIN)


def gradient_layout(knobs: Knobs) -> Layout:
    """Return the layout of dy."""
    return Layout(knobs["block"], Halo())


def cycles(spec: ConvSpec, target: Target) -> float:
    """Return the FMA cycles, of whole blocks."""
    return spec.flops / target.flops_per_cycle


def compute(spec: ConvSpec, knobs: Knobs) -> list[te.Tensor]:
    """Return x, dy, dw; blocks `part` (a chunk's sum), `total` (over the chunks) and `unpack`."""
    spec = raised(spec)
    a, b, v = knobs["data_block"], knobs["block"], knobs["vectors"]
    (N, K, P, Q), (R, S) = spec.output, spec.kernel
    (sh, sw), (dh, dw) = spec.strides, spec.dilations
    rows, images = knobs["rows"], knobs["images"]
    c_blocks, k_blocks = -(-spec.in_channels // a), -(-K // b)
    extents = gathered_halo(spec).around(spec.data[2:])
    x = te.placeholder((N, c_blocks, *extents, a), spec.dtype, name="data")
    dy = te.placeholder((N, k_blocks, P, Q, b), spec.dtype, name="gradient")
    n, p, q = (te.reduce_axis((0, e), t) for e, t in ((images, "n"), (rows, "p"), (Q, "q")))

    def product(batch, chunk, k, c, r, s, ci, vector, lane):
        image, row = batch * images + n, chunk * rows + p
        return te.sum(
            x[image, c, row * sh + r * dh, q * sw + s * dw, ci]
            * dy[image, k * v + vector, row, q, lane],
            axis=[n, p, q],
        )

    shape = (k_blocks // v, c_blocks, R, S, a, v, b)
    part = te.compute((N // images, P // rows, *shape), product, name="part")
    batch = te.reduce_axis((0, N // images), "batch")
    chunk = te.reduce_axis((0, P // rows), "chunk")
    total = te.compute(
        shape, lambda *i: te.sum(part(batch, chunk, *i), axis=[batch, chunk]), name="total"
    )

    def unpack(k, c, *taps):
        at = taps if len(taps) == 2 else (0, *taps)
        lane = k % (v * b)
        return total(k // (v * b), c // a, *at, c % a, lane // b, lane % b)

    weight = (K, spec.in_channels, R, S)
    return [x, dy, te.compute(weight, unpack, name="unpack")]
