"""Infinities, NaN and both zeros in compiled kernels: TVM's simplifier takes floats for numbers that can be ordered and cancelled."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from convc.compiler import compile
from convc.errors import ShapeError
from convc.frontend import dsl as cc
from convc.frontend.onnx import from_onnx
from convc.ir.graph import Graph
from convc.ir.reference import interpret
from convc.ir.text import parse

VALUES = np.float32([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0, -1.0, 3e38, -3e38, 1e-40, 0.5])
X, Z = (np.ascontiguousarray(m) for m in (np.repeat(VALUES, 11), np.tile(VALUES, 11)))


def assert_as_in_float64(graph: Graph, **inputs) -> None:
    """Assert equality but for float32's rounding, NaN for NaN."""
    with np.errstate(all="ignore"):
        expected = {k: v.astype(np.float32) for k, v in interpret(graph, inputs).items()}
    actual = compile(graph, threads=1).run(inputs)
    for name, array in expected.items():
        found = np.asarray(actual[name], array.dtype)
        np.testing.assert_allclose(found, array, rtol=1e-6, atol=1e-37, err_msg=name)


def test_products_and_quotients_of_zero_and_differences_of_one_value():
    x = cc.input("x", X.shape)
    outputs = {
        "times 0": x * 0.0,
        "0 times": 0.0 * x,
        "0 by": 0.0 / x,
        "itself": x - x,
        "none": 1.0 / (x * -0.0),
        "slope 0": cc.leaky_relu(x, 0.0),
        "hard": cc.hard_sigmoid(x, 0.0, 0.5),
    }
    assert_as_in_float64(cc.graph(outputs), x=X)


def test_what_is_added_and_taken_away_again_was_rounded_in_between():
    x, z = cc.input("x", X.shape), cc.input("z", X.shape)
    found = compile(cc.graph((x + z) - x), threads=1)(X, Z)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, (X + Z) - X)


def test_a_bound_that_nothing_passes():
    x = cc.input("x", X.shape)
    outputs = {
        "most": cc.minimum(x, float("inf")),
        "least": cc.maximum(float("-inf"), x),
        "both": cc.relu(cc.maximum(cc.minimum(x, float("inf")), float("-inf"))),
    }
    assert_as_in_float64(cc.graph(outputs), x=X)


def test_neighbours_squares_that_do_not_count():
    data = np.ones((1, 4, 2, 2), np.float32)
    data[0, 1, 0, 0] = np.inf
    graph = cc.graph({"y": cc.lrn(cc.input("x", data.shape), 3, alpha=0.0)})
    assert_as_in_float64(graph, x=data)


def test_comparisons():
    ops = ("equal", "less", "less_equal", "greater", "greater_equal")
    lines = []
    for op in ops:
        lines += [
            f"%{op} = {op}(%x, %z)",
            f"%not_{op} = logical_not(%{op})",
            f"%own_{op} = {op}(%x, %x)",
            f"%other_{op} = logical_not(%own_{op})",
            f"%chosen_{op} = where(%not_{op}, %x, %z)",
        ]
    lines += ["%or = logical_or(%less, %greater_equal)"]
    names = ", ".join(line.split()[0] for line in lines)
    inputs = f"%x = input : f32[{X.size}] %z = input : f32[{X.size}]"
    graph = parse(f"graph @g {{ {inputs} {' '.join(lines)} return {names} }}")
    assert_as_in_float64(graph, x=X, z=Z)


@pytest.mark.parametrize("known", [True, False])
def test_infinite_slopes(known):
    # A constant NaN is refused: training that diverged.
    slope = np.float32([np.inf, 2.0 if known else np.nan, -np.inf, 0.25]).reshape(4, 1)
    data = np.tile(VALUES, (1, 4, 1))
    node = helper.make_node("PRelu", ["x", "slope"], ["y"])
    info = {
        n: helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape)
        for n, a in {"x": data, "slope": slope, "y": data}.items()
    }
    weights = [onnx.numpy_helper.from_array(slope, "slope")] if known else []
    inputs = [info["x"]] if known else [info["x"], info["slope"]]
    model = helper.make_model(helper.make_graph([node], "g", inputs, [info["y"]], weights))
    graph = from_onnx(model)
    fed = {"x": data} if known else {"x": data, "slope": slope}
    with np.errstate(all="ignore"):
        expected = np.where(data < 0, slope * data, data)
        np.testing.assert_array_equal(interpret(graph, fed)["y"].astype(np.float32), expected)
    np.testing.assert_array_equal(compile(graph, threads=1).run(fed)["y"], expected)


def test_bounds_that_are_no_numbers():
    with pytest.raises(ShapeError, match=r"clip bounds must be numbers; got nan, 1.0."):
        cc.clip(cc.input("x", (2,)), float("nan"), 1.0)
