"""Forward and backward graphs compiled: every gradient against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.frontend.dsl.tensor import apply
from convc.ir.ops.pool import MaxPoolAttributes
from convc.ir.reference import interpret
from tests.tolerance import assert_exact


def small_network(dtype: str):
    """Return a loss and parameters: strided, padded, grouped and transposed convolutions, pools, batch norm, softmax."""
    x, target = cc.input("x", (2, 3, 12, 12), dtype), cc.input("target", (2, 5), dtype)
    shapes = {
        "w1": (16, 3, 3, 3),
        "b1": (16,),
        "w2": (24, 16, 3, 3),
        "scale": (24,),
        "w3": (24, 4, 3, 2),
        "w4": (5, 40),
    }
    p = {name: cc.input(name, shape, dtype) for name, shape in shapes.items()}
    h = cc.max_pool2d(
        cc.relu(cc.conv2d(x, p["w1"], p["b1"], pads=1)), 3, strides=2, pads=(0, 0, 1, 1)
    )
    h = cc.conv2d(h, p["w2"], strides=2, pads=1)
    mean = cc.mean(h, (0, 2, 3), keepdims=True)
    centred = h - mean
    variance = cc.mean(centred * centred, (0, 2, 3), keepdims=True)
    h = centred / cc.sqrt(variance + 1e-3) * p["scale"].reshape(1, 24, 1, 1)
    h = cc.silu(cc.conv_transpose2d(h, p["w3"], strides=(2, 1), group=2, pads=(1, 0, 0, 1)))
    h = cc.average_pool2d(h, 3, strides=2, pads=1)
    logits = cc.dense(cc.flatten(h)[:, :40], p["w4"])
    loss = -cc.mean(cc.sum(cc.log_softmax(logits) * target, 1))
    return loss, p


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_a_small_network(dtype):
    loss, parameters = small_network(dtype)
    gradients = cc.grad(loss, list(parameters.values()))
    outputs = {
        "loss": loss,
        **{f"d_{n}": g for n, g in zip(parameters, gradients, strict=True)},
    }
    graph = cc.graph(outputs)
    rng = np.random.default_rng(0)
    inputs = {
        n.name: (rng.normal(size=n.type.shape) * (0.3 if n.type.rank > 1 else 1)).astype(dtype)
        for n in graph.inputs
    }
    actual, expected = compile(graph, threads=1).run(inputs), interpret(graph, inputs)
    # A few hundred roundings on the way to the first layer's gradient.
    tolerance = 2e-4 if dtype == "float32" else 1e-12
    for name in outputs:
        scale = np.abs(expected[name]).max()
        assert scale > 1e-4
        assert np.abs(actual[name] - expected[name]).max() <= tolerance * scale, name


@pytest.mark.parametrize("channels", [3, 16])
def test_gradients_of_pools_are_exact_on_whole_numbers(channels):
    """Also with ties, dilation and windows that hang over; 16 channels are a block."""
    x = cc.input("x", (2, channels, 9, 8))
    outputs = {}
    for i, a in enumerate(
        (
            MaxPoolAttributes((3, 3), (2, 2), (1, 1, 1, 1)),
            MaxPoolAttributes((3, 2), (2, 1), (1, 0, 1, 1), (1, 2), ceil_mode=True),
            MaxPoolAttributes((2, 2), (3, 3)),
        )
    ):
        # A pointwise convolution before it puts the pool into blocks.
        h = cc.conv2d(x, np.eye(channels).reshape(channels, channels, 1, 1))
        y = apply("max_pool", [h], a)
        g = cc.constant(np.random.default_rng(i).integers(-4, 5, y.shape), dtype="float32")
        dh = cc.grad(y, h, g)
        outputs[f"dx{i}"] = cc.grad(dh, g, h)
        outputs[f"dh{i}"] = dh
        mean = cc.average_pool2d(h, 2, strides=2, pads=(0, 1), count_include_pad=True)
        outputs[f"mean{i}"] = cc.grad(cc.sum(mean * mean), h)
    graph = cc.graph(outputs)
    data = np.random.default_rng(1).integers(-3, 4, (2, channels, 9, 8)).astype(np.float32)
    actual, expected = (
        compile(graph, threads=1).run({"x": data}),
        interpret(graph, {"x": data}),
    )
    for name in outputs:
        assert_exact(actual[name], expected[name])


def test_a_constant_image_is_read_with_its_padding():
    """Data known at compile time under weights of run time, which no pass folds: its halo is zeros like any other's."""
    rng = np.random.default_rng(0)
    data = cc.constant(rng.integers(-4, 5, (2, 5, 6, 7)), dtype="float32")
    outputs, inputs = {}, {}
    for kernel, pads in ((3, 1), (5, (2, 0, 1, 2)), (1, 0)):
        w = cc.input(f"w{kernel}", (17, 5, kernel, kernel))
        inputs[f"w{kernel}"] = rng.integers(-4, 5, w.shape).astype(np.float32)
        outputs[f"y{kernel}"] = cc.conv2d(data, w, pads=pads)
    graph = cc.graph(outputs)
    actual = compile(graph, threads=1, algo="direct").run(inputs)
    for name, expected in interpret(graph, inputs).items():
        assert_exact(actual[name], expected)


@pytest.mark.parametrize("keepdims", [False, True])
def test_long_sums_do_not_drift(keepdims):
    """A chain of 100 000 float32 additions of 0.1 is wrong by 1e-4; added up axis by axis it is right to a few roundings."""
    x = cc.input("x", (8, 18, 112, 112))
    outputs = {
        "mean": cc.mean(x, (0, 2, 3), keepdims=keepdims),
        "image": cc.mean(cc.relu(cc.conv2d(x, np.ones((16, 18, 1, 1)))), (0, 2, 3), keepdims=True),
        "all": cc.sum(x, keepdims=keepdims),
    }
    graph = cc.graph(outputs)
    inputs = {"x": np.full(x.shape, 0.1, np.float32)}
    actual, expected = compile(graph, threads=2).run(inputs), interpret(graph, inputs)
    for name in outputs:
        assert actual[name].shape == expected[name].shape
        np.testing.assert_allclose(actual[name], expected[name], rtol=3e-6)
