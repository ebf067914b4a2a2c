"""What a program is made of: shared kernels, no needless copies, and a manifest that says it."""

from __future__ import annotations

import numpy as np

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.ops.shape import ConcatAttributes
from convc.ir.reference import interpret
from convc.lowering import entry
from tests.lowering.net import Net, finish
from tests.lowering.small_tiles import compile_small, program_of
from tests.lowering.test_special_graphs import dense_net


def test_equal_layers_share_one_kernel():
    def build(n: Net):
        x = n.image(1, 16, 6, 6)
        for _ in range(4):
            x = n.conv(x, 16, 3, 1)
        return n.add("relu", [x])

    calls = [c for c in program_of(finish(build)).calls if c.op == "conv"]
    assert len(calls) == 4
    # The last one's result has no halo: it is another view, and other code.
    assert len({c.kernel.symbol for c in calls[:3]}) == 1


def test_padding_costs_no_copy():
    def build(n: Net):
        a = n.conv(n.image(1, 16, 6, 6), 16, 3, 1)
        return n.conv(n.add("relu", [a]), 16, 3, 1)

    ops = [c.op for c in program_of(finish(build)).calls]
    assert ops == ["border", "reorder", "conv", "border", "relu", "conv", "reorder"]


def test_concatenation_of_whole_blocks_costs_no_copy():
    def build(n: Net):
        x = n.conv(n.image(1, 3, 6, 6), 16)
        y = n.add("concat", [n.conv(x, 16), n.conv(x, 32)], ConcatAttributes(1))
        return n.conv(n.add("concat", [x, y], ConcatAttributes(1)), 16)

    ops = [c.op for c in program_of(finish(build)).calls]
    assert ops.count("conv") == 4
    assert set(ops) - {"conv"} == {"reorder"}
    assert ops.count("reorder") == 1, "only the output is brought to plain order"


def test_parts_that_fill_no_blocks_are_moved_once():
    def build(n: Net):
        # 14 and 28 channels are read and written in blocks of 16 by every CPU with them; 12 or 24 in those of 8 by some.
        x = n.conv(n.image(1, 3, 6, 6), 14)
        y = n.add("concat", [x, n.conv(x, 14)], ConcatAttributes(1))
        return n.conv(y, 16)

    ops = [c.op for c in program_of(finish(build)).calls]
    assert ops == ["conv", "conv", "concat", "conv", "reorder"]


def test_manifest_describes_every_call():
    graph = finish(dense_net)
    module = compile_small(graph)
    program = program_of(graph)
    assert [s.node for s in module.manifest.steps] == [c.node for c in program.calls]
    for step, call in zip(module.manifest.steps, program.calls, strict=True):
        assert (step.algorithm, step.key, step.flops) == (call.algorithm, call.spec, call.flops)
        assert [a.space for a in step.arguments] == [a.buffer.space for a in call.arguments]


def test_more_calls_than_one_function_holds():
    """An entry of parts gives the same result, by several inputs and outputs of several types."""
    size = 2 * entry._TOGETHER + 3
    w = np.eye(32, dtype=np.float32)[::-1]
    x, scale = cc.input("x", (1, 32)), cc.input("scale", (1, 32))
    y, seen = x, {}
    for step in range(size):
        y = cc.dense(y, w)
        if step in (3, size // 2):
            seen[f"y{step}"] = y * scale
    graph = cc.graph({"y": y, **seen})
    model = compile(graph, threads=1)
    assert len(model.manifest.steps) > 2 * entry._TOGETHER
    inputs = {n: np.arange(32, dtype=np.float32).reshape(1, 32) + i for i, n in enumerate(("x", "scale"))}  # fmt: skip
    expected, actual = interpret(graph, inputs), model.run(inputs)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array)
