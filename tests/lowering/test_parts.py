"""Slices that are views of what they are taken from, bit by bit: plain runs of bytes, blocks of channels; and constants that are equal."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.ops.shape import SliceAttributes
from convc.ir.reference import interpret
from convc.lowering.parts import first_byte, first_channel
from tests.lowering.net import Net, check
from tests.lowering.small_tiles import compile_small


def whole(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-3, 4, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "begins", "ends", "first"),
    [
        ((4, 1, 48), (2, 0, 16), (3, 1, 48), 448),
        ((4, 32), (1, 0), (3, 32), 128),
        ((4, 32), (0, 16), (1, 24), 64),
        # Not aligned, not a run, nothing at all.
        ((4, 32), (0, 1), (1, 24), None),
        ((4, 32), (0, 16), (2, 32), None),
        ((4, 32), (2, 0), (2, 32), None),
    ],
)
def test_runs_of_bytes(shape, begins, ends, first):
    net = Net()
    x = net.image(*shape)
    net.add("slice", [x], _cut(begins, ends), "y")
    graph = net.finish({"y": "y"})
    assert first_byte(graph, graph["y"]) == first


@pytest.mark.parametrize(
    ("channels", "begin", "end", "first"),
    [(48, 16, 48, 16), (40, 32, 40, 32), (40, 16, 32, 16), (40, 8, 40, None), (48, 16, 40, None)],
)
def test_blocks_of_channels(channels, begin, end, first):
    net = Net()
    x = net.image(2, channels, 3, 5)
    net.add("slice", [x], _cut((0, begin, 0, 0), (2, end, 3, 5)), "y")
    graph = net.finish({"y": "y"})
    assert first_channel(graph, graph["y"], 16) == first


def _cut(begins, ends):
    return SliceAttributes(begins, ends, (1,) * len(begins))


@pytest.fixture(scope="module", params=[1, 2], ids=["one image", "two"])
def run(request):
    n = request.param
    x = cc.input("x", (n, 3, 6, 9))
    stem = cc.conv2d(x, whole(64, 3, 3, 3), pads=1, name="stem")
    gate = stem[:, :32] * stem[:, 32:]
    # Read with and without a border, by a concatenation, twice, and as an output.
    outputs = {
        "gate": cc.conv2d(gate, whole(8, 32, 1, 1)),
        "around": cc.conv2d(stem[:, 32:], whole(16, 32, 3, 3), pads=1),
        "half of a half": cc.conv2d(stem[:, 16:][:, 16:], whole(16, 32, 1, 1)),
        "tail": cc.conv2d(stem[:, 48:64], whole(16, 16, 3, 3), pads=1) + stem[:, 16:32],
        "itself": stem[:, 16:48],
    }
    y = cc.conv2d(stem[:, :32], whole(32, 32, 1, 1))
    both = cc.concat([stem[:, 32:], y, stem[:, :32]])
    outputs["both"] = cc.conv2d(both, whole(16, 96, 3, 3), pads=1)
    outputs["part of both"] = cc.conv2d(both[:, 32:64], whole(16, 32, 1, 1))
    rows = cc.reshape(x, (n * 6, 27))
    t = cc.dense(rows, whole(48, 27))
    outputs["rows"] = cc.relu(t[4:6]) + cc.dense(t[0:2, :], whole(48, 48))
    outputs["columns"] = cc.dense(t[3:4, 16:32], whole(5, 16)) + cc.dense(
        t[3:4, 2:18], whole(5, 16)
    )
    outputs["a given row"] = rows[0:2]
    graph = cc.graph(outputs)
    inputs = {"x": whole(n, 3, 6, 9)}
    return compile(graph, threads=2, algo="direct"), inputs, interpret(graph, inputs)


def test_parts_are_exact(run):
    model, inputs, expected = run
    for name, array in model.run(inputs).items():
        np.testing.assert_array_equal(array, expected[name])


def test_hardly_a_slice_is_a_step(run):
    model, _, _ = run
    cut = [s.arguments[-1].shape for s in model.manifest.steps if s.op == "slice"]
    # What begins within a line of the cache alone.
    assert cut == [(1, 16)]


def test_two_halves_of_an_image_share_its_border():
    net = Net()
    x = net.image(1, 3, 8, 8)
    a = net.conv(x, 32, 3, 1)
    for name, begin in (("low", 0), ("high", 16)):
        net.add("slice", [a], _cut((0, begin, 0, 0), (1, begin + 16, 8, 8)), name)
    y = net.add("add", [net.conv("low", 16, 3, 1), net.conv("high", 16)])
    graph = net.finish({"y": y})
    check(graph, compile_small(graph))


def test_equal_constants_lie_once():
    recurrence = whole(64, 64)
    h = cc.input("h", (1, 64))
    y = h
    for _ in range(4):
        y = cc.relu(cc.dense(y, recurrence) * 0.125)
    graph = cc.graph({"y": y})
    model = compile(graph)
    assert model.manifest.weights_bytes < 2 * recurrence.nbytes
    inputs = {"h": whole(1, 64)}
    assert model.run(inputs)["y"].any()
    np.testing.assert_allclose(model.run(inputs)["y"], interpret(graph, inputs)["y"], rtol=1e-6)


def test_constants_that_differ_in_a_sign_of_zero_lie_apart():
    weights = [np.zeros((64, 64), np.float32) for _ in range(2)]
    weights[1][-1, -1] = -0.0
    h = cc.input("h", (1, 64))
    graph = cc.graph({f"y{i}": cc.dense(h, w) for i, w in enumerate(weights)})
    assert compile(graph).manifest.weights_bytes >= 2 * weights[0].nbytes
