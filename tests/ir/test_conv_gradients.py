"""Gradients of convolutions: the ops against nested loops, against each other, and every data shape as a transposed convolution."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings

from convc.errors import DTypeError, ShapeError
from convc.ir import ConvSpec, Node, TensorType
from convc.ir.ops import OPS
from convc.ir.ops.conv import convolve
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes, convolve_weight_grad
from convc.ir.text import parse, print_graph
from tests.naive import naive_conv
from tests.strategies import conv_specs, integers_like

few = settings(deadline=None, max_examples=40, derandomize=True)


def attributes_of(spec: ConvSpec) -> ConvWeightGradAttributes:
    return ConvWeightGradAttributes(
        spec.kernel, spec.strides, spec.pads, spec.dilations, spec.group
    )


@few
@given(conv_specs(transposed=False))
def test_weight_gradient_is_the_adjoint(spec):
    """<conv(x, w), dy> = <w, conv_weight_grad(x, dy)>, exactly on whole numbers."""
    x = integers_like(spec.data, 1, -4, 4, "float64")
    w = integers_like(spec.weight, 2, -4, 4, "float64")
    dy = integers_like(spec.output, 3, -4, 4, "float64")
    dw = OPS["conv_weight_grad"].reference([x, dy], attributes_of(spec))
    assert dw.shape == spec.weight
    assert np.sum(convolve(x, w, spec) * dy) == np.sum(w * dw)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_weight_gradient_equals_nested_loops(rank):
    """The result is linear in the weight: its derivative along one tap is the convolution with that tap alone."""
    spec = ConvSpec.of(
        (2, 4, *(4, 5, 3)[:rank]),
        (4, 2, *(2, 3, 2)[:rank]),
        strides=(2, 1, 1)[:rank],
        pads=(1, 0, 1)[:rank] + (0, 1, 1)[:rank],
        dilations=(1, 2, 1)[:rank],
        group=2,
    )
    x = integers_like(spec.data, 1, -4, 4, "float64")
    dy = integers_like(spec.output, 2, -4, 4, "float64")
    dw = convolve_weight_grad(x, dy, spec)
    for index in itertools.islice(np.ndindex(*spec.weight), 0, None, 3):
        w = np.zeros(spec.weight)
        w[index] = 1
        y = naive_conv(x, w, spec.strides, spec.pads, spec.dilations, spec.group)
        assert dw[index] == np.sum(y * dy)


def test_every_data_shape_is_a_transposed_convolutions_output():
    """The input gradient is `conv_transpose`; its output_padding is below max(stride, dilation) for every geometry."""
    count = 0
    for h, r, s, d, a, b in itertools.product(
        range(1, 9), range(1, 4), range(1, 5), range(1, 4), range(3), range(3)
    ):
        if h + a + b < d * (r - 1) + 1:
            continue
        spec = ConvSpec.of((1, 1, h), (1, 1, r), strides=(s,), pads=(a, b), dilations=(d,))
        left = (h + a + b - spec.effective_kernel[0]) % s
        back = ConvSpec.of(
            spec.output,
            spec.weight,
            strides=spec.strides,
            pads=spec.pads,
            dilations=spec.dilations,
            transposed=True,
            output_padding=(left,),
        )
        assert back.output == spec.data
        count += 1
    assert count > 1000


def test_text_form():
    text = (
        "graph @g {\n"
        "  %x = input : f32[2,4,8,8]\n"
        "  %dy = input : f32[2,6,4,4]\n"
        "  %dw = conv_weight_grad(%x, %dy) {kernel = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]} : f32[6,4,3,3]\n"
        "  return %dw\n"
        "}\n"
    )
    assert print_graph(parse(text)) == text


def t(*shape, dtype="float32"):
    return TensorType(shape, dtype)


REFUSALS = [
    (
        [t(1, 4, 5), t(1, 4, 3, dtype="float64")],
        ConvWeightGradAttributes((3,)),
        DTypeError,
        "conv_weight_grad data and gradient must have one element type; got f32[1,4,5] and f64[1,4,3].",
    ),
    (
        [t(1, 4, 5), t(1, 4, 4)],
        ConvWeightGradAttributes((3,)),
        ShapeError,
        "conv_weight_grad gradient must have the convolution's output shape (1, 4, 3); got (1, 4, 4) (data f32[1,4,5], kernel (3,)).",
    ),
    (
        [t(1, 4, 5), t(1, 4, 3)],
        ConvWeightGradAttributes((3, 3)),
        ShapeError,
        (
            "conv_weight_grad must have data (N, C, *spatial), a gradient (N, K, *spatial') of the same rank and one kernel extent per "
            "spatial axis; got f32[1,4,5], f32[1,4,3] and kernel (3, 3)."
        ),
    ),
    (
        [t(1, 4, 5), t(1, 4, 3)],
        ConvWeightGradAttributes((3,), group=3),
        ShapeError,
        "conv_weight_grad group must divide the data's channels 4; got 3.",
    ),
]


@pytest.mark.parametrize(("types", "attributes", "kind", "message"), REFUSALS)
def test_refusals(types, attributes, kind, message):
    with pytest.raises(kind) as caught:
        Node.of("dw", "conv_weight_grad", [("x", types[0]), ("dy", types[1])], attributes)
    assert str(caught.value) == message
