"""Networks of 1-D and 3-D images: values stay in blocks of channels from one convolution to the next."""

from __future__ import annotations

import pytest

from convc.ir.ops.elementwise import ClipAttributes
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes
from convc.ir.ops.shape import ConcatAttributes, PadAttributes, ResizeAttributes, SliceAttributes
from convc.lowering.emit import emit
from convc.schedules.select import select
from convc.target import parse_target
from tests.lowering.module_steps import assert_lanes_stay_zero
from tests.lowering.net import ADD, BIAS, RELU, Net, check, finish
from tests.lowering.small_tiles import compile_small

EXTENTS = {1: (13,), 3: (4, 5, 6)}


def network(n: Net, rank: int) -> dict[str, str]:
    ones, pads = (1,) * rank, (1,) * (2 * rank)
    x = n.image(2, 3, *EXTENTS[rank])
    a = n.conv(x, 20, 3, 1, steps=[BIAS, RELU], extras=[n.constant(n.array(20))])
    b = n.conv(a, 20, 3, 1, group=20, steps=[ADD], extras=[a])
    c = n.conv(b, 16, 1, steps=[ADD], extras=[n.conv(a, 16, 3, 2, dilations=(2,) * rank)])
    wide = n.add("clip", [n.add("mul", [c, c])], ClipAttributes(-2.0, 2.0))
    pooled = n.add("max_pool", [wide], MaxPoolAttributes((3,) * rank, (2,) * rank, pads))
    mean = n.add(
        "average_pool", [b], AveragePoolAttributes((2,) * rank, ones, count_include_pad=True)
    )
    joined = n.add("concat", [wide, c, a], ConcatAttributes(1))
    return {
        "pooled": n.conv(pooled, 9, 3, 1, strides=(2,) * rank),
        "scaled": n.conv(n.add("mul", [mean, n.constant(n.array() * 0 + 8, "eight")]), 5, 1),
        "joined": n.conv(joined, 8, 3, 1),
        "up": n.conv(n.add("resize", [c], ResizeAttributes((1, 1, *(2,) * rank))), 4, 1),
        "cut": n.conv(n.add("slice", [c], SliceAttributes((0, 0, *(1,) * rank), (2, 16, *(3,) * rank), (1,) * (rank + 2))), 4, 1),
        "padded": n.conv(n.add("pad", [c], PadAttributes((0, 0, *(1,) * rank, 0, 0, *(2,) * rank), 0.0)), 4, 2),
        "top": n.add("reduce_max", [c], ReduceAttributes(tuple(range(2, rank + 2)), keepdims=True)),
    }  # fmt: skip


@pytest.mark.parametrize("rank", [1, 3])
def test_networks_of_every_rank(rank):
    graph = finish(lambda n: network(n, rank))
    module = compile_small(graph)
    check(graph, module)


def chain(n: Net, rank: int) -> str:
    a = n.conv(n.image(1, 16, *EXTENTS[rank]), 32, 3, 1)
    b = n.conv(n.add("mul", [a, a]), 32, 3, 1, steps=[ADD], extras=[a])
    c = n.add("max_pool", [b], MaxPoolAttributes((2,) * rank, (2,) * rank))
    return n.conv(n.add("concat", [c, c], ConcatAttributes(1)), 16, 1)


@pytest.mark.parametrize("rank", [1, 3])
def test_nothing_is_reordered_between_convolutions(rank):
    graph = finish(lambda n: chain(n, rank))
    target = parse_target(cores=1)
    program = emit(graph, select(graph, target, algo="direct"), target)
    moves = [(c.node, c.reason) for c in program.calls if c.op == "reorder"]
    result = graph.outputs[0].value
    assert [node for node, reason in moves if not reason.startswith("part ")] == ["x", result]


def test_lanes_beyond_the_last_channel_stay_zero():
    graph = finish(lambda n: network(n, 3))
    module = compile_small(graph)
    inputs = {n.name: Net().array(*n.type.shape) for n in graph.inputs}
    assert assert_lanes_stay_zero(graph, module, inputs)
