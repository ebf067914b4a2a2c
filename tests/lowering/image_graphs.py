"""Random networks on images whose channels are no multiples of anything, with arithmetic that is exact in float32."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from convc.ir import Graph, GraphBuilder, Step, TensorType
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, DenseAttributes
from convc.ir.ops.elementwise import ClipAttributes, LeakyAttributes
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes
from convc.ir.ops.shape import (
    ConcatAttributes,
    PadAttributes,
    PickChannelsAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
    TransposeAttributes,
)

CHANNELS = (1, 3, 5, 8, 15, 16, 17, 24, 32, 33)
# After each sum: keeps every value a whole number below 2^24.
BOUND = Step("clip", (-8.0, 8.0))


def _weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)


def _extras(draw, b, channels, result, seed) -> tuple[list[str], tuple[Step, ...]]:
    """Return an epilogue: bias or not, a residual where a value of that type is there, an activation, and the bound."""
    operands, steps = [], []
    if draw(st.booleans()):
        operands.append(b.constant(_weights(seed + 1, channels), "bias"))
        steps.append(Step("bias"))
    alike = [v for v in b._nodes if b.type(v) == result]
    if alike and draw(st.booleans()):
        operands.append(draw(st.sampled_from(alike)))
        steps.append(Step("add"))
    if draw(st.booleans()):
        # Both make something else of the zeros beyond the last channel.
        steps.append(draw(st.sampled_from([Step("clip", (1.0, 4.0)), Step("relu")])))
    return operands, (*steps, BOUND)


def _conv(draw, b, value, seed):
    _n, c, h, w = b.type(value).shape
    kind = draw(st.sampled_from(["one", "three", "three", "depthwise", "groups", "dilated"]))
    k = draw(st.sampled_from(CHANNELS))
    kernel, group, dilation = {"one": 1}.get(kind, 3), 1, 1
    if kind == "depthwise":
        k = group = c
    elif kind == "groups":
        group = next(g for g in (4, 3, 2, 1) if c % g == 0)
        k = group * draw(st.sampled_from([1, 2, 16]))
    elif kind == "dilated":
        dilation = 2
    pads = tuple(draw(st.integers(0, 2)) for _ in range(4)) if kernel > 1 else (0,) * 4
    covered = dilation * (kernel - 1) + 1
    if h + pads[0] + pads[2] < covered or w + pads[1] + pads[3] < covered:
        pads = (dilation,) * 4
    strides = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1)]))
    weight = b.constant(_weights(seed, k, c // group, kernel, kernel), "w")
    bare = ConvAttributes(strides, pads, (dilation,) * 2, group)
    result = _type(b, "conv", [value, weight], bare)
    operands, steps = _extras(draw, b, k, result, seed)
    attributes = ConvAttributes(strides, pads, (dilation,) * 2, group, steps)
    return b.add("conv", [value, weight, *operands], attributes)


def _type(b, op, inputs, attributes) -> TensorType:
    from convc.ir.ops import op_named

    return op_named(op).infer([b.type(i) for i in inputs], attributes)


def _up(draw, b, value, seed):
    _, c, h, w = b.type(value).shape
    if max(h, w) > 6:
        return None
    k, (kernel, pad) = draw(st.sampled_from(CHANNELS)), draw(st.sampled_from([(2, 0), (4, 1)]))
    weight = b.constant(_weights(seed, c, k, kernel, kernel), "w")
    result = TensorType((b.type(value).shape[0], k, 2 * h, 2 * w))
    operands, steps = _extras(draw, b, k, result, seed)
    attributes = ConvTransposeAttributes((2, 2), (pad,) * 4, epilogue=steps)
    return b.add("conv_transpose", [value, weight, *operands], attributes)


def _elementwise(draw, b, value, seed):
    shape = b.type(value).shape
    row = draw(
        st.sampled_from(
            ["relu", "clip", "leaky", "abs", "shift", "scale", "floor", "ratio", "plane"]
        )
    )
    if row == "clip":
        return b.add("clip", [value], ClipAttributes(1.0, 5.0))
    if row == "leaky":
        return b.add("floor", [b.add("leaky_relu", [value], LeakyAttributes(0.5))])
    if row == "ratio":  # 0 / 0 beyond the last channel
        positive = b.add("clip", [value], ClipAttributes(1.0, 4.0))
        return b.add("div", [positive, positive])
    if row in ("shift", "scale"):
        shapes = [(), (1,), (1, 1, 1, 1), (1, shape[1], 1, 1), (shape[1], 1, 1), shape]
        other = b.constant(_weights(seed, *draw(st.sampled_from(shapes))), "c")
        pair = [value, other] if draw(st.booleans()) else [other, value]
        return b.add({"shift": "sub", "scale": "mul"}[row], pair)
    if row == "plane":  # one value for all channels
        other = b.constant(_weights(seed, 1, 1, *shape[2:]), "c")
        return b.add("add", [value, other])
    return b.add(row, [value])


def _combine(draw, b, value, seed):
    shape = b.type(value).shape
    images = [v for v in b._nodes if b.type(v).rank == 4 and b.type(v).dtype == "float32"]
    alike = [v for v in images if b.type(v).shape == shape]
    gates = [
        v for v in images if b.type(v).shape in ((shape[0], shape[1], 1, 1), (shape[0], 1, 1, 1))
    ]
    other = draw(st.sampled_from([*alike, *gates]))
    return b.add(draw(st.sampled_from(["add", "maximum", "minimum"])), [value, other])


def _gate(draw, b, value, seed):
    """Squeeze and excitation without its sigmoid: a value per channel, or one for all."""
    _n, c, _, _ = b.type(value).shape
    mean = b.add(
        "clip", [b.add("reduce_sum", [value], ReduceAttributes((2, 3)))], ClipAttributes(-1, 1)
    )
    k = draw(st.sampled_from([1, c]))
    weight = b.constant(_weights(seed, k, c, 1, 1), "w")
    gate = b.add("conv", [mean, weight], ConvAttributes(epilogue=(Step("clip", (-1.0, 1.0)),)))
    return b.add("mul", [value, gate])


def _concat(draw, b, value, seed):
    shape = b.type(value).shape
    images = [v for v in b._nodes if b.type(v).rank == 4]
    same = [
        v for v in images if b.type(v).shape[0] == shape[0] and b.type(v).shape[2:] == shape[2:]
    ]
    if draw(st.booleans()):
        parts = draw(st.lists(st.sampled_from(same), min_size=1, max_size=2))
        return b.add("concat", [value, *parts], ConcatAttributes(1))
    return b.add("concat", [value, value], ConcatAttributes(draw(st.sampled_from([2, 3]))))


def _pick_channels(draw, b, value, seed):
    shape = b.type(value).shape
    picks = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, shape[1] - 1)), min_size=1, max_size=20))  # fmt: skip
    operands, channels = zip(*picks, strict=True)
    return b.add("pick_channels", [value, b.add("neg", [value])], PickChannelsAttributes(operands, channels))  # fmt: skip


def _slice(draw, b, value, seed):
    n, c, h, w = b.type(value).shape
    begin = draw(st.sampled_from([0, 0, 16 if c > 16 else 0, c // 2]))
    end = draw(st.sampled_from([c, c, min(c, begin + 8), min(c, begin + 3)]))
    begins, ends = (
        (0, begin, h // 2 if draw(st.booleans()) else 0, 0),
        (n, max(end, begin + 1), h, w),
    )
    steps = (1, draw(st.sampled_from([1, 1, 2])), 1, draw(st.sampled_from([1, 2])))
    return b.add("slice", [value], SliceAttributes(begins, ends, steps))


def _pad(draw, b, value, seed):
    pads = draw(st.sampled_from([(0, 0, 1, 0, 0, 0, 2, 1), (0, 2, 0, 1, 0, 1, 0, 0)]))
    return b.add("pad", [value], PadAttributes(pads, draw(st.sampled_from([0.0, 3.0]))))


def _pool(draw, b, value, seed):
    _, _, h, w = b.type(value).shape
    if min(h, w) < 2:
        return None
    if draw(st.booleans()):
        return b.add("max_pool", [value], MaxPoolAttributes((2, 2), (2, 2), (1, 0, 0, 1)))
    attributes = AveragePoolAttributes(
        (2, 2), (1, 2), (0, 1, 1, 0), count_include_pad=draw(st.booleans())
    )
    return b.add("floor", [b.add("average_pool", [value], attributes)])


def _resize(draw, b, value, seed):
    _, _, h, w = b.type(value).shape
    if h * w > 36:
        return None
    factors = draw(st.sampled_from([(1, 1, 2, 1), (1, 1, 1, 3), (1, 2, 1, 1)]))
    return b.add("resize", [value], ResizeAttributes(factors))


def _move(draw, b, value, seed):
    n, c, h, w = b.type(value).shape
    if draw(st.booleans()):
        return b.add("transpose", [value], TransposeAttributes((0, 1, 3, 2)))
    flat = b.add("reshape", [value], ReshapeAttributes((n, c * h * w)))
    k = draw(st.sampled_from([5, 16, 17]))
    weight = b.constant(_weights(seed, k, c * h * w), "w")
    dense = b.add("dense", [flat, weight], DenseAttributes((BOUND,)))
    return b.add("reshape", [dense], ReshapeAttributes((n, k, 1, 1)))


_ROWS = (
    *(_conv,) * 6,
    _up,
    *(_elementwise,) * 3,
    *(_combine,) * 2,
    _gate,
    *(_concat,) * 2,
    _pick_channels,
    _slice,
    _pad,
    _pool,
    _resize,
    _move,
)


@st.composite
def image_graphs(draw, max_ops: int = 10) -> Graph:
    """A network of convolutions and what stands between them; outputs are any of its values."""
    b = GraphBuilder("net")
    batch = draw(st.sampled_from([1, 1, 2]))
    extents = draw(st.sampled_from([(1, 1), (3, 4), (5, 5), (4, 7)]))
    values = [b.input("x", TensorType((batch, draw(st.sampled_from(CHANNELS)), *extents)))]
    for step in range(draw(st.integers(2, max_ops))):
        value = values[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(values))
        if b.type(value).size > 4000 or b.type(value).shape[1] > 80:
            continue
        result = draw(st.sampled_from(_ROWS))(draw, b, value, 100 * step)
        if result is not None:
            # Values that have grown by sums and products are brought back.
            values.append(
                b.add("clip", [result], ClipAttributes(-8, 8))
                if draw(st.booleans()) or step % 2
                else result
            )
    outputs = {"last": values[-1]}
    for index in range(draw(st.integers(0, 2))):
        outputs[f"out{index}"] = draw(st.sampled_from(values))
    return b.finish(outputs)
