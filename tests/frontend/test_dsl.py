"""The DSL: what each function builds, how operands are converted, and what is refused at which call."""

from __future__ import annotations

import numpy as np
import pytest

from convc.errors import ConvcError, DTypeError, ShapeError, VerifyError
from convc.frontend import dsl as cc
from convc.ir.ops import OPS
from convc.ir.ops.elementwise import BINARY, UNARY
from convc.ir.passes import run_passes
from convc.ir.reference import interpret
from convc.ir.text import print_graph
from tests.ir.imported_ops import IMPORTED
from tests.naive import naive_conv, naive_conv_transpose
from tests.strategies import integers_like


def lines(*outputs):
    graph = cc.graph({f"y{i}": o for i, o in enumerate(outputs)})
    return [
        line.strip()
        for line in print_graph(graph).splitlines()
        if " = " in line and " input " not in line
    ]


def value(tensor, **data):
    return interpret(cc.graph({"y": tensor}), data)["y"]


X = cc.input("x", (1, 3, 8, 8))


def test_the_readme_example():
    w1, w2 = integers_like((16, 3, 3, 3), 1), integers_like((16, 16, 3, 3), 2)
    w3, b = integers_like((10, 256), 3), np.arange(16)[::-1] / 2
    h = cc.relu(cc.conv2d(X, w1, bias=b, pads=1, name="stem"))
    h = cc.max_pool2d(h, 2, strides=2)
    h = h + cc.conv2d(h, w2, pads=(1, 1, 1, 1))
    y = cc.softmax(cc.dense(cc.flatten(h), w3, np.zeros(10)))
    graph = cc.graph({"prob": y}, name="tiny")
    assert (
        print_graph(graph)
        == """graph @tiny {
  %x = input : f32[1,3,8,8]
  %constant_1 = constant ref("weights.npz", "constant_1") : f32[16,3,3,3]
  %constant_2 = constant dense([7.5, 7.0, 6.5, 6.0, 5.5, 5.0, 4.5, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5, 0.0]) : f32[16]
  %stem = conv(%x, %constant_1, %constant_2) {pads = [1, 1, 1, 1], epilogue = [bias]} : f32[1,16,8,8]
  %relu_1 = relu(%stem) : f32[1,16,8,8]
  %max_pool_1 = max_pool(%relu_1) {kernel = [2, 2], strides = [2, 2]} : f32[1,16,4,4]
  %constant_3 = constant ref("weights.npz", "constant_3") : f32[16,16,3,3]
  %conv_1 = conv(%max_pool_1, %constant_3) {pads = [1, 1, 1, 1]} : f32[1,16,4,4]
  %add_1 = add(%max_pool_1, %conv_1) : f32[1,16,4,4]
  %reshape_1 = reshape(%add_1) {shape = [1, 256]} : f32[1,256]
  %constant_4 = constant ref("weights.npz", "constant_4") : f32[10,256]
  %constant_5 = constant dense([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]) : f32[10]
  %dense_1 = dense(%reshape_1, %constant_4, %constant_5) {epilogue = [bias]} : f32[1,10]
  %softmax_1 = softmax(%dense_1) : f32[1,10]
  return %softmax_1 as "prob"
}
"""
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_of_every_rank(rank):
    extents, kernel = (5, 6, 4)[:rank], (3, 2, 2)[:rank]
    data = integers_like((2, 4, *extents), 1)
    x = cc.input("x", data.shape)
    w, bias = integers_like((6, 2, *kernel), 2), integers_like((6,), 3)
    conv = getattr(cc, f"conv{rank}d")
    y = conv(x, w, bias, strides=2, pads=1, dilations=1, group=2)
    expected = naive_conv(data, w, (2,) * rank, (1,) * 2 * rank, (1,) * rank, 2)
    np.testing.assert_array_equal(value(y, x=data), expected + bias.reshape(-1, *(1,) * rank))

    w = integers_like((4, 3, *kernel), 4)
    transposed = getattr(cc, f"conv_transpose{rank}d")
    y = transposed(x, w, strides=2, group=2, output_padding=1)
    expected = naive_conv_transpose(
        data, w, (2,) * rank, (0,) * 2 * rank, (1,) * rank, 2, (1,) * rank
    )
    np.testing.assert_array_equal(value(y, x=data), expected)


def test_filter_flip_of_a_weight_that_comes_later():
    x, w = cc.input("x", (1, 2, 5, 6)), cc.parameter("w", (3, 2, 2, 3))
    graph = cc.graph({"y": cc.conv2d(x, w, filter_flip=True)})
    rng = np.random.default_rng(0)
    data, weight = rng.normal(size=x.shape), rng.normal(size=w.shape)
    known = cc.graph({"y": cc.conv2d(x, weight, filter_flip=True)})
    found = interpret(graph, {"x": data, "w": weight})["y"]
    np.testing.assert_allclose(found, interpret(known, {"x": data})["y"], rtol=1e-6, atol=1e-6)


def test_filter_flip_is_the_textbooks_convolution():
    x = cc.input("x", (1, 1, 5))
    signal, kernel = np.array([1.0, 2, 3, 4, 5]), np.array([1.0, 10, 100])
    y = cc.conv1d(x, kernel.reshape(1, 1, 3), filter_flip=True)
    np.testing.assert_array_equal(
        value(y, x=signal.reshape(1, 1, 5))[0, 0], np.convolve(signal, kernel, "valid")
    )


@pytest.mark.parametrize(
    ("pads", "written"),
    [
        (0, ""),
        (1, "pads = [1, 1, 1, 1]"),
        ((1, 2), "pads = [1, 2, 1, 2]"),
        ((0, 1, 2, 3), "pads = [0, 1, 2, 3]"),
    ],
)
def test_pads_have_three_forms(pads, written):
    (_, conv) = lines(cc.conv2d(X, np.ones((4, 3, 3, 3)), pads=pads))
    assert written in conv
    assert ("pads" in conv) == bool(written)


def test_operators():
    x, v = cc.input("x", (2, 3)), cc.input("v", (2, 3))
    assert lines(-((2 * x + v / 4 - 1.5) ** 2)) == [
        "%constant_1 = constant splat(2.0) : f32[]",
        "%mul_1 = mul(%constant_1, %x) : f32[2,3]",
        "%constant_2 = constant splat(4.0) : f32[]",
        "%div_1 = div(%v, %constant_2) : f32[2,3]",
        "%add_1 = add(%mul_1, %div_1) : f32[2,3]",
        "%constant_3 = constant splat(1.5) : f32[]",
        "%sub_1 = sub(%add_1, %constant_3) : f32[2,3]",
        "%constant_4 = constant splat(2.0) : f32[]",
        "%pow_1 = pow(%sub_1, %constant_4) : f32[2,3]",
        "%neg_1 = neg(%pow_1) : f32[2,3]",
    ]
    data, row = integers_like((2, 3), 1, 1, 3), np.array([1.0, 2.0, 4.0])
    for tensor, expected in {
        row + x: row + data,
        row - x: row - data,
        row * x: row * data,
        row / x: row / data,
        2.0**x: 2.0**data,
        x**row: data**row,
        x - row: data - row,
        1 - x: 1 - data,
        6 / x: 6 / data,
    }.items():
        np.testing.assert_array_equal(value(tensor, x=data), expected.astype("float64"))


def test_numbers_and_arrays_take_the_tensors_float_type():
    half = cc.input("x", (2,), "float16")
    assert (half + 1).dtype == "float16"
    assert (np.float64([1.0, 2.0]) * half).dtype == "float16"
    whole = cc.input("i", (2,), "int64")
    assert (whole + 1).dtype == "int64"
    assert cc.relu(np.float64([1.0])).dtype == "float32"


def test_arrays_are_copied():
    array = np.ones(2, "float32")
    y = X[0, 0, 0, :2] + array
    array[:] = 9
    np.testing.assert_array_equal(value(y, x=np.zeros((1, 3, 8, 8))), [1, 1])


@pytest.mark.parametrize(
    "index",
    [
        np.s_[0],
        np.s_[:, 1:3],
        np.s_[..., -1],
        np.s_[:, :, ::2, 1::3],
        np.s_[0, ..., 2:5],
        np.s_[:, -2:],
        np.s_[:, 5:2],
        np.s_[...],
        np.s_[0, 1, 2, 3],
    ],
)
def test_slicing_as_numpy_does(index):
    data = integers_like((1, 3, 8, 8), 1)
    expected = data[index]
    assert X[index].shape == expected.shape
    np.testing.assert_array_equal(value(X[index], x=data), expected)


def test_reshape_transpose_flatten_concat():
    assert X.reshape(3, -1).shape == (3, 64)
    assert X.reshape((1, 192)).shape == (1, 192)
    assert X.transpose().shape == (8, 8, 3, 1)
    assert X.transpose(0, 2, 3, 1).shape == (1, 8, 8, 3)
    assert cc.transpose(X, (0, 2, 3, 1)).shape == (1, 8, 8, 3)
    assert cc.flatten(X).shape == (1, 192)
    assert cc.flatten(X, 0).shape == (1, 192)
    assert cc.concat([X, X]).shape == (1, 6, 8, 8)
    assert cc.concat([X, np.zeros((1, 3, 8, 8))], axis=-1).shape == (1, 3, 8, 16)
    assert cc.pad(X, (0, 0, 1, 2)).shape == (1, 3, 10, 12)
    assert cc.resize_nearest(X, 2).shape == (1, 3, 16, 16)
    assert cc.resize_nearest(X, (1, 3)).shape == (1, 3, 8, 24)


def test_reductions_and_pools():
    data = integers_like((1, 3, 8, 8), 1, dtype="float64")
    for function, reference in (
        (cc.mean, np.mean),
        (cc.sum, np.sum),
        (cc.max, np.max),
        (cc.min, np.min),
    ):
        np.testing.assert_array_equal(value(function(X, (-1, 2)), x=data), reference(data, (3, 2)))
        np.testing.assert_array_equal(value(function(X), x=data), reference(data))
        assert function(X, 1, keepdims=True).shape == (1, 1, 8, 8)
    assert cc.global_average_pool(X).shape == (1, 3, 1, 1)
    assert cc.average_pool2d(X, 3, strides=2, pads=1, count_include_pad=True).shape == (1, 3, 4, 4)
    assert cc.max_pool2d(X, (2, 4), ceil_mode=True, strides=3).shape == (1, 3, 3, 3)
    assert cc.max_pool1d(cc.input("s", (1, 2, 9)), 3).shape == (1, 2, 7)
    assert cc.average_pool3d(cc.input("v", (1, 2, 4, 4, 4)), 2, strides=2).shape == (1, 2, 2, 2, 2)
    assert cc.lrn(X, 3, alpha=1.0).shape == X.shape
    assert cc.log_softmax(X, 1).shape == X.shape
    assert cc.matmul(cc.input("a", (2, 3)), np.ones((3, 4))).shape == (2, 4)


def test_batch_norm_of_arrays_folds_into_the_convolution():
    rng = np.random.default_rng(0)
    scale, bias, mean, variance = (np.abs(rng.standard_normal(4)) + 0.5 for _ in range(4))
    h = cc.conv2d(X, integers_like((4, 3, 3, 3), 1))
    graph = cc.graph({"y": cc.batch_norm(h, scale, bias, mean, variance, epsilon=0.25)})
    data = integers_like((1, 3, 8, 8), 2)
    conv = naive_conv(data, graph["constant_1"].value, (1, 1), (0,) * 4, (1, 1), 1)
    c = np.s_[:, None, None]
    expected = scale[c] * (conv - mean[c]) / np.sqrt(variance[c] + 0.25) + bias[c]
    # Scale and shift are each rounded to float32 once: 2^-24 of each product.
    bound = (
        2.0**-23 * (np.abs(scale[c] * conv) + np.abs(bias[c]) + np.abs(scale[c] * mean[c])) / 0.5
    )
    assert (np.abs(interpret(graph, {"x": data})["y"] - expected) <= bound).all()
    assert [n.op for n in run_passes(graph).compute_nodes] == ["conv"]


def test_batch_norm_of_tensors():
    parameters = [cc.input(n, (3,)) for n in ("s", "b", "m", "v")]
    y = cc.batch_norm(X, *parameters, epsilon=1.0)
    data = integers_like((1, 3, 8, 8), 2)
    given = {"s": [2, 4, 6], "b": [1, 2, 3], "m": [0, 1, 2], "v": [3, 3, 3]}
    c = np.s_[:, None, None]
    s, b, m, _ = (np.array(g, float)[c] for g in given.values())
    np.testing.assert_array_equal(value(y, x=data, **given), s * (data - m) / 2 + b)


def test_every_op_has_a_function():
    for name in (*UNARY, *BINARY):
        function = getattr(cc, name)
        operands = [X] if name in UNARY else [X, X]
        assert function(*operands, name="n").node.op == name
        assert function.__name__ == name
    spelled = {"conv": "conv2d", "conv_transpose": "conv_transpose2d", "max_pool": "max_pool2d", "average_pool": "average_pool2d", "resize": "resize_nearest", "slice": None}  # fmt: skip
    # Unshared convolutions are in `convc.nnet`; the rest is what gradients are made of.
    spelled |= dict.fromkeys(
        (
            "conv_local",
            "conv_weight_grad",
            "conv_local_data_grad",
            "conv_local_weight_grad",
            "max_pool_grad",
            "max_pool_select",
            "sum_pool_grad",
            "softmax_grad",
            "log_softmax_grad",
        )
    )
    for op in set(OPS) - IMPORTED:
        name = spelled.get(op, op.removeprefix("reduce_"))
        assert name is None or name in cc.__all__, op


def test_names_are_deterministic_and_avoid_given_ones():
    def build():
        x = cc.input("x", (2,))
        return cc.graph(cc.relu(cc.relu(cc.relu(x), name="relu_1")))

    assert [n.name for n in build().nodes] == ["x", "relu_2", "relu_1", "relu_3"]
    assert build() == build()


def test_a_network_may_be_deeper_than_pythons_stack():
    h = cc.input("x", (2,))
    for _ in range(5000):
        h = cc.relu(h)
    assert len(cc.graph(h).nodes) == 5001


def test_a_tensor_is_neither_iterable_nor_changed():
    with pytest.raises(TypeError, match="not iterable"):
        list(X)
    with pytest.raises(AttributeError):
        X.node = None
    assert repr(cc.relu(X, name="r")) == "Tensor(r: f32[1,3,8,8])"
    assert repr(cc.relu(X)) == "Tensor(relu: f32[1,3,8,8])"


W = np.ones((4, 3, 3, 3), "float32")
REFUSALS = [
    (lambda: cc.conv2d(X, W, strides=(1, 2, 3), name="stem"), ShapeError, "strides must be one number or 2 numbers; got (1, 2, 3).", "while building conv2d 'stem'"),
    (lambda: cc.conv2d(X, W, pads=(1, 2, 3)), ShapeError, "pads must be one number, 2 or 4 numbers; got (1, 2, 3).", "while building conv2d"),
    (lambda: cc.conv2d(X, W, group=2), ShapeError, "Conv group must divide the data's channels; got group 2 for C = 3.", "while building conv2d"),
    (lambda: cc.conv1d(X, W), ShapeError, "data must have rank 3 for 1 spatial axes; got f32[1,3,8,8].", "while building conv1d"),
    (lambda: cc.conv2d(X, W, np.zeros(3), name="c"), ShapeError, "conv bias operand must be f32[4]; got f32[3].", "while building conv2d 'c'"),
    (lambda: X + cc.input("v", (5,)), ShapeError, "add operands must broadcast; got f32[1,3,8,8] and f32[5].", "while building add"),
    (lambda: X * np.ones(8, "int32"), DTypeError, "mul operands must have one element type; got f32[1,3,8,8] and i32[8].", "while building mul"),
    (lambda: cc.input("i", (2,), "int32") + 0.5, DTypeError, "number must be whole beside a tensor of int32; got 0.5.", "while building add"),
    (lambda: cc.reshape(X, (5, -1)), ShapeError, "reshape must keep the element count 192 of f32[1,3,8,8]; got shape (5, -1).", "while building reshape"),
    (lambda: X[::-1], ShapeError, "slice step must be positive on axis 0; got -1.", "while building slice"),
    (lambda: X[:, 3], ShapeError, "index must be in [-3, 3) on axis 1; got 3.", "while building slice"),
    (lambda: X[None], ShapeError, "index must be integers, slices and '...'; got None on axis 0.", "while building slice"),
    (lambda: X[0, 0, 0, 0, 0], ShapeError, "index must have at most 4 entries and one '...' for f32[1,3,8,8]; got 5 entries and 0 '...'.", "while building slice"),
    (lambda: cc.max_pool2d(X, 9, name="p"), ShapeError, "pool window 9 must fit the padded extent on spatial axis 0; got 8 of f32[1,3,8,8].", "while building max_pool2d 'p'"),
    (lambda: cc.global_average_pool(cc.input("m", (2, 3))), ShapeError, "global_average_pool data must have rank 3 or more; got f32[2,3].", "while building global_average_pool"),
    (lambda: cc.batch_norm(X, np.ones(3), np.ones(3), np.ones(4), np.ones(3)), ShapeError, "batch_norm mean must have shape (C,) for data (N, C, ...); got (4,) for f32[1,3,8,8].", "while building batch_norm"),
    (lambda: cc.mean(X, 4), ShapeError, "axes must be in [-4, 4); got 4.", "while building mean"),
    (lambda: cc.concat([]), ShapeError, "concat must have at least 1 operands; got 0.", "while building concat"),
    (lambda: cc.input("x", (2, -1)), ShapeError, "input 'x' must have extents >= 0; got (2, -1).", "while building input"),
    (lambda: cc.input("", (2,)), ShapeError, "input must have a name; got ''.", "while building input"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "kind", "message", "note"), REFUSALS, ids=[r[2][:40] for r in REFUSALS]
)
def test_refusals(build, kind, message, note):
    with pytest.raises(kind) as caught:
        build()
    assert str(caught.value) == message
    assert caught.value.__notes__ == [note]


def test_graph_refusals():
    with pytest.raises(VerifyError) as caught:
        cc.graph(cc.relu(cc.input("x", (2,)), name="x"))
    assert str(caught.value) == "tensor names must be distinct in a graph; got 'x' twice."
    with pytest.raises(ConvcError) as caught:
        cc.graph({})
    assert str(caught.value) == "graph graph must have an output; got none."


def test_accum_dtype_is_the_type_of_the_sums():
    x, g = cc.input("x", (1, 2, 5, 5), "float16"), cc.input("g", (1, 3, 3, 3), "float16")
    w = np.ones((3, 2, 3, 3))
    made = {
        "y": cc.conv2d(x, w, accum_dtype="float16"),
        "up": cc.conv_transpose2d(g, w, accum_dtype="float64"),
        "dw": cc.conv_weight_grad(x, g, 3, accum_dtype="float16"),
    }
    assert [t.node.attributes.accumulate for t in made.values()] == [
        "float16",
        "float64",
        "float16",
    ]
    with pytest.raises(
        DTypeError,
        match="conv accumulate must be float64 or float32 or float16 for operands of float16; got 'int8'",
    ):
        cc.conv2d(x, w, accum_dtype="int8")
