"""ConvSpec: its key, its derived facts, and every message with which it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from convc.errors import DTypeError, ShapeError
from convc.ir import ConvSpec
from convc.ir.spec import pooled_extent
from convc.ir.types import FLOATS
from tests.strategies import conv_specs

few = settings(deadline=None, max_examples=60, derandomize=True)
DATA, WEIGHT = (1, 4, 5, 6), (8, 4, 3, 3)


@few
@given(conv_specs())
def test_key_round_trips(spec):
    assert ConvSpec.parse(spec.key) == spec


@pytest.mark.parametrize("dtype", FLOATS)
def test_key_names_every_element_type(dtype):
    spec = ConvSpec.of(DATA, WEIGHT, dtype=dtype)
    assert ConvSpec.parse(spec.key) == spec


def test_parse_refuses_other_text():
    with pytest.raises(ShapeError) as caught:
        ConvSpec.parse("pool2d")
    assert str(caught.value) == (
        "convolution key must look like 'conv2d-f32-n1c8h5w5-k4r3s3-st1x1-pd0.0.0.0-dl1x1-g1'; got 'pool2d'."
    )


@few
@given(conv_specs())
def test_flops_count_every_multiply_add_of_the_direct_method(spec):
    pixels = 1
    for extent in spec.data[2:] if spec.transposed else spec.output[2:]:
        pixels *= extent
    taps = 1
    for extent in spec.kernel:
        taps *= extent
    per_group = spec.in_channels // spec.group * (spec.out_channels // spec.group)
    assert spec.flops == 2 * spec.data[0] * pixels * taps * per_group * spec.group


def test_facts():
    depthwise = ConvSpec.of((1, 8, 5, 5), (16, 1, 3, 3), group=8)
    assert (depthwise.is_depthwise, depthwise.is_pointwise) == (True, False)
    assert ConvSpec.of((1, 8, 5, 5), (4, 8, 1, 1)).is_pointwise
    assert depthwise.with_batch(3).output == (3, 16, 3, 3)
    assert depthwise.nbytes == 4 * (200 + 144 + 144)


REFUSALS = [
    (
        {"data": (1, 4)},
        ShapeError,
        "Conv data must have rank 3, 4 or 5, (N, C, *spatial); got (1, 4).",
    ),
    (
        {"weight": (8, 4, 3)},
        ShapeError,
        "Conv weight must have the data's rank 4; got (8, 4, 3) for data (1, 4, 5, 6).",
    ),
    (
        {"dtype": "int8"},
        DTypeError,
        "Conv element type must be one of float64, float32, float16, bfloat16, int32, uint8; got 'int8'.",
    ),
    (
        {"strides": (2,)},
        ShapeError,
        "Conv strides must have 2 values for 2 spatial dimensions; got (2,).",
    ),
    (
        {"pads": (1, 1)},
        ShapeError,
        "Conv pads must have 4 values for 2 spatial dimensions; got (1, 1).",
    ),
    (
        {"dilations": (1, 1, 1)},
        ShapeError,
        "Conv dilations must have 2 values for 2 spatial dimensions; got (1, 1, 1).",
    ),
    (
        {"transposed": True, "weight": (4, 8, 3, 3), "output_padding": (1,)},
        ShapeError,
        "ConvTranspose output_padding must have 2 values for 2 spatial dimensions; got (1,).",
    ),
    (
        {"strides": (0, 1)},
        ShapeError,
        "Conv strides and dilations must be positive; got (0, 1) and (1, 1).",
    ),
    (
        {"pads": (0, -1, 0, 0)},
        ShapeError,
        "Conv pads must not be negative; got (0, -1, 0, 0).",
    ),
    (
        {"data": (1, 4, 0, 6)},
        ShapeError,
        "Conv data and weight must not be empty; got (1, 4, 0, 6) and (8, 4, 3, 3).",
    ),
    ({"group": 0}, ShapeError, "Conv group must be positive; got 0."),
    (
        {"group": 3},
        ShapeError,
        "Conv group must divide the data's channels; got group 3 for C = 4.",
    ),
    (
        {"group": 2},
        ShapeError,
        "Conv weight must have C/group = 4/2 = 2 input channels; got 4 (weight (8, 4, 3, 3)).",
    ),
    (
        {"group": 2, "weight": (7, 2, 3, 3)},
        ShapeError,
        "Conv group must divide the output channels; got group 2 for K = 7.",
    ),
    (
        {"transposed": True},
        ShapeError,
        "ConvTranspose weight must have C = 4 input channels; got 8 (weight (8, 4, 3, 3)).",
    ),
    (
        {"transposed": True, "weight": (4, 8, 3, 3), "output_padding": (0, 1)},
        ShapeError,
        "ConvTranspose output_padding must be in [0, max(stride, dilation)) = [0, 1) on spatial axis 1; got 1.",
    ),
    (
        {"weight": (8, 4, 3, 4), "dilations": (1, 3)},
        ShapeError,
        "Conv filter must fit the padded data; got dilated filter 10 for padded extent 6 on spatial axis 1 (data (1, 4, 5, 6), weight (8, 4, 3, 4), pads (0, 0, 0, 0)).",
    ),
    (
        {"transposed": True, "weight": (4, 8, 3, 3), "pads": (3, 0, 4, 0)},
        ShapeError,
        "ConvTranspose pads must leave an output; got 7 of 7 points cut off on spatial axis 0 (data (1, 4, 5, 6), weight (4, 8, 3, 3), pads (3, 0, 4, 0)).",
    ),
]


@pytest.mark.parametrize(
    ("changed", "kind", "message"), REFUSALS, ids=[r[2][:60] for r in REFUSALS]
)
def test_refusals(changed, kind, message):
    arguments = {"data": DATA, "weight": WEIGHT} | changed
    with pytest.raises(kind) as caught:
        ConvSpec.of(arguments.pop("data"), arguments.pop("weight"), **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "floor", "ceil"),
    [
        ((112, 3, 2, (0, 0), 1), 55, 56),
        ((5, 2, 2, (1, 1), 1), 3, 3),
        ((4, 2, 3, (0, 0), 1), 1, 2),
        ((6, 2, 4, (0, 1), 1), 2, 2),
    ],
)
def test_pooled_extent(arguments, floor, ceil):
    assert pooled_extent(*arguments, ceil_mode=False) == floor
    assert pooled_extent(*arguments, ceil_mode=True) == ceil
