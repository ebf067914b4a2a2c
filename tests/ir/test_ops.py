"""Elementwise, linear and moving ops and the epilogue: values by hand, refusals word for word."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convc.errors import DTypeError, ShapeError, UnknownNameError
from convc.ir import Node, Step, TensorType
from convc.ir.epilogue import apply_epilogue
from convc.ir.ops import OPS
from convc.ir.ops.conv import ConvAttributes, DenseAttributes
from convc.ir.ops.elementwise import UNARY
from convc.ir.ops.group_norm import GroupNormAttributes
from convc.ir.ops.layer_norm import LayerNormAttributes
from convc.ir.ops.linear import AxisAttributes, MatmulAttributes, ReduceAttributes
from convc.ir.ops.pool import LRNAttributes
from convc.ir.ops.shape import (
    ConcatAttributes,
    PadAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
    TransposeAttributes,
)

EPSILON = 2.0**-52
POINTS = [-800.0, -7.5, -3.0, -1.0, -0.25, -0.0, 0.0, 0.25, 1.0, 2.999, 3.0, 7.5, 800.0]

# name -> the textbook's formula with the default parameters, for |x| that does not overflow it
FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "clip": lambda x: x,
    "leaky_relu": lambda x: x if x >= 0 else 0.01 * x,
    "elu": lambda x: x if x >= 0 else math.expm1(x),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "hard_sigmoid": lambda x: max(0.0, min(1.0, 0.2 * x + 0.5)),
    "hard_swish": lambda x: x * max(0.0, min(1.0, x / 6 + 0.5)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))),
    "tanh": math.tanh,
    "softplus": lambda x: math.log1p(math.exp(x)),
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "reciprocal": lambda x: 1 / x,
    "erf": math.erf,
    "abs": abs,
    "neg": lambda x: -x,
    "sign": lambda x: (x > 0) - (x < 0),
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "asinh": math.asinh,
    "acosh": math.acosh,
    "atanh": math.atanh,
}


def run(op, arrays, attributes=None):
    row = OPS[op]
    return row.reference(arrays, row.attributes() if attributes is None else attributes)


@pytest.mark.parametrize("name", UNARY)
def test_scalar_functions_equal_their_formulas(name):
    points = [p for p in POINTS if abs(p) < 100]
    if name in ("log", "sqrt", "reciprocal"):
        points = [p for p in points if p > 0]
    if name in ("asin", "acos", "atanh"):
        points = [p for p in points if abs(p) < 1]
    if name == "acosh":
        points = [p for p in points if p >= 1]
    result = run(name, [np.array(points)])
    # Two or three roundings on each side.
    np.testing.assert_allclose(
        result, [FORMULAS[name](p) for p in points], rtol=8 * EPSILON, atol=EPSILON
    )


@pytest.mark.parametrize("name", ["sigmoid", "silu", "softplus", "elu", "tanh", "hard_swish"])
def test_activations_do_not_overflow(name):
    assert np.isfinite(run(name, [np.array(POINTS)])).all()


def test_integers_divide_towards_zero():
    a, b = np.array([7, -7, 7, -7, 6, 0, -1]), np.array([2, 2, -2, -2, -3, 5, 3])
    quotient = run("div", [a, b])
    assert quotient.dtype == a.dtype
    np.testing.assert_array_equal(quotient, [3, -3, -3, 3, -2, 0, 0])


def test_moves_by_hand():
    x = np.arange(6.0).reshape(1, 2, 3)
    np.testing.assert_array_equal(
        run("pad", [x], PadAttributes((0, 0, 1, 0, 1, 0), 9.0))[0],
        [[9, 0, 1, 2], [9, 3, 4, 5], [9, 9, 9, 9]],
    )
    np.testing.assert_array_equal(
        run("slice", [x], SliceAttributes((0, 1, 0), (1, 2, 3), (1, 1, 2))), [[[3, 5]]]
    )
    np.testing.assert_array_equal(
        run("resize", [x], ResizeAttributes((1, 1, 2)))[0], [[0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]]
    )
    assert run("transpose", [x], TransposeAttributes((2, 0, 1))).shape == (3, 1, 2)
    assert run("concat", [x, x], ConcatAttributes(1)).shape == (1, 4, 3)


def test_softmax_by_hand():
    x = np.array([[0.0, math.log(3.0)], [1000.0, 1000.0]])
    expected = [[0.25, 0.75], [0.5, 0.5]]
    np.testing.assert_allclose(run("softmax", [x]), expected, rtol=4 * EPSILON)
    np.testing.assert_allclose(run("log_softmax", [x]), np.log(expected), rtol=8 * EPSILON)


def test_reductions_by_hand():
    x = np.arange(6.0).reshape(2, 3)
    a = ReduceAttributes((0,), keepdims=False)
    for name, expected in {
        "reduce_mean": [1.5, 2.5, 3.5],
        "reduce_sum": [3, 5, 7],
        "reduce_max": [3, 4, 5],
        "reduce_min": [0, 1, 2],
    }.items():
        np.testing.assert_array_equal(run(name, [x], a), expected)


def test_epilogue_steps_run_in_order():
    y = np.array([[[1.0], [-9.0]]])
    steps = (Step("bias"), Step("relu"), Step("add"), Step("clip", (0.0, 6.0)))
    result = apply_epilogue(y, steps, [np.array([1.0, 2.0]), np.array([[[0.5], [7.0]]])], 1)
    np.testing.assert_array_equal(result, [[[2.5], [6.0]]])


@pytest.mark.parametrize("step", [Step("bias"), Step("relu"), Step("clip", (-1.5, float("inf")))])
def test_steps_print_and_parse(step):
    assert Step.parse(str(step)) == step


def test_step_refusals():
    with pytest.raises(ShapeError) as caught:
        Step("clip", (1.0,))
    assert str(caught.value) == "epilogue step clip must have 2 arguments; got (1.0,)."
    with pytest.raises(ShapeError) as caught:
        Step.parse("relu relu")
    assert str(caught.value) == "epilogue step must look like 'clip(0.0, 6.0)'; got 'relu relu'."
    with pytest.raises(UnknownNameError) as caught:
        Step("rellu")
    assert str(caught.value).startswith(
        "unknown epilogue step 'rellu'; known: bias, add, mul, relu,"
    )


def t(*shape, dtype="float32"):
    return TensorType(shape, dtype)


REFUSALS = [
    ("exp", [t(2, dtype="int8")], None, DTypeError, "exp operand must have a float type; got i8[2]."),
    ("add", [t(2), t(2, dtype="float16")], None, DTypeError, "add operands must have one element type; got f32[2] and f16[2]."),
    ("relu", [t(2, dtype="bool")], None, DTypeError, "relu operand must have a number type; got i1[2]."),
    ("add", [t(2), t(3)], None, ShapeError, "add operands must broadcast; got f32[2] and f32[3]."),
    ("mul", [t(2, dtype="bool")] * 2, None, DTypeError, "mul operands must have a number type; got i1[2] and i1[2]."),
    ("matmul", [t(2, 3), t(4, 5)], None, ShapeError, "matmul operands (.., M, K) and (.., K, N) must agree in K; got f32[2,3], f32[4,5]."),
    ("matmul", [t(2, 3), t(3, 5, dtype="float64")], None, DTypeError, "matmul operands must have one element type; got f32[2,3] and f64[3,5]."),
    ("matmul", [t(2, 2, 3), t(3, 3, 5)], None, ShapeError, "matmul batch dimensions must broadcast; got f32[2,2,3] and f32[3,3,5]."),
    ("reduce_sum", [t(2, 3)], ReduceAttributes((2,)), ShapeError, "reduce axes must be distinct and in [0, 2); got (2,)."),
    ("reduce_mean", [t(2, dtype="int32")], ReduceAttributes((0,)), DTypeError, "reduce_mean data must have a float type; got i32[2]."),
    ("reduce_max", [t(0, 2)], ReduceAttributes((0,)), ShapeError, "reduce_max data must not be empty; got f32[0,2]."),
    ("reduce_sum", [t(2, dtype="bool")], ReduceAttributes((0,)), DTypeError, "reduce_sum data must have a number type; got i1[2]."),
    ("softmax", [t(2, 3)], AxisAttributes(2), ShapeError, "softmax axis must be in [-2, 2); got 2 for f32[2,3]."),
    ("softmax", [t(2, dtype="int8")], None, DTypeError, "softmax data must have a float type; got i8[2]."),
    ("layer_norm", [t(2, 3)] + [t(1, 3)] * 2, LayerNormAttributes(2), ShapeError, "layer_norm axis must be in [0, 2); got 2 for f32[2,3]."),
    ("layer_norm", [t(2, 3), t(3), t(1, 3)], LayerNormAttributes(1), ShapeError, "layer_norm scale and bias must have the shape (1, 3) for f32[2,3] along axis 1, which must not be empty; got f32[3] and f32[1,3]."),
    ("layer_norm", [t(2, 3), t(1, 3), t(1, 3, dtype="float64")], LayerNormAttributes(1), DTypeError, "layer_norm operands must have one float type; got f32[2,3], f32[1,3], f64[1,3]."),
    ("group_norm", [t(1, 6, 4), t(1, 6, 1), t(1, 6, 1)], GroupNormAttributes(4), ShapeError, "group_norm groups must divide the channels; got 4 for f32[1,6,4]."),
    ("group_norm", [t(1, 6, 4), t(6), t(1, 6, 1)], GroupNormAttributes(2), ShapeError, "group_norm scale and bias must have the shape (1, 6, 1) for f32[1,6,4]; got f32[6] and f32[1,6,1]."),
    ("group_norm", [t(1, 6, 4), t(1, 6, 1), t(1, 6, 1)], GroupNormAttributes(2, epilogue=(Step("bias"),)), ShapeError, "group_norm epilogue must be functions of one operand; got bias."),
    ("group_norm", [t(1, 6), t(1, 6), t(1, 6)], GroupNormAttributes(2), ShapeError, "group_norm data must be (N, C, ...) with 1 to 3 axes behind, not empty; got f32[1,6]."),
    ("group_norm", [t(1, 6, 4), t(1, 6, 1), t(1, 6, 1, dtype="float64")], GroupNormAttributes(2), DTypeError, "group_norm operands must have one float type; got f32[1,6,4], f32[1,6,1], f64[1,6,1]."),
    ("reshape", [t(2, 3)], ReshapeAttributes((4,)), ShapeError, "reshape must keep the element count 6 of f32[2,3]; got shape (4,)."),
    ("transpose", [t(2, 3)], TransposeAttributes((0, 0)), ShapeError, "transpose perm must order the axes of f32[2,3]; got (0, 0)."),
    ("concat", [t(2, 3)], ConcatAttributes(2), ShapeError, "concat axis must be in [0, 2); got 2."),
    ("concat", [t(2, 3), t(3, 3)], ConcatAttributes(1), ShapeError, "concat operands must agree except on axis 1; got f32[2,3] and f32[3,3]."),
    ("concat", [t(2), t(2, dtype="float16")], ConcatAttributes(0), DTypeError, "concat operands must have one element type; got f32[2], f16[2]."),
    ("concat", [], ConcatAttributes(0), ShapeError, "concat must have at least 1 operands; got 0."),
    ("pad", [t(2)], PadAttributes((1,)), ShapeError, "pad pads must be 2 non-negative values for f32[2]; got (1,)."),
    ("slice", [t(2)], SliceAttributes((0,), (3,), (1,)), ShapeError, "slice must have 0 <= begin <= end <= extent 2 and step >= 1; got 0, 3, 1 on f32[2]."),
    ("slice", [t(2)], SliceAttributes((), (), ()), ShapeError, "slice must have one begin, end and step per axis of f32[2]; got (), (), ()."),
    ("resize", [t(2)], ResizeAttributes((0,)), ShapeError, "resize must have one factor >= 1 per axis of f32[2]; got (0,)."),
    ("lrn", [t(2)], LRNAttributes(3), ShapeError, "lrn data must be a float tensor (N, C, ...); got f32[2]."),
    ("lrn", [t(2, 3)], LRNAttributes(0), ShapeError, "lrn size must be positive; got 0."),
    ("dense", [t(2, 3), t(4, 5)], None, ShapeError, "dense data (M, C) and weight (K, C) must agree in C; got f32[2,3] and f32[4,5]."),
    ("dense", [t(2, 3), t(4, 3, dtype="float16")], None, DTypeError, "dense operands must have one float type; got f32[2,3] and f16[4,3]."),
    ("dense", [t(2, 3), t(4, 3), t(2, 4)], DenseAttributes((Step("mul"),)), ShapeError, "dense epilogue must have operands of steps bias and add alone; got mul."),
    ("matmul", [t(2, 3), t(3, 4), t(3, 4)], MatmulAttributes((Step("mul"),)), ShapeError, "matmul mul operand must be f32[2,4]; got f32[3,4]."),
    ("dense", [t(2, 3), t(4, 3)], DenseAttributes((Step("bias"),)), ShapeError, "dense must have one extra operand per operand step of its epilogue; got 0 for ['bias']."),
    ("dense", [t(2, 3), t(4, 3), t(3)], DenseAttributes((Step("bias"),)), ShapeError, "dense bias operand must be f32[4]; got f32[3]."),
    ("conv", [t(1, 1, 3), t(1, 1, 1), t(1, 1, 2)], ConvAttributes(epilogue=(Step("add"),)), ShapeError, "conv add operand must be f32[1,1,3]; got f32[1,1,2]."),
    ("conv", [t(1, 1, 3), t(1, 1, 1, dtype="float16")], None, DTypeError, "conv data and weight must have one element type; got f32[1,1,3] and f16[1,1,1]."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "types", "attributes", "kind", "message"), REFUSALS, ids=[r[4][:50] for r in REFUSALS]
)
def test_refusals(op, types, attributes, kind, message):
    with pytest.raises(kind) as caught:
        Node.of("y", op, [(f"x{i}", type) for i, type in enumerate(types)], attributes)
    assert str(caught.value) == message
