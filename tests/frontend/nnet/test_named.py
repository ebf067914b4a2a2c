"""The functions named after implementations and old modules: values against plain NumPy, refusals, and the algorithms they ask for."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from convc import dsl, nnet
from convc.compiler import compile
from convc.errors import ShapeError, UnknownNameError
from convc.ir.reference import interpret

RNG = np.random.default_rng(0)


def whole(*shape: int) -> np.ndarray:
    return RNG.integers(-3, 4, shape).astype(np.float64)


def value(build, *arrays: np.ndarray) -> np.ndarray:
    """Return what a function of tensors means, in float64."""
    names = [f"x{i}" for i in range(len(arrays))]
    tensors = [dsl.input(n, a.shape, "float64") for n, a in zip(names, arrays, strict=True)]
    graph = dsl.graph({"y": build(*tensors)})
    return interpret(graph, dict(zip(names, arrays, strict=True)))["y"]


def correlation(x: np.ndarray, w: np.ndarray, strides: tuple[int, ...]) -> np.ndarray:
    """Return the valid cross-correlation of (N, C, *spatial) with (K, C, *kernel)."""
    n = len(strides)
    windows = sliding_window_view(x, w.shape[2:], tuple(range(2, 2 + n)))
    windows = windows[(slice(None), slice(None), *(slice(None, None, s) for s in strides))]
    axes = [1, *range(2 + n, 2 + 2 * n)]
    y = np.tensordot(windows, w, (axes, [1, *range(2, 2 + n)]))
    return np.moveaxis(y, -1, 1)


# ---- convolutions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "kernel", "result"),
    [
        ((7, 6), (3, 2), (5, 5)),
        ((4, 7, 6), (3, 2), (4, 5, 5)),
        ((7, 6), (3, 3, 2), (3, 5, 5)),
        ((4, 7, 6), (3, 3, 2), (4, 3, 5, 5)),
    ],
)
def test_signal_conv2d(image, kernel, result):
    x, w = whole(*image), whole(*kernel)
    y = value(nnet.signal.conv2d, x, w)
    assert y.shape == result
    flipped = w.reshape(-1, 1, 3, 2)[..., ::-1, ::-1]
    np.testing.assert_array_equal(
        y, correlation(x.reshape(-1, 1, 7, 6), flipped, (1, 1)).reshape(result)
    )


def test_conv3D_is_a_correlation_with_a_bias_and_its_gradients_are_its_transposes():  # noqa: N802
    V, W, b = whole(2, 6, 5, 7, 3), whole(4, 3, 2, 2, 3), whole(4)
    d = (1, 3, 2)
    y = value(lambda v, w, c: nnet.conv3D(v, w, c, d), V, W, b)
    x, w = V.transpose(0, 4, 1, 2, 3), W.transpose(0, 4, 1, 2, 3)
    np.testing.assert_array_equal(y, correlation(x, w, d).transpose(0, 2, 3, 4, 1) + b)
    H, c = whole(*y.shape), whole(3)
    back = value(lambda h, w, c: nnet.convTransp3D(w, c, d, h, (6, 5, 7)), H, W, c)
    slope = value(lambda v, h: nnet.convGrad3D(v, d, W.shape, h), V, H)
    # <conv(V), H> = <V, transpose(H)> = <W, grad(V, H)>
    inner = np.sum((y - b) * H)
    assert np.sum(V * (back - c)) == inner
    assert np.sum(W * slope) == inner
    least = nnet.convTransp3D(dsl.input("W", W.shape), c, d, dsl.input("H", H.shape))
    assert least.shape == (2, 6, 5, 6, 3)


@pytest.mark.parametrize(("extent", "pad", "stride"), [(8, 1, 2), (7, 0, 2), (9, 2, 3), (6, 0, 1)])
def test_filter_acts_keep_a_window_that_hangs_over(extent, pad, stride):
    images, filters = whole(3, extent, extent, 5), whole(3, 3, 3, 4)
    op = nnet.FilterActs(pad=pad, stride=stride)
    y = value(op, images, filters)
    out = -(-(extent + 2 * pad - 3) // stride) + 1
    assert y.shape == (4, out, out, 5)
    end = (out - 1) * stride + 3 - extent - pad
    padded = np.pad(images, [(0, 0), (pad, end), (pad, end), (0, 0)])
    expected = correlation(
        padded.transpose(3, 0, 1, 2), filters.transpose(3, 0, 1, 2), (stride, stride)
    )
    np.testing.assert_array_equal(y, expected.transpose(1, 2, 3, 0))
    g = whole(*y.shape)
    dx = value(lambda a, w: nnet.ImageActs(pad, stride=stride)(a, w, (extent, extent)), g, filters)
    dw = value(lambda x, a: nnet.WeightActs(pad, stride=stride)(x, a, (3, 3)), images, g)
    assert np.sum(images * dx) == np.sum(y * g) == np.sum(filters * dw)


def test_corr_mm_and_its_gradients():
    x, w = whole(2, 4, 9, 8), whole(6, 2, 3, 2)
    op = {"border_mode": (1, 0), "subsample": (2, 1), "num_groups": 2}
    y = value(lambda a, b: nnet.CorrMM(**op)(a, b), x, w)
    plain = value(lambda a, b: nnet.conv2d(a, b, filter_flip=False, **op), x, w)
    np.testing.assert_array_equal(y, plain)
    g = whole(*y.shape)
    dx = value(lambda k, t: nnet.CorrMM_gradInputs(**op)(k, t, (9, 8)), w, g)
    dw = value(lambda i, t: nnet.CorrMM_gradWeights(**op)(i, t, (3, 2)), x, g)
    assert np.sum(x * dx) == np.sum(y * g) == np.sum(w * dw)
    with pytest.raises(ShapeError, match="shape must be 2 extents, and given where stride"):
        nnet.CorrMM_gradInputs(**op)(w, dsl.input("g", y.shape))
    # With stride 1 it follows from the operands.
    full = nnet.Corr3dMM_gradInputs("full")(
        np.ones((4, 3, 2, 2, 2)), dsl.input("g", (1, 4, 5, 5, 5))
    )
    assert full.shape == (1, 3, 4, 4, 4)
    assert nnet.Corr3dMM_gradWeights()(
        dsl.input("x", (1, 3, 5, 5, 5)), dsl.input("g", (1, 4, 4, 3, 4))
    ).shape == (4, 3, 2, 3, 2)


def test_causal_convolution_sees_the_present_and_the_past():
    x = np.zeros((1, 1, 8))
    x[0, 0, 3] = 1
    w = np.array([[[1.0, 2.0, 4.0]]])
    y = value(lambda a: nnet.causal_conv1d(a, w, (1, 1, 3), filter_dilation=2), x)
    assert y.ravel().tolist() == [0, 0, 0, 1, 0, 2, 0, 4]
    many = np.repeat(w[:, None], 8, 1)
    local = value(lambda a: nnet.causal_conv1d(a, many, None, filter_dilation=2, unshared=True), x)
    np.testing.assert_array_equal(local, y)


def test_legacy_conv2d_takes_hints_and_refuses_what_it_never_had():
    x = dsl.input("x", (2, 3, 8, 8))
    y = nnet.conv.conv2d(
        x, np.ones((4, 3, 3, 3)), (2, 3, 8, 8), (4, 3, 3, 3), unroll_batch=2, openmp=True
    )
    assert y.shape == (2, 4, 6, 6)
    for wrong, message in (
        ({"border_mode": "half"}, "border_mode must be 'valid' or 'full'; got 'half'"),
        ({"version": 3}, "version must be -1 or 'no_fft'; got 3"),
        ({"imshp_logical": (1, 2)}, "imshp_logical must not be given"),
        ({"image_shape": (2, 3, 8, 9)}, "image_shape|input_shape must be the operand's shape"),
    ):
        with pytest.raises(ShapeError, match=message):
            nnet.conv.conv2d(x, np.ones((4, 3, 3, 3)), **wrong)
    with pytest.raises(UnknownNameError, match="Did you mean 'unroll_kern'"):
        nnet.conv.conv2d(x, np.ones((4, 3, 3, 3)), unrol_kern=1)


def test_names_of_implementations_ask_for_them():
    x, w = dsl.input("x", (1, 16, 20, 20)), RNG.normal(size=(16, 16, 3, 3))
    calls = {
        "corr": nnet.CorrMM("half")(x, w),
        "gpu": nnet.GpuCorrMM()(x, w),
        "fft": nnet.conv2d_fft(x, w, border_mode="full"),
        "dnn": nnet.dnn_conv(x, w, conv_mode="cross"),
        "dnn_small": nnet.dnn_conv(x, w, algo="small"),
        "dnn_wino": nnet.dnn_conv(x, w, algo="winograd"),
        "no_fft": nnet.conv.conv2d(x, w, version="no_fft"),
        "strided": nnet.dnn_conv(x, w, subsample=(2, 2), algo="fft"),
    }
    model = compile(dsl.graph(calls), threads=1)
    choice = {o.name: model.plan[o.value] for o in model.graph.outputs}
    assert [choice[k].algorithm for k in ("corr", "gpu", "fft", "dnn_small", "dnn_wino", "no_fft")] == [
        "im2col", "im2col", "fft", "im2col", "winograd", "direct",
    ]  # fmt: skip
    assert choice["dnn"].reason.startswith(
        "cudnn asked for, but this target has no such algorithm; "
    )
    assert "fft asked for, but strides must be" in choice["strided"].reason
    data = RNG.normal(size=(1, 16, 20, 20)).astype(np.float32)
    results, exact = model.run({"x": data}), interpret(dsl.graph(calls), {"x": data})
    for name in calls:
        np.testing.assert_allclose(results[name], exact[name], atol=2e-4)


def test_the_cudnn_module_refuses_what_theano_1_0_refuses():
    x, w = dsl.input("x", (1, 4, 8, 8)), np.ones((4, 4, 3, 3))
    with pytest.raises(ShapeError, match="workmem must be left out"):
        nnet.dnn_conv(x, w, workmem="small")
    for wrong in ({"algo": "smal"}, {"conv_mode": "convolution"}, {"direction_hint": "back"}):
        with pytest.raises(UnknownNameError):
            nnet.dnn_conv(x, w, **wrong)


def test_dnn_gradients_are_adjoint():
    for forward, inputs, weights, shapes in (
        (nnet.dnn_conv, nnet.dnn_gradinput, nnet.dnn_gradweight, ((2, 4, 7, 6), (6, 2, 3, 2))),
        (
            nnet.dnn_conv3d,
            nnet.dnn_gradinput3d,
            nnet.dnn_gradweight3d,
            ((1, 2, 4, 5, 4), (4, 1, 2, 2, 3)),
        ),
    ):
        x, w = whole(*shapes[0]), whole(*shapes[1])
        for mode in ("conv", "cross"):
            more = {
                "subsample": 2,
                "dilation": 1,
                "border_mode": 1,
                "conv_mode": mode,
                "num_groups": 2,
            }
            y = value(lambda a, b, f=forward, m=more: f(a, b, **m), x, w)
            g = whole(*y.shape)
            dx = value(lambda k, t, f=inputs, m=more, s=x.shape: f(k, t, s, **m), w, g)
            dw = value(lambda i, t, f=weights, m=more, s=w.shape: f(i, t, s, **m), x, g)
            assert np.sum(x * dx) == np.sum(y * g) == np.sum(w * dw)


# ---- pools ------------------------------------------------------------------------------------------------------------


def pooled(x: np.ndarray, ws, stride, pad, mode, ignore_border) -> np.ndarray:
    """Return a pool over the last two axes, one window after another."""
    extents = x.shape[-2:]
    shape = nnet.pool.pool_output_shape(extents, ws, stride, pad, ignore_border)
    y = np.zeros((*x.shape[:-2], *shape))
    for at in itertools.product(*map(range, shape)):
        low = [p * s - b for p, s, b in zip(at, stride, pad, strict=True)]
        high = [min(a + w, e + b) for a, w, e, b in zip(low, ws, extents, pad, strict=True)]
        inside = tuple(
            slice(max(0, a), min(h, e)) for a, h, e in zip(low, high, extents, strict=True)
        )
        box = x[(..., *inside)].reshape(*x.shape[:-2], -1)
        counted = (
            np.prod([h - a for a, h in zip(low, high, strict=True)])
            if mode == "average_inc_pad"
            else box.shape[-1]
        )
        y[(..., *at)] = (
            box.max(-1) if mode == "max" else box.sum(-1) / (1 if mode == "sum" else counted)
        )
    return y


POOLS = [
    ((9, 8), (3, 2), (2, 2), (0, 0), False),
    ((9, 8), (3, 2), (2, 3), (2, 1), True),
    ((5, 4), (2, 2), (3, 3), (0, 0), False),
    ((8, 5), (9, 9), (1, 1), (0, 0), False),
    ((3, 10), (5, 3), (2, 1), (0, 0), False),
    ((6, 7), (2, 3), (2, 3), (1, 0), True),
]


@pytest.mark.parametrize("mode", ["max", "sum", "average_inc_pad", "average_exc_pad"])
@pytest.mark.parametrize(("extents", "ws", "stride", "pad", "ignore"), POOLS)
def test_pools(mode, extents, ws, stride, pad, ignore):
    for lead in ((), (3,), (2, 3), (2, 1, 3)):
        x = whole(*lead, *extents)
        y = value(lambda a: nnet.pool_2d(a, ws, ignore, stride, pad, mode), x)
        np.testing.assert_allclose(y, pooled(x, ws, stride, pad, mode, ignore), rtol=0, atol=1e-14)


def test_a_window_that_fits_nowhere_pools_nothing():
    assert nnet.pool_2d(dsl.input("x", (4, 2, 8, 5)), (9, 9), True, (1, 1)).shape == (4, 2, 0, 0)
    assert nnet.pool_3d(dsl.input("x", (2, 2, 6, 6, 5)), (2, 3, 2), False).shape == (2, 2, 3, 2, 3)


def test_pool_arguments():
    x = dsl.input("x", (1, 2, 8, 8))
    with pytest.warns(UserWarning, match="ignore_border is False where it is not given"):
        assert nnet.pool_2d(x, (3, 3)).shape == (1, 2, 3, 3)
    assert nnet.signal.pool_2d(x, ds=(2, 2), st=(1, 1), padding=1, ignore_border=True).shape == (
        1,
        2,
        9,
        9,
    )
    assert nnet.dnn_pool(x, (2, 2)).shape == (1, 2, 7, 7)
    for wrong in (
        {"pad": 1},
        {"pad": 2, "ignore_border": True},
        {"ds": (2, 2)},
        {"pad": (0, 0, 0)},
    ):
        with pytest.raises(ShapeError):
            nnet.pool_2d(x, (2, 2), **{"ignore_border": False, **wrong})
    with pytest.raises(UnknownNameError, match="Did you mean 'average_inc_pad'"):
        nnet.pool_2d(x, (2, 2), True, mode="average_incpad")


def test_maxima_stay_where_they_are():
    x = np.array([[1.0, 2.0, 5.0], [4.0, 3.0, 6.0], [0.0, 0.0, 9.0]])[None, None]
    y = value(lambda a: nnet.max_pool_2d_same_size(a, (2, 2)), x)
    assert y[0, 0].tolist() == [[0, 0, 0], [4, 0, 0], [0, 0, 0]]


# ---- softmax ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ["fast", "accurate", "log"])
@pytest.mark.parametrize("mode", ["instance", "channel"])
def test_softmax_of_images(algo, mode):
    x = RNG.normal(size=(2, 3, 4, 5))
    powers = np.exp(x)
    expected = powers / powers.sum((1, 2, 3) if mode == "instance" else 1, keepdims=True)
    found = value(nnet.GpuDnnSoftmax("bc01", algo, mode), x)
    np.testing.assert_allclose(np.exp(found) if algo == "log" else found, expected, rtol=1e-13)


def test_softmax():
    x = RNG.normal(size=(3, 5)) + 1000
    np.testing.assert_allclose(value(nnet.softmax, x).sum(1), 1)
    np.testing.assert_allclose(value(lambda a: nnet.softmax(a, 0), x).sum(0), 1)
    np.testing.assert_allclose(np.exp(value(nnet.logsoftmax, x)), value(nnet.softmax, x))
    with pytest.raises(UnknownNameError, match="unknown mode 'pixel'; known: instance, channel"):
        nnet.GpuDnnSoftmax(mode="pixel")


# ---- upsampling -------------------------------------------------------------------------------------------------------


def upsampled(x: np.ndarray, p: int, q: int, axis: int) -> np.ndarray:
    """Return the definition, with p/q in lowest terms: linear between the points, clamped at the ends."""
    extent, p, q = x.shape[axis], p // math.gcd(p, q), q // math.gcd(p, q)
    places = np.clip((np.arange(0, extent * p, q) - (p - 1) // 2) / p, 0, extent - 1)
    low = np.minimum(np.floor(places).astype(int), extent - 1)
    high = np.minimum(low + 1, extent - 1)
    rest = (places - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    return np.take(x, low, axis) * (1 - rest) + np.take(x, high, axis) * rest


@pytest.mark.parametrize("ratios", [((r, 1), (r, 1)) for r in range(1, 10)] + [((7, 4), (5, 3)), ((24, 20), (24, 20)), ((2, 3), (3, 1)), ((1, 4), (9, 2))])  # fmt: skip
def test_bilinear_upsampling(ratios):
    x = whole(2, 3, 6, 5)
    expected = upsampled(upsampled(x, *ratios[0], 2), *ratios[1], 3)
    found = value(lambda a: nnet.frac_bilinear_upsampling(a, ratios), x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    if ratios[0] == ratios[1] and ratios[0][1] == 1:
        by_ratio = value(lambda a: nnet.bilinear_upsampling(a, ratios[0][0], batch_size=2), x)
        np.testing.assert_array_equal(by_ratio, found)


def test_bilinear_kernels_and_refusals():
    assert nnet.bilinear_kernel_1D(3, normalize=False).tolist() == [1, 2, 3, 2, 1]
    assert nnet.bilinear_kernel_2D(2).tolist() == [
        [0.25, 0.5, 0.25],
        [0.5, 1, 0.5],
        [0.25, 0.5, 0.25],
    ]
    x = dsl.input("x", (2, 3, 4, 5))
    for wrong, message in (
        ({}, "exactly one of ratio and frac_ratio"),
        ({"ratio": 2, "frac_ratio": (2, 1)}, "exactly one of ratio and frac_ratio"),
        ({"frac_ratio": (3, 2)}, "use_1D_kernel must be False with frac_ratio"),
        ({"ratio": 2, "num_input_channels": 4}, r"got \(None, 4\) for \(2, 3\)"),
        ({"ratio": 0}, "ratio must be whole and >= 1, .*; got 0"),
        ({"ratio": 1.5}, "ratio must be whole and >= 1, .*; got 1.5"),
        ({"frac_ratio": (1.5, 2), "use_1D_kernel": False}, "whole and >= 1; got"),
        ({"frac_ratio": ((3, 2), 2), "use_1D_kernel": False}, "whole and >= 1; got"),
    ):
        with pytest.raises(ShapeError, match=message):
            nnet.bilinear_upsampling(x, **wrong)


# ---- compiled ---------------------------------------------------------------------------------------------------------


def test_all_of_them_in_one_module():
    x, clip, row = (
        dsl.input("x", (2, 4, 9, 8)),
        dsl.input("clip", (2, 5, 4, 8, 8)),
        dsl.input("row", (2, 4, 12)),
    )
    chwn = dsl.input("chwn", (4, 9, 9, 2))
    outputs = {
        "signal": nnet.signal.conv2d(x[0], whole(3, 3, 2)),
        "conv3d2d": nnet.conv3d2d.conv3d(clip, whole(3, 3, 4, 2, 3), border_mode="full"),
        "conv3D": nnet.conv3D(
            dsl.transpose(clip, (0, 1, 3, 4, 2)), whole(3, 2, 2, 2, 4), whole(3), (1, 2, 2)
        ),
        "acts": nnet.FilterActs(1, stride=2)(chwn, whole(4, 3, 3, 8)),
        "separable": nnet.separable_conv2d(x, whole(8, 1, 3, 3), whole(5, 8, 1, 1), 4),
        "causal": nnet.causal_conv1d(row, whole(4, 4, 3), (4, 4, 3)),
        "sum": nnet.pool_2d(x, (2, 2), False, mode="sum"),
        "same": nnet.max_pool_2d_same_size(x, (3, 2)),
        "twice": nnet.bilinear_upsampling(x, 2),
        "unshared": nnet.conv2d(x, whole(2, 7, 7, 4, 3, 2), unshared=True),
    }
    graph = dsl.graph(outputs)
    inputs = {n.name: RNG.integers(-3, 4, n.type.shape).astype(np.float32) for n in graph.inputs}
    results, expected = (
        compile(graph, threads=1, algo="generic").run(inputs),
        interpret(graph, inputs),
    )
    for name in outputs:
        # Whole numbers, and quarters of them.
        np.testing.assert_array_equal(results[name], expected[name], err_msg=name)
