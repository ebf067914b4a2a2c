"""Every rank and element type that compiles, and the clear refusal of those that do not."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir.ops.conv import ConvTransposeAttributes, DenseAttributes
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import MaxPoolAttributes
from convc.ir.reference import interpret
from convc.ir.text import parse
from convc.ir.types import numpy_dtype
from tests.lowering.net import BIAS, RELU, Build, Net, check, finish


def small_net(rank: int) -> Build:
    def build(n: Net):
        a = n.conv(
            n.image(2, 4, *(5,) * rank),
            6,
            3,
            1,
            group=2,
            steps=[BIAS, RELU],
            extras=[n.constant(n.array(6))],
        )
        b = n.conv(a, 6, 2, 0, dilations=(2,) * rank, strides=(1,) * rank)
        c = n.add("max_pool", [b], MaxPoolAttributes((2,) * rank))
        w = n.constant(n.array(6, 3, *(2,) * rank))
        d = n.add("conv_transpose", [c, w], ConvTransposeAttributes((2,) * rank))
        mean = n.add("reduce_sum", [d], ReduceAttributes(tuple(range(2, 2 + rank)), False))
        return {
            "mean": n.add("dense", [mean, n.constant(n.array(5, 3))], DenseAttributes()),
            "d": d,
        }

    return build


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_rank_and_precision(rank, dtype):
    graph = finish(small_net(rank), dtype)
    check(graph, compile(graph, threads=1).load(threads=1))


def test_half_precision():
    graph = finish(small_net(2), "float16")
    rng = np.random.default_rng(0)
    inputs = {"x": rng.integers(-1, 2, (2, 4, 5, 5)).astype(np.float16)}
    actual, expected = compile(graph, threads=1).run(inputs), interpret(graph, inputs)
    # Sums of products of numbers up to 2: whole up to 2048 = 2^11, then rounded at each of 16 x 27 steps.
    bound = np.abs(expected["d"]).max() * 2**-11 * 16
    assert actual["d"].dtype == np.float16
    assert np.abs(actual["d"] - expected["d"]).max() <= bound


def test_integers_and_booleans():
    graph = parse(
        """graph @g {
          %a = input : i64[2,3]  %b = input : i32[4]  %f = input : i1[2,2]  %u = input : u8[3]
          %two = constant splat(2) : i64[]  %d = constant dense([2, -2, 3, -3]) : i32[4]
          %sum = add(%a, %two)  %total = reduce_sum(%sum) {axes = [1]}
          %q = div(%b, %d)  %m = maximum(%q, %b)
          %t = transpose(%f) {perm = [1, 0]}  %c = concat(%f, %t) {axis = 0}
          %top = reduce_max(%u) {axes = [0], keepdims = false}
          return %total, %m, %c, %top, %q
        }"""
    )
    inputs = {
        "a": np.array([[1, -2, 3], [2**40, 5, -6]]),
        "b": np.array([7, 7, -7, -7], np.int32),
        "f": np.array([[True, False], [True, True]]),
        "u": np.array([3, 250, 7], np.uint8),
    }
    actual, expected = compile(graph, threads=1).run(inputs), interpret(graph, inputs)
    assert expected["q"].tolist() == [3, -3, -2, 2]
    for name in expected:
        assert actual[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(actual[name], expected[name])


def test_functions_without_exact_results():
    graph = parse(
        """graph @g {
          %x = input : f32[2,5,3,3]
          %s = softmax(%x) {axis = 1}  %l = log_softmax(%x) {axis = -1}
          %n = lrn(%x) {size = 3, alpha = 0.5}  %o = lrn(%x) {size = 4, alpha = 0.5, beta = 0.5, bias = 2.0}
          %m = reduce_mean(%x) {axes = [1, 3]}  %e = reduce_mean(%x) {axes = []}
          %p = matmul(%x, %x)  %a = average_pool(%x) {kernel = [3, 3], pads = [1, 1, 1, 1]}
          %c = average_pool(%x) {kernel = [2, 2], strides = [2, 2], ceil_mode = true, count_include_pad = true, pads = [0, 0, 1, 1]}
          return %s, %l, %n, %o, %m, %e, %p, %a, %c
        }"""
    )
    x = np.random.default_rng(0).standard_normal((2, 5, 3, 3)).astype(np.float32)
    actual, expected = compile(graph, threads=1).run({"x": x}), interpret(graph, {"x": x})
    for name in expected:
        np.testing.assert_allclose(actual[name], expected[name], rtol=2e-6, atol=1e-6, err_msg=name)


def test_bfloat16():
    graph = finish(small_net(2), "bfloat16")
    rng = np.random.default_rng(0)
    inputs = {"x": rng.integers(-1, 2, (2, 4, 5, 5)).astype(numpy_dtype("bfloat16"))}
    actual, expected = compile(graph, threads=1).run(inputs), interpret(graph, inputs)
    # Convolutions add up in float32: each of four layers rounds once, to 8 bits.
    bound = np.abs(expected["d"]).max() * 2**-9 * 4
    assert actual["d"].dtype == numpy_dtype("bfloat16")
    assert np.abs(actual["d"].astype(np.float64) - expected["d"]).max() <= bound


# ---- nothing at all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "%x = input : f32[0,3]  %y = relu(%x)",
        "%x = input : f32[2]  %y = slice(%x) {begins = [1], ends = [1], steps = [1]}",
        "%x = input : f32[0,2,4,4]  %w = constant splat(1.0) : f32[3,2,3,3]  %y = conv(%x, %w)",
        "%x = input : f32[2,0]  %y = reduce_sum(%x) {axes = [1]}",
        "%x = input : f32[2,0]  %y = pad(%x) {pads = [0, 0, 0, 3]}",
    ],
)
def test_empty_inputs_and_outputs(body):
    graph = parse(f"graph @g {{ {body}  return %y }}")
    inputs = {"x": np.ones(graph.inputs[0].type.shape, np.float32)}
    actual, expected = compile(graph, threads=1).run(inputs)["y"], interpret(graph, inputs)["y"]
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


def test_empty_values_inside_are_taken():
    graph = parse(
        """graph @g {
          %x = input : f32[2,3]  %none = slice(%x) {begins = [0, 0], ends = [0, 3], steps = [1, 1]}
          %still = relu(%none)  %y = concat(%still, %x, %still) {axis = 0}  return %y
        }"""
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(compile(graph, threads=1)(x), x)
