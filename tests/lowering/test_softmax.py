"""Softmax and its logarithm on CPUs, by rows and by neighbouring rows, beside float64."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc

# Shapes and axes: whole vectors, a tail behind them, less than a vector; along the last axis, the first and one between; many elements,
# which threads share; the longest row; columns longer than L1.
CASES = [
    ((3, 32), 1),
    ((2, 4, 49), 2),
    ((5, 7), 1),
    ((19,), 0),
    ((7, 33), 0),
    ((2, 21, 5, 16), 1),
    ((2, 9, 3, 20), 1),
    ((2, 3, 6, 5), 2),
    ((40, 17, 33), 2),
    ((2, 12, 31, 32), 1),
    ((2, 4096), 1),
    ((3, 20001), 1),
    ((2, 3137, 8), 1),
    ((8200, 5), 0),
]
# Relative to 1: the polynomial, a sum of 256 terms a lane, the roundings of x - m where it is 20 and of log's result;
# longer sums are as much worse as they are longer.
TOLERANCE = {"softmax": 1e-6, "log_softmax": 4e-6}


def expected(x: np.ndarray, axis: int, name: str) -> np.ndarray:
    x = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        shifted = x - x.max(axis, keepdims=True)
        total = np.exp(shifted).sum(axis, keepdims=True)
        return shifted - np.log(total) if name == "log_softmax" else np.exp(shifted) / total


@pytest.fixture(scope="module")
def run():
    outputs, inputs = {}, {}
    for at, case in enumerate(CASES):
        shape, axis = case
        x = cc.input(f"x{at}", shape)
        inputs[f"x{at}"] = np.random.default_rng(at).normal(size=shape).astype(np.float32) * 4
        outputs[f"softmax {case}"] = cc.softmax(x, axis)
        outputs[f"log_softmax {case}"] = cc.log_softmax(x, axis)
    model = compile(cc.graph(outputs), threads=2)
    return model, inputs, model.run(inputs)


@pytest.mark.parametrize("at", range(len(CASES)))
def test_within_tolerance_of_float64(run, at):
    _, inputs, actual = run
    case = CASES[at]
    for name, tolerance in TOLERANCE.items():
        reference = expected(inputs[f"x{at}"], case[1], name)
        # Along the last axis the lanes share a row; along another a lane's sum is in parts where it is longer.
        shape, axis = case
        terms = shape[axis] / 16 if axis == len(shape) - 1 else 1
        assert np.max(np.abs(actual[f"{name} {case}"] - reference)) <= tolerance * max(1, terms / 256)  # fmt: skip


def test_all_are_computed_by_rows(run):
    model, _, _ = run
    steps = [s for s in model.manifest.steps if s.op.endswith("softmax")]
    assert len(steps) == 2 * len(CASES)
    assert {s.algorithm for s in steps} == {"rows"}


def test_equal_elements_get_equal_shares_exactly():
    for n in (3, 16, 49, 64):
        module = compile(cc.graph({"y": cc.softmax(cc.input("x", (2, n)), 1)})).load()
        assert np.all(module(np.full((2, n), 3.5, np.float32)) == np.float32(1) / np.float32(n))


def test_infinities_and_nans_as_by_definition():
    inf, nan = np.inf, np.nan
    row = np.linspace(-3, 3, 20, dtype=np.float32)
    x = np.stack([row] * 6)
    x[1, :5] = -inf  # masked
    x[2] = -inf  # all masked
    x[3, 4] = inf
    x[4, 7] = nan
    x[5, 3] = 1e30
    for name in TOLERANCE:
        module = compile(cc.graph({"y": getattr(cc, name)(cc.input("x", x.shape), 1)})).load()
        np.testing.assert_allclose(module(x), expected(x, 1, name), rtol=1e-6, atol=1e-6)


def test_long_rows_and_float64_go_the_plain_way():
    for shape, dtype in (((2, 65537), "float32"), ((2, 4097, 16), "float32"), ((2, 30), "float64")):
        model = compile(cc.graph({"y": cc.softmax(cc.input("x", shape, dtype), 1)}))
        assert [s.algorithm for s in model.manifest.steps] == [""]
        x = np.random.default_rng(0).normal(size=shape).astype(dtype)
        assert np.allclose(model.run({"x": x})["y"], expected(x, 1, "softmax"), atol=1e-6)
