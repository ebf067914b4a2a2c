"""Sums and means along the last axis by rows, beside float64; images in blocks of channels stay there."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.reference import interpret

# Half a vector, whole ones, with elements behind them, the longest row; many rows, which threads share; one row.
SHAPES = [(3, 8), (2, 5, 24), (4, 4, 6, 100), (7, 9), (40, 37, 32), (1, 784), (2, 16384)]


@pytest.fixture(scope="module")
def run():
    outputs = {}
    for i, shape in enumerate(SHAPES):
        x, axis = cc.input(f"x{i}", shape), len(shape) - 1
        outputs[f"sum{i}"] = cc.sum(x, axes=(axis,))
        outputs[f"mean{i}"] = cc.mean(x, axes=(axis,), keepdims=True)
    graph = cc.graph(outputs)
    model = compile(graph, threads=2)
    reductions = [s for s in model.manifest.steps if s.op.startswith("reduce")]
    assert [s.algorithm for s in reductions] == ["rows"] * 2 * len(SHAPES)
    return graph, model.load(threads=2)


def test_sums_of_integers_are_exact(run):
    graph, module = run
    generator = np.random.default_rng(0)
    fed = {f"x{i}": generator.integers(-9, 9, s).astype(np.float32) for i, s in enumerate(SHAPES)}
    exact = interpret(graph, fed)
    for name, actual in module.run(fed).items():
        if name.startswith("sum"):
            np.testing.assert_array_equal(actual, exact[name], err_msg=name)


def test_sums_are_within_their_bound_of_float64(run):
    graph, module = run
    generator = np.random.default_rng(1)
    fed = {f"x{i}": generator.normal(size=s).astype(np.float32) for i, s in enumerate(SHAPES)}
    exact = interpret(graph, fed)
    for name, actual in module.run(fed).items():
        x = fed[f"x{name.lstrip('sumean')}"]
        count = x.shape[-1]
        # Higham, Accuracy and Stability of Numerical Algorithms, eq. 4.4: as many roundings as an element goes through.
        roundings = count // 8 + 4 + 15 + 1
        size = np.abs(x).sum(-1).max() / (count if name.startswith("mean") else 1)
        assert np.abs(actual - exact[name]).max() <= roundings * 2.0**-24 * size, name


def test_images_in_blocks_are_summed_there():
    x = cc.input("x", (1, 32, 12, 16))
    h = cc.relu(cc.conv2d(x, np.ones((32, 32, 3, 3), np.float32), pads=1))
    y = cc.conv2d(cc.mean(h, axes=(3,), keepdims=True), np.ones((32, 32, 1, 1), np.float32))
    graph = cc.graph({"y": y})
    model = compile(graph, threads=1)
    assert not [s for s in model.manifest.steps[2:-1] if s.op == "reorder"]
    fed = {"x": np.random.default_rng(2).integers(-3, 3, (1, 32, 12, 16)).astype(np.float32)}
    np.testing.assert_array_equal(model.load(threads=1).run(fed)["y"], interpret(graph, fed)["y"])
