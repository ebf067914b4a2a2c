"""What broadcasts to rows that are no whole vectors, and boxes of larger values: every length of row, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.reference import interpret
from tests.tolerance import assert_exact

# One, less than half a vector, less than a vector, and more, with every kind of tail; as many as threads share.
LENGTHS = (1, 3, 7, 12, 15, 17, 31, 49)


@pytest.fixture(scope="module")
def run():
    generator, inputs, outputs = np.random.default_rng(0), {}, {}

    def given(name, *shape):
        inputs[name] = generator.integers(-9, 10, shape).astype(np.float32)
        return cc.input(name, shape)

    for n in LENGTHS:
        x = given(f"x{n}", 5, 30, 11, n)
        outputs[f"a column {n}"] = x * given(f"column{n}", 5, 1, 11, 1)
        outputs[f"a matrix {n}"] = cc.relu(x + given(f"matrix{n}", 11, n)) - given(f"row{n}", n)
        outputs[f"a scalar {n}"] = x + given(f"one{n}", 1)
        outputs[f"a box {n}"] = given(f"large{n}", 7, 30, 12, n + 5)[1:6, :, 1:, 3 : 3 + n] * 2.0
        outputs[f"a box and a column {n}"] = x[1:, 3:] + given(f"other{n}", 4, 27, 1, 1)
        reshaped = cc.reshape(x, (1, 5, 30, 11, n)) + given(f"mask{n}", 1, 5, 1, 1, n)
        outputs[f"an axis in front {n}"] = cc.reshape(reshaped, (5, 30, 11, n)) * 3.0
    graph = cc.graph(outputs)
    return compile(graph, threads=2).run(inputs), interpret(graph, inputs)


def test_rows_of_every_length_are_exact(run):
    actual, expected = run
    for name, array in actual.items():
        assert_exact(array, expected[name])
