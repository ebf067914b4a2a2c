"""Graphs made by hand, each for one thing that emitting code can get wrong."""

from __future__ import annotations

import numpy as np
import pytest

from convc.ir import Step
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, DenseAttributes
from convc.ir.ops.elementwise import ClipAttributes
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
from tests.lowering.module_steps import assert_lanes_stay_zero
from tests.lowering.net import ADD, BIAS, RELU, Net, check, finish
from tests.lowering.small_tiles import compile_small

# ---- where values lie -------------------------------------------------------------------------------------------


def output_read_with_padding(n: Net):
    a = n.conv(n.image(1, 16, 5, 5), 16, 3, 1)
    return {"a": a, "b": n.conv(a, 16, 3, 1)}


def readers_with_other_pads(n: Net):
    a = n.conv(n.image(1, 5, 6, 7), 20, 3, 1)
    return {
        "three": n.conv(a, 3, 3, 1),
        "five": n.conv(a, 17, 5, 2),
        "none": n.conv(a, 9, 3),
        "dilated": n.conv(a, 4, 3, 3, dilations=(3, 3)),
        "strided": n.conv(a, 4, 3, 1, strides=(2, 2)),
        "depthwise": n.conv(a, 20, 3, 1, group=20),
        "generic": n.conv(a, 10, 3, 1, group=5),
        "pool": n.add("max_pool", [a], MaxPoolAttributes((3, 3), (2, 2), (1, 1, 1, 1))),
    }


def readers_in_other_blocks(n: Net):
    # 24 channels are blocks of 8, 32 of 16, groups of 3 plain.
    a = n.conv(n.image(2, 3, 4, 5), 24, 3, 1)
    b = n.conv(a, 32, 1)
    return {
        "b": b,
        "c": n.conv(b, 24, 3, 1, steps=[ADD], extras=[a]),
        "d": n.conv(a, 24, 3, 1, group=8),
    }


def residual_in_another_block(n: Net):
    x = n.image(1, 8, 5, 5)
    plain = n.conv(x, 24, 3, 1, group=4)
    blocked = n.conv(x, 24, 3, 1)
    return n.conv(
        blocked, 24, 3, 1, steps=[BIAS, ADD, RELU], extras=[n.constant(n.array(24)), plain]
    )


def residual_that_is_the_data(n: Net):
    a = n.conv(n.image(1, 3, 5, 5), 16, 3, 1)
    return n.conv(a, 16, 3, 1, steps=[ADD, ADD], extras=[a, a])


def residual_that_is_an_input_or_a_constant(n: Net):
    x = n.image(1, 5, 4, 4)
    return n.conv(x, 5, 3, 1, steps=[ADD, ADD], extras=[x, n.constant(n.array(1, 5, 4, 4))])


def residual_of_phases(n: Net):
    x = n.image(1, 5, 3, 4)
    r = n.conv(n.image(1, 5, 6, 8, name="big"), 7, 1)
    attributes = ConvTransposeAttributes((2, 2), (1, 1, 1, 1), epilogue=(ADD,))
    y = n.add("conv_transpose", [x, n.constant(n.array(5, 7, 4, 4)), r], attributes)
    return {"y": y, "z": n.conv(y, 3, 3, 1), "r": n.conv(r, 3, 3, 2)}


def input_read_in_several_ways(n: Net):
    x = n.image(1, 3, 6, 6)
    return {
        "a": n.conv(x, 8, 3, 1),
        "b": n.conv(x, 8, 3),
        "c": n.add("relu", [x]),
        "d": n.conv(x, 3, 3, 1, group=3),
    }


# ---- outputs ----------------------------------------------------------------------------------------------------


def outputs_that_nothing_computes(n: Net):
    x = n.image(2, 3, 2, 2)
    return {
        "input": x,
        "again": x,
        "constant": n.constant(n.array(2, 3)),
        "scalar": n.constant(np.float32(3.5).reshape(())),
        "splat": n.constant(np.broadcast_to(np.float32(2), (3, 4))),
        "flat": n.add("reshape", [x], ReshapeAttributes((6, 4))),
        "whole": n.constant(np.arange(6).reshape(2, 3)),
    }


def one_value_as_several_outputs(n: Net):
    a = n.conv(n.image(1, 5, 4, 4), 16, 3, 1)
    flat = n.add("reshape", [a], ReshapeAttributes((1, 256)))
    return {"a": a, "b": a, "flat": flat, "next": n.conv(a, 3), "flat2": flat}


def reshape_of_an_output_is_read(n: Net):
    a = n.add("relu", [n.image(1, 12, 2, 2)])
    b = n.add("reshape", [a], ReshapeAttributes((1, 3, 4, 4)))
    return {"a": a, "y": n.conv(b, 5, 3, 1)}


# ---- names ------------------------------------------------------------------------------------------------------


def values_called_like_buffers(n: Net):
    a = n.conv(n.image(1, 5, 4, 4), 16, 3, 1, name="output1")
    b = n.conv(a, 16, 3, 1, name="x.weight")
    c = n.conv(b, 16, 3, 1, name="input0")
    d = n.conv(c, 16, 3, 1, name="x:nchw8c")
    return {"second": d, "first": n.conv(d, 16, 3, 1, name="output0")}


def names_of_other_alphabets(n: Net):
    a = n.conv(n.image(1, 3, 4, 4, name="gpu_0/data 0"), 4, 3, 1, name="a/b:0 ümlaut")
    return {"out put/0": n.conv(a, 2, name='"quoted"')}


# ---- operands known only at run time -----------------------------------------------------------------------------


def weights_that_are_inputs(n: Net):
    x, w = n.image(2, 4, 5, 5), n.image(6, 2, 3, 3, name="w")
    attributes = ConvAttributes(pads=(1, 1, 1, 1), group=2, epilogue=(BIAS, RELU))
    return n.add("conv", [x, w, n.image(6, name="b")], attributes)


def weights_that_are_computed(n: Net):
    x, w = n.image(1, 3, 4, 4), n.add("abs", [n.image(3, 5, 2, 2, name="w")])
    return n.add("conv_transpose", [x, w], ConvTransposeAttributes((2, 2)))


def bias_that_is_an_input(n: Net):
    x = n.image(1, 5, 4, 4)
    odd = n.conv(x, 19, 3, 1, steps=[BIAS], extras=[n.image(19, name="odd")])
    whole = n.conv(odd, 16, 3, 1, steps=[BIAS], extras=[n.image(16, name="whole")])
    return {"odd": odd, "whole": whole, "again": n.conv(x, 19, 1, steps=[BIAS], extras=["odd"])}


def bias_that_is_computed(n: Net):
    x = n.image(1, 5, 1, 1)
    a = n.add("reshape", [n.conv(x, 24)], ReshapeAttributes((24,)))
    b = n.add("reshape", [n.conv(x, 7)], ReshapeAttributes((7,)))
    first = n.conv(x, 24, steps=[BIAS], extras=[a])
    return {"first": first, "second": n.conv(x, 7, steps=[BIAS, BIAS], extras=[b, b])}


def dense_weights_that_are_inputs(n: Net):
    x = n.image(3, 5)
    return n.add(
        "dense", [x, n.image(4, 5, name="w"), n.image(4, name="b")], DenseAttributes((BIAS, RELU))
    )


# ---- blocks and broadcasting -------------------------------------------------------------------------------------


def gate_of_one_channel(n: Net):
    a = n.conv(n.image(2, 3, 4, 4), 20, 3, 1)
    gate = n.conv(n.add("reduce_sum", [a], ReduceAttributes((2, 3))), 1)
    return n.add("mul", [a, gate])


def gate_per_channel(n: Net):
    a = n.conv(n.image(2, 3, 4, 4), 20, 3, 1)
    gate = n.conv(n.add("reduce_max", [a], ReduceAttributes((2, 3))), 20)
    return n.conv(n.add("mul", [a, n.add("sub", [gate, n.constant(np.float32(1).reshape(()))])]), 3)


def gate_per_point(n: Net):
    a = n.conv(n.image(2, 3, 4, 4), 20, 3, 1)
    return n.conv(n.add("mul", [a, n.conv(a, 1)]), 3)


def one_channel_everywhere(n: Net):
    a = n.conv(n.image(1, 1, 4, 4), 1, 3, 1)
    scaled = n.add("mul", [a, n.add("reduce_sum", [a], ReduceAttributes((2, 3)))])
    return n.conv(n.add("add", [scaled, n.constant(n.array(1, 1, 4, 1))]), 1)


def literals_of_every_rank(n: Net):
    a = n.conv(n.image(1, 5, 3, 3), 5, 1)
    for rank in range(5):
        a = n.add("add", [n.constant(np.full((1,) * rank, rank + 1, np.float32)), a])
    return n.conv(n.add("reshape", [a], ReshapeAttributes((1, 5, 9, 1))), 3)


def slices_and_pads_of_channels(n: Net):
    a = n.conv(n.image(1, 5, 4, 4), 33, 3, 1)
    every = {}
    for begin, end, step in (
        (0, 16, 1),
        (16, 33, 1),
        (0, 5, 1),
        (16, 20, 1),
        (3, 33, 2),
        (32, 33, 1),
    ):
        cut = SliceAttributes((0, begin, 1, 0), (1, end, 4, 4), (1, step, 1, 2))
        every[f"{begin}:{end}:{step}"] = n.conv(n.add("slice", [a], cut), 2)
    for value, pads in (
        (0.0, (0, 0, 1, 0, 0, 0, 0, 1)),
        (2.0, (0, 0, 1, 0, 0, 0, 0, 1)),
        (1.0, (0, 1, 0, 0, 0, 3, 0, 0)),
    ):
        every[f"pad {value}"] = n.conv(n.add("pad", [a], PadAttributes(pads, value)), 2)
    return every


def concatenations(n: Net):
    x = n.image(2, 3, 4, 4)
    a, b, c = n.conv(x, 16, 3, 1), n.conv(x, 32), n.conv(x, 5, 3, 1)
    whole = n.add("concat", [a, b], ConcatAttributes(1))
    nested = n.add("concat", [whole, a, whole], ConcatAttributes(1))
    odd = n.add("concat", [c, a], ConcatAttributes(1))
    last = n.add("concat", [a, c], ConcatAttributes(1))
    mixed = n.add("concat", [x, a, n.constant(n.array(2, 16, 4, 4))], ConcatAttributes(1))
    rows = n.add("concat", [a, a], ConcatAttributes(2))
    every = (whole, nested, odd, last, mixed, rows)
    return {"whole": whole, **{f"{i}": n.conv(v, 3, 3, 1) for i, v in enumerate(every)}}


def dense_net(n: Net):
    """Each layer reads the concatenation of all before it, which lies in the memory that the layer writes into."""
    x = n.conv(n.image(2, 3, 5, 5), 16, 3, 1)
    for _ in range(3):
        new = n.conv(x, 16, 3, 1, steps=[Step("clip", (-4.0, 4.0))])
        x = n.add("concat", [x, new], ConcatAttributes(1))
    return n.conv(n.add("relu", [x]), 3, 3, 1)


def concatenated_constant_channels(n: Net):
    a = n.conv(n.image(1, 3, 3, 3), 16)
    ramp = n.constant(n.array(1, 16, 3, 3))
    return n.conv(n.add("concat", [ramp, a], ConcatAttributes(1)), 5, 3, 1)


def moves_of_channels(n: Net):
    x = n.image(2, 3, 4, 4)
    a, b = n.conv(x, 13, 3, 1), n.conv(x, 22)
    every = {}
    for begin, end, step in ((3, 9, 1), (5, 22, 1), (0, 16, 1), (16, 22, 1), (1, 20, 4)):
        bounds = ((0, begin, 0, 0), (2, end, 4, 4), (1, step, 1, 1))
        every[f"{begin}:{end}:{step}"] = n.add("slice", [b], SliceAttributes(*bounds))
    picks = [(i % 2, 12 - i // 2) for i in range(26)]
    turns = PickChannelsAttributes(tuple(o for o, _ in picks), tuple(c for _, c in picks))
    every["turns"] = n.add("pick_channels", [a, b], turns)
    plain = PickChannelsAttributes((1, 0, 1), (0, 2, 1))
    every["plain"] = n.add("pick_channels", [x, n.add("relu", [x])], plain)
    results = {f"{name} read": n.conv(v, 3, 3, 1) for name, v in every.items()}
    return {**results, "turns": every["turns"], "plain": every["plain"]}


def resized_and_pooled_odd_channels(n: Net):
    a = n.conv(n.image(2, 3, 4, 4), 7, 3, 1)
    up = n.add("resize", [a], ResizeAttributes((1, 1, 2, 3)))
    channels = n.add("resize", [a], ResizeAttributes((1, 2, 1, 1)))
    mean = n.add("average_pool", [up], AveragePoolAttributes((2, 2), (2, 2), (1, 0, 1, 0)))
    turned = n.add("transpose", [a], TransposeAttributes((0, 2, 3, 1)))
    return {"up": n.conv(up, 3), "channels": n.conv(channels, 3), "mean": mean, "turned": turned}


def reductions_of_blocks(n: Net):
    a = n.conv(n.image(2, 3, 4, 4), 7, 3, 1)
    every = {}
    for axes, keep in (
        ((2, 3), True),
        ((2, 3), False),
        ((1,), True),
        ((0, 1, 2, 3), False),
        ((2,), True),
        ((), True),
    ):
        every[f"{axes} {keep}"] = n.add("reduce_sum", [a], ReduceAttributes(axes, keep))
    every["max"] = n.conv(
        n.add("reduce_min", [n.add("clip", [a], ClipAttributes(1, 9))], ReduceAttributes((2, 3))), 2
    )
    return every


def parts_of_a_concatenation_of_points(n: Net):
    """Of one point, blocked and plain order are the same bytes, but a part does not begin where the whole does."""
    x = n.image(1, 5, 1, 1)
    a, b = n.conv(x, 16), n.conv(x, 32)
    whole = n.add("concat", [a, b], ConcatAttributes(1))
    flat = n.add("reshape", [b], ReshapeAttributes((1, 32)))
    dense = n.add("dense", [flat, n.constant(n.array(3, 32))], DenseAttributes())
    return {"whole": n.conv(whole, 4), "flat": dense, "b": b}


WHERE = [
    output_read_with_padding, readers_with_other_pads, readers_in_other_blocks, residual_in_another_block,
    residual_that_is_the_data, residual_that_is_an_input_or_a_constant, residual_of_phases, input_read_in_several_ways,
    outputs_that_nothing_computes, one_value_as_several_outputs, reshape_of_an_output_is_read,
    values_called_like_buffers, names_of_other_alphabets,
    weights_that_are_inputs, weights_that_are_computed, bias_that_is_an_input, bias_that_is_computed,
    dense_weights_that_are_inputs,
    gate_of_one_channel, gate_per_channel, gate_per_point, one_channel_everywhere, literals_of_every_rank,
    slices_and_pads_of_channels, concatenations, moves_of_channels, dense_net, concatenated_constant_channels, parts_of_a_concatenation_of_points,
    resized_and_pooled_odd_channels, reductions_of_blocks,
]  # fmt: skip


@pytest.mark.parametrize("build", WHERE, ids=lambda build: build.__name__)
def test_numbers(build):
    graph = finish(build)
    check(graph, compile_small(graph))


@pytest.mark.parametrize(
    "build",
    [slices_and_pads_of_channels, gate_per_channel, concatenations, moves_of_channels, resized_and_pooled_odd_channels, reductions_of_blocks],
    ids=lambda build: build.__name__,
)  # fmt: skip
def test_lanes_beyond_the_last_channel_stay_zero(build):
    graph = finish(build)
    rng = np.random.default_rng(0)
    inputs = {i.name: rng.standard_normal(i.type.shape).astype(np.float32) for i in graph.inputs}
    assert assert_lanes_stay_zero(graph, compile_small(graph), inputs)
