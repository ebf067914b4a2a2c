"""Pools and local response normalisation against loops over every window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convc.errors import DTypeError, ShapeError
from convc.ir import TensorType
from convc.ir.ops import OPS
from convc.ir.ops.pool import AveragePoolAttributes, LRNAttributes, MaxPoolAttributes
from tests.naive import naive_pool
from tests.strategies import integers_like


@st.composite
def pools(draw):
    n = draw(st.integers(1, 3))
    axes = [
        (
            draw(st.integers(1, {1: 9, 2: 6, 3: 4}[n])),
            draw(st.integers(1, 3)),
            draw(st.integers(1, 3)),
            draw(st.integers(1, 2)),
        )
        for _ in range(n)
    ]
    extents, kernel, strides, dilations = (tuple(a[i] for a in axes) for i in range(4))
    pads = tuple(draw(st.integers(0, min(k - 1, 2))) for k in kernel * 2)
    for i in range(n):
        assume(extents[i] + pads[i] + pads[n + i] >= dilations[i] * (kernel[i] - 1) + 1)
        # A window whose taps all jump over the data has no maximum and no mean.
        assume(dilations[i] == 1 or extents[i] >= dilations[i])
    return extents, kernel, strides, pads, dilations, draw(st.booleans()), draw(st.booleans())


@settings(deadline=None, max_examples=80, derandomize=True)
@given(pools())
def test_pools_equal_nested_loops(pool):
    extents, kernel, strides, pads, dilations, ceil_mode, include = pool
    x = integers_like((1, 2, *extents), 3, -4, 4, "float64")
    geometry = (kernel, strides, pads, dilations)
    for kind, attributes in (
        ("max", MaxPoolAttributes(*geometry, ceil_mode)),
        ("average", AveragePoolAttributes(*geometry, ceil_mode, include)),
    ):
        op = OPS[f"{kind}_pool"]
        expected = naive_pool(kind, x, *geometry, ceil_mode=ceil_mode, count_include_pad=include)
        inferred = op.infer([TensorType(x.shape, "float64")], attributes)
        assert inferred.shape == expected.shape
        # Sums of whole numbers are exact and both sides divide once.
        np.testing.assert_array_equal(op.reference([x], attributes), expected)


def test_a_window_that_hangs_over_the_end_divides_by_the_padded_points_alone():
    x = np.ones((1, 1, 4))
    a = AveragePoolAttributes((3,), (3,), (0, 1), ceil_mode=True, count_include_pad=True)
    np.testing.assert_array_equal(OPS["average_pool"].reference([x], a), [[[1.0, 0.5]]])


def test_lrn_equals_its_definition():
    x, a = integers_like((2, 7, 3), 1, -3, 3, "float64"), LRNAttributes(4, 0.5, 0.75, 2.0)
    expected = np.zeros_like(x)
    for n, c, h in np.ndindex(x.shape):
        # ONNX: from c - floor((size - 1) / 2) to c + ceil((size - 1) / 2).
        window = range(max(0, c - 1), min(6, c + 2) + 1)
        total = sum(x[n, i, h] ** 2 for i in window)
        expected[n, c, h] = x[n, c, h] / (2.0 + 0.5 / 4 * total) ** 0.75
    # The same handful of operations in another order: a few roundings.
    np.testing.assert_allclose(OPS["lrn"].reference([x], a), expected, rtol=8 * 2**-52, atol=0)


MAP = TensorType((1, 2, 5, 5))
REFUSALS = [
    ((3,), {}, MAP, "pool data must have rank 3 for kernel (3,); got f32[1,2,5,5]."),
    (
        (3, 3),
        {"strides": (1,)},
        MAP,
        "pool strides, dilations and pads must have 2, 2 and 4 values; got (1,), (1, 1), (0, 0, 0, 0).",
    ),
    (
        (3, 0),
        {},
        MAP,
        "pool kernel, strides and dilations must be positive and pads not negative; got (3, 0), (1, 1), (1, 1), (0, 0, 0, 0).",
    ),
    (
        (2, 2),
        {"pads": (2, 0, 0, 0)},
        MAP,
        "pool pads must be smaller than the window 2; got (2, 0).",
    ),
    (
        (6, 6),
        {},
        MAP,
        "pool window 6 must fit the padded extent on spatial axis 0; got 5 of f32[1,2,5,5].",
    ),
]


@pytest.mark.parametrize(("kernel", "more", "data", "message"), REFUSALS)
def test_refusals(kernel, more, data, message):
    with pytest.raises(ShapeError) as caught:
        OPS["max_pool"].infer([data], MaxPoolAttributes(kernel, **more))
    assert str(caught.value) == message


def test_integers_are_refused():
    with pytest.raises(DTypeError) as caught:
        OPS["average_pool"].infer([TensorType((1, 1, 4), "int8")], AveragePoolAttributes((2,)))
    assert str(caught.value) == "pool data must have a float type; got i8[1,1,4]."
