"""Layer normalisation along the last axis by rows, and along another one, beside float64."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.frontend.dsl.tensor import apply
from convc.ir.ops.layer_norm import LayerNormAttributes

# Whole vectors, a tail behind them, less than a vector, one element, one row; many rows, which threads share; the longest row.
SHAPES = [
    (3, 32),
    (2, 5, 60),
    (4, 12),
    (6, 7),
    (5, 1),
    (19,),
    (1, 37, 29, 16),
    (2, 4096),
    (2, 10001),
]


def expected(x: np.ndarray, scale: np.ndarray, bias: np.ndarray, axis: int) -> np.ndarray:
    centred = x - x.mean(axis, keepdims=True, dtype=np.float64)
    return centred / np.sqrt(np.square(centred).mean(axis, keepdims=True) + 1e-5) * scale + bias


@pytest.fixture(scope="module")
def run():
    outputs, inputs = {}, {}
    generator = np.random.default_rng(0)

    def given(name, shape):
        inputs[name] = generator.normal(size=shape).astype(np.float32)
        return cc.input(name, shape)

    def by_rows(shape):
        row = (*[1] * (len(shape) - 1), shape[-1])
        operands = [given(f"{n} {shape}", s) for n, s in (("x", shape), ("s", row), ("b", row))]
        outputs[str(shape)] = apply("layer_norm", operands, LayerNormAttributes(len(shape) - 1))

    for shape in SHAPES[:-1]:
        by_rows(shape)
    operands = [given(f"{n} first", s) for n, s in (("x", (2, 9, 20)), ("s", (1, 9, 1)), ("b", (1, 9, 1)))]  # fmt: skip
    outputs["first"] = apply("layer_norm", operands, LayerNormAttributes(1))
    by_rows(SHAPES[-1])
    model = compile(cc.graph(outputs), threads=2)
    return model, model.load(threads=2), inputs


@pytest.mark.parametrize("shift", [0, 1000])
def test_within_tolerance_of_float64(run, shift):
    _, module, inputs = run
    shifted = {n: x + np.float32(shift) if n[0] == "x" else x for n, x in inputs.items()}
    actual = module.run(shifted)
    for name, y in actual.items():
        x, scale, bias = (shifted[f"{n} {name}"] for n in "xsb")
        reference = expected(x.astype(np.float64), scale, bias, 1 if name == "first" else -1)
        # The plain sums leave the rounding of the mean, 3e-5 of 1000; results are below 5, scales below 4.
        tolerance = 5e-4 if shift and name == "first" else 1e-5
        assert np.max(np.abs(y - reference)) <= tolerance, name


def test_rows_of_equal_elements_are_their_bias(run):
    _, module, inputs = run
    for value in (0.1, 1e3, -1e6, 1e30):
        given = {n: np.full_like(x, value) if n[0] == "x" else x for n, x in inputs.items()}
        actual = module.run(given)
        for shape in map(str, SHAPES):
            bias = np.broadcast_to(given[f"b {shape}"], actual[shape].shape)
            np.testing.assert_allclose(actual[shape], bias, atol=1e-4)


def test_which_are_computed_by_rows(run):
    model, _, _ = run
    steps = [s for s in model.manifest.steps if s.op == "layer_norm"]
    assert sorted(s.algorithm for s in steps) == ["", *["rows"] * len(SHAPES)]
