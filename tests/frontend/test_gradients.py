"""Gradients against finite differences in float64: every op, each also differentiated twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings

from convc.errors import DTypeError, ShapeError, UnsupportedModelError
from convc.frontend import dsl as cc
from convc.frontend.dsl.gradient import RULES
from convc.frontend.dsl.tensor import apply
from convc.ir import ConvSpec, Step
from convc.ir.ops import OPS
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, DenseAttributes
from convc.ir.ops.conv_local import (
    LocalAttributes,
    LocalDataGradAttributes,
    LocalWeightGradAttributes,
)
from convc.ir.ops.elementwise import BINARY, UNARY
from convc.ir.ops.linear import AxisAttributes, MatmulAttributes
from convc.ir.ops.order import RunningAttributes
from convc.ir.ops.pool import MaxPoolAttributes
from convc.ir.ops.pool_grad import SumPoolGradAttributes
from convc.ir.reference import interpret
from tests.ir.imported_ops import IMPORTED
from tests.strategies import conv_specs

Build = Callable[..., cc.Tensor]


@dataclass(frozen=True)
class Case:
    """A function of some inputs; `positive` draws them in [0.5, 1.5]; `twice` also checks second derivatives."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    build: Build
    positive: bool = False
    twice: bool = True


def _step(op):
    def build(x, w, b, r):
        steps = (Step("bias"), Step("silu"), Step("add"), Step("tanh"))
        return apply(op, [x, w, b, r], ConvAttributes(pads=(1, 1), epilogue=steps))

    return build


def _scores(*operands):
    steps = (Step("mul"), Step("silu"), Step("add"), Step("bias"))
    return apply("matmul", operands, MatmulAttributes(steps))


MAX_POOL = MaxPoolAttributes((3, 2), (2, 1), (1, 0, 1, 1), (1, 2), ceil_mode=True)

CASES = [
    *(
        Case(name, ((3, 4),), lambda x, n=name: apply(n, [x]), name in ("log", "sqrt"))
        for name in UNARY
        if name not in ("clip", "asin", "acos", "atanh", "acosh")
    ),
    *(
        Case(name, ((3, 4),), lambda x, n=name: apply(n, [0.5 * cc.tanh(x)]))
        for name in ("asin", "acos", "atanh")
    ),
    Case("acosh", ((3, 4),), lambda x: apply("acosh", [1.5 + x * x])),
    Case("clip", ((3, 4),), lambda x: cc.clip(x, -0.5, 0.8)),
    *(
        Case(name, ((2, 3, 1), (3, 4)), lambda a, b, n=name: apply(n, [a, b]), True)
        for name in BINARY
    ),
    Case("conv", ((2, 3, 6, 5), (4, 3, 3, 2), (4,)), lambda x, w, b: cc.conv2d(x, w, b, strides=(2, 1), pads=(1, 0, 2, 1))),
    Case("conv", ((2, 4, 7), (4, 2, 3)), lambda x, w: cc.conv1d(x, w, dilations=2, strides=2, group=2, pads=1)),
    Case("conv", ((1, 2, 4, 3, 4), (2, 2, 2, 2, 3)), lambda x, w: cc.conv3d(x, w, strides=2, pads=1)),
    Case("conv", ((2, 3, 5), (4, 3, 3), (4,), (2, 4, 5)), _step("conv")),
    Case("conv_transpose", ((2, 3, 3, 4), (3, 2, 3, 2), (2,)), lambda x, w, b: cc.conv_transpose2d(x, w, b, strides=(2, 1), pads=(1, 0), output_padding=(1, 0))),
    Case("conv_transpose", ((1, 2, 4), (2, 3, 2)), lambda x, w: cc.conv_transpose1d(x, w, strides=2, dilations=5, output_padding=4)),
    Case("conv_transpose", ((1, 2, 4), (2, 3, 2)), lambda x, w: cc.conv_transpose1d(x, w, dilations=4, output_padding=3, pads=(0, 2))),
    Case("conv_weight_grad", ((2, 4, 6, 5), (2, 4, 3, 4)), lambda x, g: cc.conv_weight_grad(x, g, (3, 2), strides=(2, 1), pads=(1, 0), group=2)),
    Case("conv_local", ((2, 4, 5, 4), (4, 3, 4, 2, 3, 2)), lambda x, w: apply("conv_local", [x, w], LocalAttributes((2, 1), (1, 0, 1, 1), (1, 1), 2))),
    Case("conv_local_data_grad", ((1, 2, 3), (2, 3, 1, 2)), lambda g, w: apply("conv_local_data_grad", [g, w], LocalDataGradAttributes((9,), (3,), (1, 0), (2,), 2))),
    Case("conv_local_weight_grad", ((2, 1, 6), (2, 2, 3)), lambda x, g: apply("conv_local_weight_grad", [x, g], LocalWeightGradAttributes((2,), (2,)))),
    Case("dense", ((3, 4), (5, 4), (5,)), lambda x, w, b: apply("dense", [x, w, b], DenseAttributes((Step("bias"), Step("tanh"))))),
    Case("matmul", ((2, 1, 3, 4), (5, 4, 2)), cc.matmul),
    Case("matmul", ((2, 1, 3, 4), (5, 4, 2), (5, 1, 1), (3, 1), (2,)), _scores),
    Case("softmax", ((3, 4, 2),), lambda x: cc.softmax(x, 1)),
    Case("log_softmax", ((3, 4),), cc.log_softmax),
    Case("softmax_grad", ((3, 4, 2), (3, 4, 2)), lambda y, dy: apply("softmax_grad", [y, dy], AxisAttributes(1))),
    Case("log_softmax_grad", ((3, 4), (3, 4)), lambda y, dy: apply("log_softmax_grad", [y, dy], AxisAttributes(-1))),
    Case("reduce_sum", ((3, 4, 2),), lambda x: cc.sum(x, (0, 2))),
    Case("reduce_mean", ((3, 4, 2),), lambda x: cc.mean(x, 1, keepdims=True)),
    Case("reduce_max", ((3, 4, 2),), lambda x: cc.max(x, (0, 2))),
    Case("reduce_min", ((3, 4, 2),), lambda x: cc.min(x, 1)),
    Case("reshape", ((3, 4),), lambda x: x.reshape(2, 6)),
    Case("flip", ((3, 4, 2),), lambda x: cc.flip(x, (0, -1))),
    Case("transpose", ((3, 4, 2),), lambda x: x.transpose(2, 0, 1)),
    Case("concat", ((2, 3), (2, 1), (2, 4)), lambda *x: cc.concat(x, 1)),
    Case("pad", ((2, 3),), lambda x: cc.pad(x, (1, 0, 2, 1), value=3.0)),
    Case("slice", ((7, 8),), lambda x: x[1:7:3, 2:7:2]),
    Case("slice", ((7, 4),), lambda x: x[0:7:3, -1]),
    Case("resize", ((1, 2, 3, 2),), lambda x: cc.resize_nearest(x, (2, 3))),
    Case("max_pool", ((2, 3, 7, 6),), lambda x: apply("max_pool", [x], MAX_POOL)),
    Case("max_pool", ((1, 2, 5),), lambda x: cc.max_pool1d(x, 3, strides=2, pads=1)),
    Case("average_pool", ((2, 3, 7, 6),), lambda x: cc.average_pool2d(x, (3, 2), strides=2, pads=1, ceil_mode=True)),
    Case("average_pool", ((2, 3, 7),), lambda x: cc.average_pool1d(x, 3, strides=2, pads=1, count_include_pad=True)),
    Case("average_pool", ((1, 2, 4, 4, 4),), lambda x: cc.average_pool3d(x, 2, strides=2)),
    Case("sum_pool_grad", ((2, 3, 4),), lambda g: apply("sum_pool_grad", [g], SumPoolGradAttributes((7,), (3,), (2,), (1, 1)))),
    Case("lrn", ((2, 5, 3),), lambda x: cc.lrn(x, 4, alpha=0.3, beta=0.6, bias=1.5)),
    Case("reduce_mean", ((3, 2, 4), (2,), (2,)), lambda x, s, b: cc.batch_norm_training(x, s, b, epsilon=0.1)[0]),
    Case("mul", ((3, 4), (4,)), lambda x, s: cc.batch_norm(x, s, s * 2.0, s * 0.5, s * s, epsilon=0.1)),
]  # fmt: skip


def _random(shape, seed, positive=False):
    rng = np.random.default_rng(seed)
    # Away from the kinks of relu, clip and floor, and no two elements nearer than the step of a difference.
    values = np.round(rng.uniform(0.55, 1.45, shape) if positive else rng.normal(size=shape), 1)
    return values + 0.031 + 1e-4 * rng.permutation(max(1, values.size)).reshape(shape)


def value(tensors, inputs):
    graph = cc.graph({f"out{i}": t for i, t in enumerate(tensors)})
    given = {n.name: inputs[n.name] for n in graph.inputs}
    return list(interpret(graph, given).values())


def assert_derivative(scalar, wrt, gradients, inputs, seed=5):
    """Compare <gradient, d> with the central difference of the scalar along random directions d, for all of `wrt` at once."""
    found = value(gradients, inputs)
    for index, (tensor, gradient) in enumerate(zip(wrt, found, strict=True)):
        name = tensor.node.name
        assert gradient.shape == tensor.shape
        for turn in range(2):
            direction = np.random.default_rng(seed + 10 * index + turn).normal(size=tensor.shape)
            h = 1e-6
            ends = [
                value([scalar], {**inputs, name: inputs[name] + sign * h * direction})[0]
                for sign in (1, -1)
            ]
            difference = float((ends[0] - ends[1]).reshape(())) / (2 * h)
            expected = float(np.sum(gradient * direction))
            # Central differences: h^2 of the third derivative, and eps / h = 2e-10 of the value.
            scale = 1 + np.sum(np.abs(gradient * direction)) + float(np.abs(ends[0]).reshape(()))
            assert abs(difference - expected) <= 2e-8 * scale, (name, difference, expected)


def _loss(case):
    inputs = [cc.input(f"x{i}", shape, "float64") for i, shape in enumerate(case.shapes)]
    y = case.build(*inputs)
    weight = _random(y.shape, 99)
    arrays = {
        f"x{i}": _random(s, i + 7 * (case.op == "maximum"), case.positive)
        for i, s in enumerate(case.shapes)
    }
    return inputs, cc.sum(y * weight), arrays


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c.op}" for i, c in enumerate(CASES)])
def test_gradients_equal_differences(case):
    inputs, loss, arrays = _loss(case)
    gradients = cc.grad(loss, inputs)
    assert_derivative(loss, inputs, gradients, arrays)


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c.op}" for i, c in enumerate(CASES)])
def test_second_gradients_equal_differences(case):
    inputs, loss, arrays = _loss(case)
    gradients = cc.grad(loss, inputs)
    weighted = [
        cc.sum(g * g * _random(g.shape, 50 + i)) if g.shape else g * g
        for i, g in enumerate(gradients)
    ]
    total = weighted[0]
    for part in weighted[1:]:
        total = total + part
    assert_derivative(total, inputs, cc.grad(total, inputs), arrays)


def test_every_op_has_a_rule_and_a_case():
    assert set(RULES) == set(OPS) - IMPORTED
    # The pool's own gradients are reached by differentiating max_pool twice and three times.
    assert set(RULES) - {c.op for c in CASES} == {"max_pool_grad", "max_pool_select"}


def test_third_derivatives_of_max_pool():
    x = cc.input("x", (1, 2, 6), "float64")
    y = cc.max_pool1d(x, 3, strides=1)
    first = cc.grad(cc.sum(y * y * y), x)
    second = cc.grad(cc.sum(first * first), x)
    loss = cc.sum(second * second)
    arrays = {"x": _random((1, 2, 6), 3)}
    assert {"max_pool_grad", "max_pool_select"} <= {n.op for n in cc.graph(loss).nodes}
    assert_derivative(loss, [x], [cc.grad(loss, x)], arrays)


def test_ties_of_a_maximum_all_get_the_gradient():
    x = cc.input("x", (1, 1, 4))
    dx = cc.grad(cc.sum(cc.max_pool1d(x, 2, strides=2)), x)
    data = np.array([[[1.0, 1.0, 3.0, 2.0]]])
    np.testing.assert_array_equal(value([dx], {"x": data})[0], [[[1, 1, 1, 0]]])


@settings(deadline=None, max_examples=25, derandomize=True)
@given(conv_specs(dtype="float64"))
def test_gradients_of_any_convolution(spec: ConvSpec):
    x, w = cc.input("x", spec.data, "float64"), cc.input("w", spec.weight, "float64")
    geometry = (spec.strides, spec.pads, spec.dilations, spec.group)
    if spec.transposed:
        attributes = ConvTransposeAttributes(*geometry, spec.output_padding)
        y = apply("conv_transpose", [x, w], attributes)
    else:
        y = apply("conv", [x, w], ConvAttributes(*geometry))
    loss = cc.sum(y * _random(y.shape, 3))
    arrays = {"x": _random(spec.data, 1), "w": _random(spec.weight, 2)}
    assert_derivative(loss, [x, w], cc.grad(loss, [x, w]), arrays)


def test_what_an_output_does_not_depend_on_has_gradient_zero():
    x, v = cc.input("x", (2, 3)), cc.input("v", (4,))
    dx, dv = cc.grad(cc.sum(x), [x, v])
    assert (dx.shape, dv.shape) == ((2, 3), (4,))
    np.testing.assert_array_equal(value([dv], {})[0], np.zeros(4))


def test_gradients_of_inner_values_and_of_several_outputs_add_up():
    x = cc.input("x", (3,), "float64")
    h = cc.exp(x)
    y, z = h * 2.0, h * h
    dh = cc.grad([y, z], h, [np.ones(3), np.ones(3)])
    data = np.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(value([dh], {"x": data})[0], 2 + 2 * np.exp(data), rtol=1e-15)


def test_only_what_is_needed_is_built():
    x, w = cc.input("x", (1, 2, 8, 8)), cc.input("w", (4, 2, 3, 3))
    loss = cc.sum(cc.conv2d(x, w))
    assert "conv_transpose" not in {n.op for n in cc.graph(cc.grad(loss, w)).nodes}


def test_refusals():
    x, i = cc.input("x", (2, 3)), cc.input("i", (2,), "int32")
    with pytest.raises(ShapeError) as caught:
        cc.grad(x, x)
    assert str(caught.value) == (
        "outputs must have one element each where output_grads are left out; got Tensor(x: f32[2,3]). "
        "Give output_grads, or differentiate a sum or mean."
    )
    with pytest.raises(ShapeError) as caught:
        cc.grad(x, x, np.ones((3, 2)))
    assert str(caught.value) == (
        "output_grads must be like their outputs; got f32[3,2] for Tensor(x: f32[2,3])."
    )
    with pytest.raises(ShapeError) as caught:
        cc.grad([x], x, [])
    assert str(caught.value) == "output_grads must be one for each of 1 outputs; got 0."
    with pytest.raises(DTypeError) as caught:
        cc.grad(cc.sum(x), i)
    assert str(caught.value) == "wrt must have a float type; got Tensor(i: i32[2])."
    with pytest.raises(UnsupportedModelError) as caught:
        cc.grad(cc.sum(apply("running", [x], RunningAttributes(1))), x)
    assert str(caught.value) == (
        "every op between outputs and wrt must be differentiable; got Tensor(running: f32[2,3])."
    )
