"""The scalar functions as compiled code: accuracy over their whole range, and what becomes of nan and infinities."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir import Graph, GraphBuilder, TensorType
from convc.ir.ops.elementwise import UNARY
from convc.ir.reference import interpret
from convc.schedules import scalar
from tests.tolerance import EPS, SCALAR_ERRORS

COUNT = 1 << 14


def all_functions(dtype: str) -> Graph:
    b = GraphBuilder("functions")
    x = b.input("x", TensorType((COUNT,), dtype))
    return b.finish({name: b.add(name, [x]) for name in UNARY})


@pytest.fixture(scope="module")
def float32():
    graph = all_functions("float32")
    return graph, compile(graph, threads=1).load(threads=1)


def test_every_function_has_a_tensor_expression():
    assert set(scalar.UNARY) == set(UNARY)


def test_accuracy_in_float32(float32):
    graph, module = float32
    worst = dict.fromkeys(UNARY, 0.0)
    for low, high in ((-20, 20), (-1, 1), (1e-3, 4)):
        x = np.linspace(low, high, COUNT).astype(np.float32)
        with np.errstate(all="ignore"):
            actual, exact = module.run({"x": x}), interpret(graph, {"x": x})
            for name in UNARY:
                error = (
                    np.abs(actual[name] - exact[name]) / np.maximum(1, np.abs(exact[name])) / EPS
                )
                assert np.array_equal(np.isnan(actual[name]), np.isnan(exact[name])), name
                worst[name] = max(worst[name], float(np.nanmax(error[np.isfinite(exact[name])])))
    limits = {name: SCALAR_ERRORS.get(name, 1) for name in UNARY}
    assert {name: w for name, w in worst.items() if w > limits[name]} == {}


def test_large_arguments_saturate(float32):
    graph, module = float32
    x = np.linspace(20, 88, COUNT).astype(np.float32) * np.tile(np.float32([1, -1]), COUNT // 2)
    with np.errstate(all="ignore"):
        actual, exact = module.run({"x": x}), interpret(graph, {"x": x})
    for name in ("sigmoid", "tanh", "erf", "elu", "softplus", "hard_sigmoid", "silu"):
        np.testing.assert_allclose(actual[name], exact[name], rtol=4 * EPS, atol=EPS, err_msg=name)


def test_the_logistic_functions_of_huge_arguments(float32):
    graph, module = float32
    x = np.tile(np.float32([-3e38, -1e4, -88.8, -87.9, -0.0, 87.9, 88.8, 3e38]), COUNT // 8)
    with np.errstate(all="ignore"):
        actual, exact = module.run({"x": x}), interpret(graph, {"x": x})
    for name in ("sigmoid", "silu"):
        np.testing.assert_allclose(
            actual[name], exact[name], rtol=4 * EPS, atol=1e-36, err_msg=name
        )


@pytest.mark.parametrize("name", UNARY)
def test_nan_and_infinities(float32, name):
    graph, module = float32
    x = np.zeros(COUNT, np.float32)
    x[:3] = np.inf, -np.inf, np.nan
    with np.errstate(all="ignore"):
        actual, exact = module.run({"x": x})[name][:3], interpret(graph, {"x": x})[name][:3]
    # One rounding: pi / 2 has no float32.
    np.testing.assert_array_equal(actual, exact.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_precisions(dtype):
    graph = all_functions(dtype)
    x = np.linspace(0.25, 6, COUNT).astype(dtype)
    with np.errstate(invalid="ignore", divide="ignore"):  # asin of 6, atanh of 1
        actual, exact = compile(graph, threads=1).run({"x": x}), interpret(graph, {"x": x})
    eps = float(np.finfo(dtype).eps)
    for name in UNARY:
        assert actual[name].dtype == dtype
        # hard_swish rounds x / 6 + 1 / 2 and the product; float16's `floor` has no error.
        np.testing.assert_allclose(
            actual[name].astype(np.float64), exact[name], rtol=4 * eps, atol=4 * eps, err_msg=name
        )
