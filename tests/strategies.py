"""Hypothesis strategies: convolutions, tensor types, and small random graphs whose arithmetic is exact."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from convc.ir import ConvSpec, Graph, GraphBuilder, Step, TensorType
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, DenseAttributes
from convc.ir.ops.elementwise import ClipAttributes, LeakyAttributes
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes
from convc.ir.ops.shape import (
    ConcatAttributes,
    PadAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
    TransposeAttributes,
)
from convc.ir.types import SHORT_NAMES


@st.composite
def conv_specs(draw, *, transposed: bool | None = None, dtype: str = "float32") -> ConvSpec:
    """Any legal small convolution: 1 to 3 axes, every attribute at work, groups, asymmetric padding."""
    n = draw(st.integers(1, 3))
    limit = {1: 9, 2: 6, 3: 4}[n]
    is_transposed = draw(st.booleans()) if transposed is None else transposed

    def per_axis(low: int, high: int, count: int = n) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))

    group = draw(st.sampled_from([1, 1, 2, 3]))
    channels, filters = group * draw(st.integers(1, 2)), group * draw(st.integers(1, 2))
    kernel, strides, dilations = per_axis(1, 3), per_axis(1, 3), per_axis(1, 2)
    extents, pads = per_axis(1, limit), per_axis(0, 2, 2 * n)
    covered = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    extra: tuple[int, ...] = ()
    if is_transposed:
        extra = tuple(
            draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)
        )
        assume(
            all(
                strides[i] * (extents[i] - 1) + extra[i] + covered[i] > pads[i] + pads[n + i]
                for i in range(n)
            )
        )
    else:
        assume(all(extents[i] + pads[i] + pads[n + i] >= covered[i] for i in range(n)))
    first, second = (channels, filters // group) if is_transposed else (filters, channels // group)
    return ConvSpec.of(
        (draw(st.integers(1, 2)), channels, *extents),
        (first, second, *kernel),
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=group,
        transposed=is_transposed,
        output_padding=extra,
        dtype=dtype,
    )


def tensor_types(
    *, dtypes=tuple(SHORT_NAMES), min_extent: int = 0
) -> st.SearchStrategy[TensorType]:
    """Any element type, rank 0 to 4, small extents."""
    shapes = st.lists(st.integers(min_extent, 4), max_size=4).map(tuple)
    return st.builds(TensorType, shapes, st.sampled_from(dtypes))


def integers_like(shape, seed: int, low: int = -2, high: int = 2, dtype: str = "float32"):
    """Whole numbers as floats: products and sums of a few of them are exact."""
    rng = np.random.default_rng(seed)
    return rng.integers(low, high + 1, shape).astype(dtype)


# ---- random graphs ----------------------------------------------------------------------------------------------
# Each row appends one op that the current value allows and returns its value, or None. All data are integers or dyadic
# fractions, so float64 is exact and passes can be compared bit for bit.


def _conv(draw, b, value, seed):
    type = b.type(value)
    if type.rank != 4:
        return None
    filters = draw(st.integers(1, 3))
    kernel = draw(st.sampled_from([1, 1, 2, 3]))
    pads = (kernel // 2,) * 4 if kernel % 2 else (0, 0, 1, 1)
    weight = b.constant(integers_like((filters, type.shape[1], kernel, kernel), seed), "w")
    operands, epilogue = [value, weight], ()
    if draw(st.booleans()):
        operands.append(b.constant(integers_like((filters,), seed + 1), "b"))
        epilogue = (Step("bias"),)
    return b.add("conv", operands, ConvAttributes(pads=pads, epilogue=epilogue))


def _conv_transpose(draw, b, value, seed):
    type = b.type(value)
    if type.rank != 4 or max(type.shape[2:]) > 8:
        return None
    group = draw(st.sampled_from([1, type.shape[1]]))
    weight = b.constant(integers_like((type.shape[1], draw(st.integers(1, 2)), 2, 2), seed), "w")
    return b.add("conv_transpose", [value, weight], ConvTransposeAttributes((2, 2), group=group))


def _dense(draw, b, value, seed):
    type = b.type(value)
    if type.rank != 2:
        return None
    weight = b.constant(integers_like((draw(st.integers(1, 3)), type.shape[1]), seed), "w")
    return b.add("dense", [value, weight], DenseAttributes())


def _affine(draw, b, value, seed):
    type = b.type(value)
    channels = type.shape[1] if type.rank > 1 else 1
    shapes = [(), (1,) * type.rank, type.shape]
    if type.rank > 1:
        shapes.append((1, channels, *(1,) * (type.rank - 2)))
        shapes.append((channels, *(1,) * (type.rank - 2)))
    shape = draw(st.sampled_from(shapes))
    op = draw(st.sampled_from(["mul", "add", "sub", "div", "add", "mul"]))
    array = integers_like(shape, seed)
    if op == "div":
        array = np.exp2(np.abs(array)).astype(np.float32)
    if draw(st.booleans()):
        array = np.broadcast_to(np.float32(draw(st.sampled_from([0.0, 1.0, 2.0]))), shape)
        array = array + np.float32(1) if op == "div" else array
        op = "mul" if op == "div" and float(array.reshape(-1)[0]) == 3.0 else op
    other = b.constant(array, "c")
    swapped = op != "div" and draw(st.booleans())
    return b.add(op, [other, value] if swapped else [value, other])


def _activation(draw, b, value, seed):
    op, attributes = draw(
        st.sampled_from(
            [
                ("relu", None),
                ("neg", None),
                ("abs", None),
                ("clip", ClipAttributes(-4.0, 6.0)),
                ("clip", None),
                ("leaky_relu", LeakyAttributes(0.5)),
            ]
        )
    )
    return b.add(op, [value], attributes)


def _residual(draw, b, value, seed):
    alike = [v for v in b._nodes if b.type(v) == b.type(value)]
    return b.add("add", [value, draw(st.sampled_from(alike))])


def _move(draw, b, value, seed):
    type = b.type(value)
    row = draw(st.sampled_from(["reshape", "transpose", "pad", "slice", "concat", "resize", "one"]))
    if row == "reshape":
        flat = (type.shape[0], math.prod(type.shape[1:])) if type.rank > 1 else type.shape
        return b.add(
            "reshape", [value], ReshapeAttributes(draw(st.sampled_from([flat, type.shape])))
        )
    if row == "transpose":
        return b.add(
            "transpose",
            [value],
            TransposeAttributes(tuple(draw(st.permutations(range(type.rank))))),
        )
    if row == "one":
        return b.add("concat", [value], ConcatAttributes(0))
    if row == "concat" and type.rank > 1:
        return b.add("concat", [value, value], ConcatAttributes(1))
    if row == "slice":
        ends = tuple(draw(st.integers(1, n)) for n in type.shape)
        return b.add("slice", [value], SliceAttributes((0,) * type.rank, ends, (1,) * type.rank))
    if type.rank != 4:
        return None
    if row == "pad":
        border = draw(
            st.sampled_from([(0,) * 8, (0, 0, 1, 1, 0, 0, 1, 1), (0, 0, 0, 1, 0, 0, 1, 0)])
        )
        return b.add("pad", [value], PadAttributes(border, draw(st.sampled_from([0.0, 0.0, 1.0]))))
    return b.add("resize", [value], ResizeAttributes((1, 1, 1, draw(st.integers(1, 2)))))


def _pool(draw, b, value, seed):
    type = b.type(value)
    if type.rank != 4 or min(type.shape[2:]) < 2:
        return None
    is_power = math.prod(type.shape[2:]).bit_count() == 1
    choice = draw(st.sampled_from(["max", "average", "whole", "mean"]))
    if choice == "max":
        return b.add("max_pool", [value], MaxPoolAttributes((2, 2), pads=(1, 0, 0, 1)))
    if choice == "average":
        # Windows of 1, 2 or 4 points: the quotients stay dyadic.
        attributes = AveragePoolAttributes(
            (2, 2),
            pads=draw(st.sampled_from([(), (0, 1, 1, 0)])),
            count_include_pad=draw(st.booleans()),
        )
        return b.add("average_pool", [value], attributes)
    if not is_power:
        return None
    if choice == "whole":
        return b.add("average_pool", [value], AveragePoolAttributes(type.shape[2:]))
    return b.add("reduce_mean", [value], ReduceAttributes((2, 3)))


def _silu(draw, b, value, seed):
    return b.add("mul", [value, b.add("sigmoid", [value])])


def _constants(draw, b, value, seed):
    """Return arithmetic on constants alone, added to the value: work for constant folding."""
    type = b.type(value)
    splat = np.broadcast_to(np.float32(2), type.shape)
    left = b.constant(draw(st.sampled_from([splat, integers_like(type.shape, seed)])), "k")
    right = b.constant(splat, "k")
    return b.add("add", [value, b.add(draw(st.sampled_from(["add", "mul"])), [left, right])])


_ROWS = (
    _conv,
    _conv,
    _conv_transpose,
    _dense,
    _affine,
    _affine,
    _activation,
    _residual,
    _move,
    _move,
    _pool,
    _constants,
)


@st.composite
def graphs(draw, *, exact: bool = True, max_ops: int = 8) -> Graph:
    """A small graph of float32 values; `exact` leaves out functions whose results are not dyadic."""
    b = GraphBuilder(draw(st.sampled_from(["net", "a net/with a name"])))
    shape = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        *draw(st.sampled_from([(4, 4), (2, 4)])),
    )
    values = [b.input("x", TensorType(shape))]
    rows = _ROWS if exact else (*_ROWS, _silu)
    for k in range(draw(st.integers(1, max_ops))):
        row = draw(st.sampled_from(rows))
        # Mostly the last value: chains are what the fusing passes look for.
        value = values[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(values))
        result = row(draw, b, value, seed=100 * k)
        if result is not None and 0 < b.type(result).size <= 400:
            values.append(result)
    outputs = {"y": values[-1]}
    if draw(st.booleans()):
        outputs["other out"] = draw(st.sampled_from(values))
    return b.finish(outputs)


def inputs_of(graph: Graph, seed: int = 7) -> dict[str, np.ndarray]:
    """Whole-numbered data for every input of a graph."""
    return {
        n.name: integers_like(n.type.shape, seed + i, -3, 3) for i, n in enumerate(graph.inputs)
    }
