"""Theano's op classes: the same values as the functions, their scaling, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from convc import dsl, grad, nnet
from convc.compiler import compile
from convc.errors import ShapeError, UnknownNameError
from convc.ir.reference import interpret

GEOMETRY = {"border_mode": "half", "subsample": (2, 1), "filter_flip": False, "num_groups": 2}
RNG = np.random.default_rng(0)
X, W, G = (RNG.normal(size=s) for s in ((2, 4, 7, 6), (6, 2, 3, 3), (2, 6, 4, 6)))


def tensors():
    return (dsl.input(n, a.shape, "float64") for n, a in (("x", X), ("w", W), ("g", G)))


def values(**outputs):
    graph = dsl.graph(outputs)
    arrays = {"x": X, "w": W, "g": G}
    return interpret(graph, {n.name: arrays[n.name] for n in graph.inputs})


def test_abstract_convolutions_are_the_functions():
    x, w, g = tensors()
    found = values(
        y=nnet.AbstractConv2d(X.shape, (None, 2, 3, 3), **GEOMETRY)(x, w),
        dx=nnet.AbstractConv2d_gradInputs(kshp=W.shape, **GEOMETRY)(w, g, (7, 6)),
        dw=nnet.AbstractConv2d_gradWeights(**GEOMETRY)(x, g, (3, 3), add_assert_shape=False),
        y_function=nnet.conv2d(x, w, **GEOMETRY),
        dx_function=nnet.conv2d_grad_wrt_inputs(g, w, X.shape, **GEOMETRY),
        dw_function=nnet.conv2d_grad_wrt_weights(x, g, W.shape, **GEOMETRY),
    )
    for name in ("y", "dx", "dw"):
        np.testing.assert_array_equal(found[name], found[f"{name}_function"])
    v = dsl.input("v", (1, 2, 5, 5, 5))
    assert nnet.AbstractConv3d(subsample=(1, 2, 1))(v, np.ones((3, 2, 2, 2, 2))).shape == (
        1,
        3,
        4,
        2,
        4,
    )
    with pytest.raises(ShapeError, match="imshp must be the operand's shape"):
        nnet.AbstractConv2d_gradInputs(imshp=(2, 4, 8, 6), **GEOMETRY)(w, g, (7, 6))
    with pytest.raises(ShapeError, match="images must have num_groups x 2 channels"):
        nnet.AbstractConv2d().flops([X.shape, W.shape], [G.shape])


def test_cudnn_ops_scale_and_add():
    x, w, g = tensors()
    desc = nnet.GpuDnnConvDesc("half", (2, 1), (1, 1), "cross", num_groups=2)
    found = values(
        y=nnet.GpuDnnConv("winograd")(x, w, g, desc, alpha=2.0, beta=-0.5),
        dx=nnet.GpuDnnConvGradI()(w, g, x, desc, 0.5),
        dw=nnet.GpuDnnConvGradW()(x, g, w, desc, beta=1.0),
        y_function=nnet.conv2d(x, w, **GEOMETRY) * 2.0 - g * 0.5,
        dx_function=nnet.conv2d_grad_wrt_inputs(g, w, X.shape, **GEOMETRY) * 0.5,
        dw_function=nnet.conv2d_grad_wrt_weights(x, g, W.shape, **GEOMETRY) + w,
    )
    for name in ("y", "dx", "dw"):
        np.testing.assert_allclose(found[name], found[f"{name}_function"], rtol=1e-13, atol=1e-13)
    (conv,) = (n for n in dsl.graph(nnet.GpuDnnConv("winograd")(x, w, g, desc)).nodes if n.op == "conv")  # fmt: skip
    assert conv.attributes.algorithm == "cudnn:winograd,winograd"
    with pytest.raises(ShapeError, match="output must have the result's shape"):
        nnet.GpuDnnConv()(x, w, x, desc)
    with pytest.raises(UnknownNameError, match="unknown conv_mode 'convolve'"):
        nnet.GpuDnnConvDesc("valid", conv_mode="convolve")


@pytest.mark.parametrize("algo", ["fast", "accurate", "log"])
@pytest.mark.parametrize("mode", ["instance", "channel"])
def test_the_softmax_gradient_is_that_of_the_softmax(algo, mode):
    x = dsl.input("x", X.shape, "float64")
    dy = dsl.constant(RNG.normal(size=X.shape), dtype="float64")
    y = nnet.GpuDnnSoftmax("bc01", algo, mode)(x)
    found = values(op=nnet.GpuDnnSoftmaxGrad("bc01", algo, mode)(dy, y), rule=grad([y], x, [dy]))
    np.testing.assert_allclose(found["op"], found["rule"], rtol=1e-12, atol=1e-13)


def test_pools_of_any_number_of_axes():
    x = dsl.input("x", X.shape, "float64")
    found = values(
        line=nnet.Pool(ignore_border=True, mode="max", ndim=1)(x, (3,), (2,)),
        plane=nnet.Pool(mode="sum")(x, (3, 2)),
        plane_function=nnet.pool_2d(x, (3, 2), False, mode="sum"),
    )
    windows = np.lib.stride_tricks.sliding_window_view(X, 3, -1)[..., ::2, :]
    np.testing.assert_array_equal(found["line"], windows.max(-1))
    np.testing.assert_array_equal(found["plane"], found["plane_function"])
    with pytest.raises(ShapeError, match="ndim must be 1, 2 or 3; got 4"):
        nnet.Pool(ndim=4)


def test_no_images_are_taken():
    x = dsl.input("x", (0, 4, 7, 6))
    graph = dsl.graph(
        {
            "instance": nnet.GpuDnnSoftmax("bc01", "log", "instance")(x),
            "gradient": nnet.GpuDnnSoftmaxGrad(mode="instance")(x, x),
            "pool": nnet.Pool()(x, (2, 2)),
        }
    )
    found = compile(graph, threads=1).run({"x": np.zeros((0, 4, 7, 6), np.float32)})
    assert [v.shape for v in found.values()] == [(0, 4, 7, 6), (0, 4, 7, 6), (0, 4, 4, 3)]
