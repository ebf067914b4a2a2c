"""Sums and means of long axes: an error of a short chain's length, beside float64."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.text import parse

# Shape and axes: one axis alone, with a rest behind whole parts and without; not the last; of two axes, one long.
CASES = [
    ((65000,), (0,)),
    ((3, 70001), (1,)),
    ((2, 5003, 8), (1,)),
    ((1024, 5), (0,)),
    ((2, 3, 4096), (0, 2)),
]


@pytest.fixture(scope="module")
def module():
    outputs = {}
    for at, (shape, axes) in enumerate(CASES):
        x = cc.input(f"x{at}", shape)
        outputs[f"mean {at}"] = cc.mean(x, axes)
        outputs[f"sum {at}"] = cc.sum(x, axes, keepdims=True)
    return compile(cc.graph(outputs), threads=2).load(threads=2)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_a_large_mean_costs_no_accuracy(module, spread):
    generator = np.random.default_rng(0)
    inputs = {
        f"x{at}": (1000.1 + spread * generator.normal(size=shape)).astype(np.float32)
        for at, (shape, _) in enumerate(CASES)
    }
    for name, y in module.run(inputs).items():
        kind, at = name.split()
        x, axes = inputs[f"x{at}"].astype(np.float64), CASES[int(at)][1]
        expected = x.mean(axes) if kind == "mean" else x.sum(axes, keepdims=True)
        assert y.shape == expected.shape
        # Two chains of a root's length, a rest; one chain of all is wrong by twice as much for 1024 terms and three times for 65 000.
        terms = max(x.shape[i] for i in axes)
        bound = (2 * np.sqrt(terms) + 16) * 2.0**-24
        np.testing.assert_allclose(y, expected, rtol=bound, err_msg=name)


def test_whole_numbers_are_exact():
    graph = parse(
        "graph @g { %x = input : i64[3,5003]  %y = reduce_sum(%x) {axes = [1]}  return %y }"
    )
    x = np.random.default_rng(0).integers(-(2**40), 2**40, (3, 5003))
    actual = compile(graph, threads=1).load(threads=1)(x)
    np.testing.assert_array_equal(actual, x.sum(1, keepdims=True))
