"""What `convc.nnet`'s convolutions refuse, in which words, and what they take beyond Aesara."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from convc import dsl, grad, nnet
from convc.compiler import compile
from convc.errors import DTypeError, ShapeError, UnknownNameError
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype

X = dsl.input("x", (2, 4, 7, 6))
W = np.ones((6, 4, 3, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nnet.conv2d(X, W, input_shape=(2, 4, 7, 7)), "input_shape must be the operand's shape, None where it is not known; got (2, 4, 7, 7) for (2, 4, 7, 6)."),
        (lambda: nnet.conv2d(X, W, filter_shape=(None, 3, None, None)), "filter_shape must be the operand's shape, None where it is not known; got (None, 3, None, None) for (6, 4, 3, 2)."),
        (lambda: nnet.conv2d(X, W, border_mode="same"), "border_mode must be 'valid', 'full', 'half', an int >= 0, or one int or pair of ints >= 0 per axis; got 'same'."),
        (lambda: nnet.conv2d(X, W, border_mode=(1, -1)), "border_mode must be 'valid', 'full', 'half', an int >= 0, or one int or pair of ints >= 0 per axis; got -1."),
        (lambda: nnet.conv2d(X, W, border_mode=(1, 1, 1)), "border_mode must have 2 entries for 2 spatial axes; got (1, 1, 1)."),
        (lambda: nnet.conv2d(X, W, subsample=(0, 1)), "subsample must be 2 numbers >= 1; got (0, 1)."),
        (lambda: nnet.conv2d(X, W, num_groups=3), "num_groups must divide the channels of input and output; got 3 for 4 and 6."),
        (lambda: nnet.conv2d(X, W[:, :3]), "input must have num_groups x IC/groups = 1 x 3 channels; got 4 (input (2, 4, 7, 6), filters (6, 3, 3, 2))."),
        (lambda: nnet.conv2d(X, np.ones((6, 4, 9, 2))), "filters must fit the padded input; got output (2, 6, -1, 5) of input (2, 4, 7, 6), filters (6, 4, 9, 2), padded by ((0, 0), (0, 0))."),
        (lambda: nnet.conv2d(X, np.ones((6, 5, 4, 4, 3, 2)), unshared=True), "unshared filters must be one per output point (5, 5); got (5, 4) (input (2, 4, 7, 6), filters (6, 5, 4, 4, 3, 2))."),
        (lambda: nnet.conv3d(X, W), "input must have 5 axes for 3 spatial ones; got f32[2,4,7,6]."),
        (lambda: nnet.conv2d(X, W, input_shape=(2, 4, 7, 6), image_shape=(2, 4, 7, 6)), "input_shape and image_shape must not both be given; got (2, 4, 7, 6) and (2, 4, 7, 6)."),
        (lambda: nnet.conv2d(X, W, kshp_logical=(3, 3)), "kshp_logical must not be given: it has no meaning here; dilate with filter_dilation, or use conv2d_transpose."),
        (lambda: nnet.conv2d_transpose(X, np.ones((4, 2, 3, 3)), (2, 2, None, 14)), "input_shape must have 4 entries and say the last 2, which the operands do not tell; got (2, 2, None, 14)."),
        (lambda: nnet.conv2d_transpose(X, np.ones((4, 2, 3, 3)), (2, 3, 9, 8)), "input_shape must be the operand's shape, None where it is not known; got (2, 3) for (2, 2)."),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ShapeError) as caught:
        call()
    assert str(caught.value) == message


def test_integers_are_refused_with_the_reason():
    with pytest.raises(
        DTypeError,
        match=r"input must have a float type, .*; got i8\[2,4,7,6\]\. Sums of products of integers",
    ):
        nnet.conv2d(dsl.input("x", (2, 4, 7, 6), "int8"), W)


def test_unknown_arguments_warn_and_are_ignored():
    with pytest.warns(
        UserWarning, match="conv2d ignores the arguments unroll_batch, which it does not know"
    ):
        y = nnet.conv2d(X, W, unroll_batch=4)
    assert y.shape == (2, 6, 5, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nnet.conv2d(X, W, image_shape=(None, None, 7, 6)).shape == y.shape


@pytest.mark.parametrize("offset", [-3, -1, 1, 2])
@pytest.mark.parametrize("border_mode", ["valid", "half", "full", (0, 2)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (1, 3)])
def test_a_gradient_of_another_shape_is_refused(offset, border_mode, stride, dilation):
    """Every input of the same remainder fits; one output more or less does not."""
    more = {
        "border_mode": border_mode,
        "subsample": (stride,) * 2,
        "filter_dilation": (dilation,) * 2,
    }
    x, w = dsl.input("x", (2, 1, 9, 9)), np.ones((3, 1, 3, 3))
    y = nnet.conv2d(x, w, **more)
    right = dsl.input("g", y.shape)
    assert nnet.conv2d_grad_wrt_inputs(right, w, x.shape, **more).shape == x.shape
    assert nnet.conv2d_grad_wrt_weights(x, right, w.shape, **more).shape == w.shape
    extents = tuple(max(e + offset, 1) for e in y.shape[2:])
    if extents == y.shape[2:]:
        extents = tuple(e + 9 for e in extents)
    wrong = dsl.input("g", (*y.shape[:2], *extents))
    for call in (
        lambda: nnet.conv2d_grad_wrt_inputs(wrong, w, x.shape, **more),
        lambda: nnet.conv2d_grad_wrt_weights(x, wrong, w.shape, **more),
    ):
        with pytest.raises(ShapeError, match="output_grad must have the output's shape"):
            call()


def _everything(x, w, g, rank, more):
    functions = {
        2: (nnet.conv2d, nnet.conv2d_grad_wrt_inputs, nnet.conv2d_grad_wrt_weights),
        3: (nnet.conv3d, nnet.conv3d_grad_wrt_inputs, nnet.conv3d_grad_wrt_weights),
    }
    forward, inputs, weights = functions[rank]
    return {
        "y": forward(x, w, **more),
        "dx": inputs(g, w, x.shape, **more),
        "dw": weights(x, g, w.shape, **more),
    }


EMPTY = [((0, 1, 6, 6), (1, 1, 2, 2)), ((1, 0, 6, 6), (1, 0, 2, 2)), ((1, 1, 6, 6), (0, 1, 2, 2)), ((0, 2, 5, 5, 5), (4, 1, 2, 2, 2))]  # fmt: skip


@pytest.mark.parametrize(("data", "weight"), EMPTY)
@pytest.mark.parametrize("flip", [True, False])
def test_empty_operands_give_zeros_or_nothing(data, weight, flip):
    rank, more = (
        len(data) - 2,
        {"filter_flip": flip, "num_groups": data[1] // weight[1] if weight[1] else 1},
    )
    x, w = dsl.input("x", data), dsl.input("w", weight)
    shape = nnet.get_conv_output_shape(data, weight, "valid", (1,) * rank)
    graph = dsl.graph(_everything(x, w, dsl.input("g", shape), rank, more))
    inputs = {n.name: np.ones(n.type.shape, np.float32) for n in graph.inputs}
    results = compile(graph, threads=1).run(inputs)
    assert [results[k].shape for k in ("y", "dx", "dw")] == [shape, data, weight]
    assert not any(np.any(r) for r in results.values())


UNSHARED = [
    ((2, 4, 6, 5), (4, 2, 3, 2), {"subsample": (2, 1), "filter_dilation": (1, 2), "border_mode": ((1, 0), (2, 1)), "num_groups": 2}),
    ((2, 2, 5, 4, 5), (4, 1, 2, 3, 2), {"subsample": (1, 2, 1), "filter_dilation": (2, 1, 1), "border_mode": "half", "num_groups": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "shared", "more"), UNSHARED)
@pytest.mark.parametrize("flip", [True, False])
def test_unshared_filters_that_are_all_alike_are_shared_ones(data, shared, more, flip):
    """Beyond Aesara, in 2-D and 3-D: strides, dilation, groups, asymmetric borders, flips; exact on whole numbers."""
    rank, more = len(data) - 2, {**more, "filter_flip": flip}
    rng = np.random.default_rng(0)
    pads = more["border_mode"]
    out = nnet.get_conv_output_shape(data, shared, pads, more["subsample"], more["filter_dilation"])
    one = rng.integers(-3, 4, shared).astype(np.float32)
    place = (slice(None), *(None,) * rank)
    many = np.broadcast_to(one[place], (shared[0], *out[2:], *shared[1:]))
    x, g, w = dsl.input("x", data), dsl.input("g", out), dsl.input("w", many.shape)
    local = _everything(x, w, g, rank, {**more, "unshared": True})
    alike = _everything(x, one, g, rank, more)
    graph = dsl.graph({**local, **{f"{k}_shared": v for k, v in alike.items()}})
    inputs = {
        "x": rng.integers(-3, 4, data).astype(np.float32),
        "g": rng.integers(-3, 4, out).astype(np.float32),
        "w": np.ascontiguousarray(many),
    }
    results = compile(graph, threads=1).run(inputs)
    np.testing.assert_array_equal(results["y"], results["y_shared"])
    np.testing.assert_array_equal(results["dx"], results["dx_shared"])
    summed = results["dw"].sum(tuple(range(1, 1 + rank)))
    np.testing.assert_array_equal(summed, results["dw_shared"])
    expected = interpret(graph, inputs)
    for name in ("y", "dx", "dw"):
        np.testing.assert_array_equal(results[name], expected[name])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_every_float_type(dtype):
    x, g = dsl.input("x", (2, 4, 6, 5), dtype), dsl.input("g", (2, 6, 4, 4), dtype)
    w = np.random.default_rng(0).integers(-2, 3, (6, 2, 3, 2))
    graph = dsl.graph(_everything(x, w.astype(np.float64), g, 2, {"num_groups": 2}))
    rng = np.random.default_rng(1)
    inputs = {
        n.name: rng.integers(-2, 3, n.type.shape).astype(numpy_dtype(dtype)) for n in graph.inputs
    }
    results, expected = compile(graph, threads=1).run(inputs), interpret(graph, inputs)
    for name, value in expected.items():
        # Sums of up to 32 products of at most 4: whole numbers up to 128, exact in 8 bits.
        assert str(results[name].dtype) == dtype
        np.testing.assert_array_equal(results[name].astype(np.float64), value)


def test_precision_is_the_type_of_the_sums():
    x = dsl.input("x", (1, 64, 4, 4), "float16")
    w = np.full((1, 64, 3, 3), 0.125)
    calls = {
        "half": nnet.conv2d(x, w, precision="as_input"),
        "single": nnet.conv2d(x, w),
        "double": nnet.conv2d(x, w, precision="float64"),
    }
    graph = dsl.graph(calls)
    asked = [n.attributes.accumulate for n in graph.compute_nodes if n.op == "conv"]
    assert asked == ["float16", "", "float64"]
    data = np.random.default_rng(0).uniform(0.5, 1.5, (1, 64, 4, 4)).astype(np.float16)
    results, exact = compile(graph, threads=1).run({"x": data}), interpret(graph, {"x": data})
    error = {k: np.abs(results[k] / exact[k] - 1).max() for k in calls}
    assert error["single"] <= 2**-11
    assert error["double"] <= 2**-11
    assert error["half"] > 2**-11


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_and_pools_of_half_types_add_up_in_float32(dtype):
    """One rounding at the end, whatever the number of summands: 4608 of them, added in float16, are wrong by 240 roundings."""
    x, g = dsl.input("x", (8, 16, 24, 24), dtype), dsl.input("g", (8, 8, 24, 24), dtype)
    calls = {
        "dw": nnet.conv2d_grad_wrt_weights(x, g, (8, 16, 3, 3), border_mode="half"),
        "groups": nnet.conv2d_grad_wrt_weights(
            x, g, (8, 4, 3, 3), border_mode="half", num_groups=4
        ),
        "mean": nnet.pool_2d(x, (20, 20), True, stride=(4, 4), mode="average_exc_pad"),
    }
    graph = dsl.graph(calls)
    rng = np.random.default_rng(0)
    inputs = {
        n.name: rng.uniform(0.5, 1.5, n.type.shape).astype(numpy_dtype(dtype)) for n in graph.inputs
    }
    results, exact = compile(graph, threads=1).run(inputs), interpret(graph, inputs)
    for name in calls:
        error = np.abs(results[name].astype(np.float64) / exact[name] - 1).max()
        assert error <= (2**-11 if dtype == "float16" else 2**-8) * 1.001, name


@pytest.mark.parametrize("unshared", [False, True])
def test_precision_goes_to_gradients(unshared):
    x, g = dsl.input("x", (1, 2, 5, 5), "float16"), dsl.input("g", (1, 4, 3, 3), "float16")
    w = dsl.input("w", (4, 3, 3, 2, 3, 3) if unshared else (4, 2, 3, 3), "float16")
    more = {"unshared": unshared, "precision": "float64"}
    y = nnet.conv2d(x, w, **more)
    (dx, dw) = grad([y], [x, w], [g])
    made = [
        y, dx, dw,
        nnet.conv2d_grad_wrt_inputs(g, w, x.shape, **more),
        nnet.conv2d_grad_wrt_weights(x, g, w.shape, filter_flip=False, **more),
    ]  # fmt: skip
    asked = [
        n.attributes.accumulate
        for n in dsl.graph({f"y{i}": t for i, t in enumerate(made)}).compute_nodes
        if n.op.startswith("conv")
    ]
    assert asked == ["float64"] * 5


def test_an_array_takes_the_type_of_the_tensor_beside_it():
    w = dsl.input("w", (4, 2, 3, 3), "float64")
    g = dsl.input("g", (1, 4, 3, 3), "float64")
    x = np.ones((1, 2, 5, 5))
    assert nnet.conv2d(x, w).dtype == "float64"
    assert nnet.conv2d_grad_wrt_weights(x, g, w.shape).dtype == "float64"
    assert nnet.conv2d_grad_wrt_inputs(np.ones(g.shape), w, x.shape).dtype == "float64"
    v = dsl.input("v", (1, 5, 5, 5, 2), "float64")
    assert nnet.conv3D(v, np.ones((3, 2, 2, 2, 2)), np.zeros(3), (1, 1, 1)).dtype == "float64"


def test_a_weight_gradient_says_what_it_was_asked_for():
    x, g = dsl.input("x", (1, 8, 6, 6)), dsl.input("g", (1, 8, 4, 4))
    calls = {
        "gemm": nnet.CorrMM_gradWeights()(x, g),
        "cudnn": nnet.dnn_gradweight(x, g, (8, 8, 3, 3), conv_mode="cross", precision="float64"),
    }
    model = compile(dsl.graph(calls), threads=1)
    said = [c.reason for c in model.plan.gradients.values()]
    assert said[0].startswith(
        "im2col asked for, but weight gradients have blocked, grouped, plain; estimated"
    )
    assert said[1].startswith("cudnn asked for, but weight gradients have")
    assert "accumulate must be float32; got float64" in said[1]
    (first, second) = model.plan.gradients.values()
    assert (first.algorithm, second.algorithm) == ("blocked", "plain")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_groups": 2.5}, "num_groups must be a whole number; got 2.5."),
        ({"subsample": (1.5, 1)}, "subsample must be whole numbers; got (1.5, 1)."),
        ({"input_shape": 4}, "input_shape must be whole numbers, None where one is not known; got 4."),
        ({"filter_shape": (6, "4", 3, 2)}, "filter_shape must be whole numbers, None where one is not known; got (6, '4', 3, 2)."),
    ],
)  # fmt: skip
def test_what_is_no_whole_number(arguments, message):
    with pytest.raises(DTypeError) as caught:
        nnet.conv2d(X, W, **arguments)
    assert str(caught.value) == message


def test_a_mode_that_is_no_name():
    with pytest.raises(UnknownNameError, match="unknown pool mode '3'"):
        nnet.pool_2d(X, (2, 2), ignore_border=True, mode=3)
