"""A network of half precision, planned and packaged as any other, on the emulated device: blocks of channels from layer to layer."""

from __future__ import annotations

import numpy as np
import pytest

from convc.ir.ops.pool import MaxPoolAttributes
from convc.ir.ops.shape import ConcatAttributes, PickChannelsAttributes
from convc.ir.reference import interpret
from convc.ir.text import parse
from convc.ir.types import numpy_dtype
from tests.cuda_emulation.emulation import compile_and_run
from tests.lowering.net import ADD, BIAS, RELU, Net


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_layers_of_half_precision_hand_each_other_blocks(dtype):
    """An image of three channels, a pool and a sum between blocked layers, and a plain result; whole numbers, so that sums are exact."""
    net = Net(dtype)
    x = net.image(2, 3, 12, 12)
    a = net.conv(x, 32, 3, 1, name="first", steps=(RELU,))
    p = net.add("max_pool", [a], MaxPoolAttributes((2, 2), (2, 2)))
    bias = net.constant(net.array(32))
    b = net.conv(p, 32, 3, 1, name="second", steps=(BIAS, ADD, RELU), extras=(bias, p))
    c = net.conv(b, 24, 1, name="third")
    graph = net.finish({"y": c})
    data = net.array(2, 3, 12, 12)
    outputs, choices = compile_and_run(
        graph, {"x": data}, target="cuda -arch=sm_90", algo="tensor_core_blocked"
    )
    assert {algorithm for algorithm, _ in choices.values()} == {"tensor_core_blocked"}
    expected = interpret(graph, {"x": data})["y"]
    error = np.abs(outputs["y"].astype(np.float64) - expected.astype(np.float64)).max()
    # Each of the three layers rounds its result once; the reference rounds once at the end.
    rounding = 2.0 ** -(11 if dtype == "float16" else 8)
    assert error <= 3 * rounding * np.abs(expected.astype(np.float64)).max()
    assert outputs["y"].dtype == numpy_dtype(dtype)


def test_channels_are_moved_in_blocks():
    """Parts of 20 and 12 channels, joined and shuffled; whole numbers, small enough for a half."""
    net = Net("float16")
    x = net.image(1, 3, 6, 6)
    parts = [net.conv(x, channels, 1, name=f"part{channels}") for channels in (20, 12)]
    joined = net.add("concat", parts, ConcatAttributes(1), name="joined")
    order = tuple(j * 8 + i for i in range(8) for j in range(4))
    shuffled = net.add("pick_channels", [joined], PickChannelsAttributes((0,) * 32, order))
    graph = net.finish({"joined": net.conv(joined, 8, 1), "shuffled": shuffled})
    data = net.array(1, 3, 6, 6)
    outputs, _ = compile_and_run(
        graph, {"x": data}, target="cuda -arch=sm_90", algo="tensor_core_blocked"
    )
    expected = interpret(graph, {"x": data})
    np.testing.assert_array_equal(outputs["shuffled"], expected["shuffled"])
    error = np.abs(outputs["joined"].astype(np.float64) - expected["joined"]).max()
    assert error <= 2.0**-10 * np.abs(expected["joined"]).max()


def test_norms_softmax_and_stacks_of_products():
    """What lies between the layers of a network with attention, in the plain way that any op is computed."""
    graph = parse(
        "graph @g { %x = input : f32[2,6,4,5] %w = input : f32[12,6,1,1] %s = input : f32[1,12,1,1] %b = input : f32[1,12,1,1]"
        " %c = conv(%x, %w) %n = group_norm(%c, %s, %b) {groups = 3, epilogue = [silu]}"
        " %q = reshape(%n) {shape = [2, 12, 20]} %t = transpose(%q) {perm = [0, 2, 1]} %a = matmul(%t, %q)"
        " %p = softmax(%a) {axis = 2} %y = matmul(%q, %p) return %y, %n }"
    )
    rng = np.random.default_rng(0)
    data = {
        n.name: rng.normal(size=n.type.shape).astype(np.float32) + 1
        for n in graph.nodes
        if n.op == "input"
    }
    outputs, _ = compile_and_run(graph, data, target="cuda -arch=sm_90")
    expected = interpret(graph, data)
    for name in expected:
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_zeros_that_are_multiplied_and_differences_of_one_value(dtype):
    graph = parse(
        f"graph @g {{ %x = input : {dtype}[6] %k = constant splat(0.0) : {dtype}[] %m = constant splat(-0.0) : {dtype}[]"
        " %a = mul(%x, %k) %b = div(%m, %x) %c = sub(%x, %x) %d = equal(%x, %x) %e = leaky_relu(%x) {alpha = 0.0} return %a, %b, %c, %d, %e }"
    )
    x = np.array([np.inf, -np.inf, np.nan, 0.0, 1.0, -2.0], numpy_dtype({"f32": "float32", "f16": "float16"}[dtype]))  # fmt: skip
    outputs, _ = compile_and_run(graph, {"x": x}, target="cuda -arch=sm_90")
    with np.errstate(all="ignore"):
        for name, expected in interpret(graph, {"x": x}).items():
            np.testing.assert_array_equal(outputs[name], expected, err_msg=name)
