"""Images that become tokens and tokens that become images: moved in whole vectors, bit by bit, and into halos and concatenations."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.frontend.dsl.tensor import apply
from convc.ir.ops.resample import ResampleAttributes
from convc.ir.reference import interpret
from tests.lowering.module_steps import assert_lanes_stay_zero
from tests.tolerance import assert_exact

# Whole blocks, a block and a bit (for blocks of 8, too), less than a block.
CHANNELS = (32, 20, 6)


def whole(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-3, 4, shape).astype(np.float32)


def tokens(x):
    n, c, *spatial = x.shape
    return cc.reshape(x, (n, c, int(np.prod(spatial)))).transpose(0, 2, 1)


def image(t, *spatial):
    n, _, c = t.shape
    return cc.reshape(t.transpose(0, 2, 1), (n, c, *spatial))


def resampled(x, axis):
    """Return the axis in twice as many points, of which every other is the sum of its neighbours."""
    extent = x.shape[axis]
    places = np.stack([np.arange(2 * extent) // 2, np.arange(1, 2 * extent + 1) // 2], 1)
    places = np.minimum(places, extent - 1).astype(np.int32)
    weights = np.tile(np.float32([[1, 0], [1, 1]]), (extent, 1))
    return apply("resample", [x, places, weights], ResampleAttributes(axis))


@pytest.fixture(scope="module")
def run():
    x = cc.input("x", (2, 3, 5, 9))
    line, volume = cc.input("line", (1, 3, 19)), cc.input("volume", (1, 2, 3, 4, 5))
    outputs = {}
    for c in CHANNELS:
        h = cc.conv2d(x, whole(c, 3, 3, 3), pads=1, name=f"stem{c}")
        t = tokens(h) + whole(c)
        outputs[f"tokens {c}"] = t
        back = image(cc.matmul(t, whole(c, c)), 5, 9)
        wide = cc.concat([resampled(back, 3), resampled(image(t, 5, 9), 3)])
        outputs[f"around {c}"] = cc.conv2d(resampled(wide, 2), whole(5, 2 * c, 3, 3), pads=1)
        outputs[f"halo {c}"] = cc.conv2d(back, whole(16, c, 3, 3), pads=1)
        outputs[f"last {c}"] = h.transpose(0, 2, 3, 1)
        s = cc.conv1d(line, whole(c, 3, 3), name=f"line{c}").transpose(0, 2, 1) * 2.0
        outputs[f"line {c}"] = cc.conv1d(s.transpose(0, 2, 1), whole(4, c, 3), pads=1)
        v = tokens(cc.conv3d(volume, whole(c, 2, 1, 1, 1), name=f"volume{c}")) - whole(c)
        outputs[f"volume {c}"] = cc.conv3d(image(v, 3, 4, 5), whole(4, c, 3, 1, 1))
    graph = cc.graph(outputs)
    inputs = {n.name: whole(*n.type.shape) for n in graph.inputs}
    # Winograd's products are not exact.
    return compile(graph, threads=2, algo="direct"), inputs, interpret(graph, inputs)


def test_what_is_moved_is_exact(run):
    model, inputs, expected = run
    for name, array in model.run(inputs).items():
        assert_exact(array, expected[name])


def test_nothing_passes_through_plain_order(run):
    model, _, _ = run
    steps = [s for s in model.manifest.steps if s.op in ("transpose", "resample", "reorder")]
    # The fewest channels fill no block, and are cheaper as they are.
    few = [s for s in steps if any({6, 12} & set(a.shape) for a in s.arguments)]
    moved = {s.symbol.rsplit("_", 1)[0] for s in steps if s not in few and s.node[:4] != "conv"}
    # Some CPUs have layers whose blocks differ, from which no plain order follows.
    plain = {name for name in moved if "0" in name.split("_")}
    assert moved >= {"channels_last", "resample"}
    assert plain == {"reorder_0_1"}
    assert sum(s.symbol.startswith("channels_last") for s in steps) >= 7 * 2


def test_lanes_beyond_the_last_channel_stay_zero(run):
    model, inputs, _ = run
    assert assert_lanes_stay_zero(model.graph, model.load(threads=2), inputs)


def test_what_follows_tokens_is_looked_at_once_for_each_value():
    # Each of 40 residuals asked twice for all that follows it; a slice was asked for its part of blocks of none.
    h = cc.input("x", (1, 20, 8)).transpose(0, 2, 1)
    for _ in range(40):
        h = cc.minimum(h, cc.max(h, 2, keepdims=True))
    graph = cc.graph({"y": h[:, 1:5, ::2]})
    inputs = {"x": whole(1, 20, 8)}
    assert_exact(compile(graph, threads=1).run(inputs)["y"], interpret(graph, inputs)["y"])
