"""The reference convolution against nested loops, and the identities that every convolution obeys."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings

from convc.ir import ConvSpec
from convc.ir.ops.conv import convolve, convolve_transposed
from tests.naive import naive_conv, naive_conv_transpose
from tests.strategies import conv_specs, integers_like

few = settings(deadline=None, max_examples=40, derandomize=True)


def operands(spec: ConvSpec, seed: int = 0):
    return (
        integers_like(spec.data, seed, -4, 4, "float64"),
        integers_like(spec.weight, seed + 1, -4, 4, "float64"),
    )


def reference(x, w, spec: ConvSpec):
    return convolve_transposed(x, w, spec) if spec.transposed else convolve(x, w, spec)


def naive(x, w, spec: ConvSpec):
    common = (x, w, spec.strides, spec.pads, spec.dilations, spec.group)
    return (
        naive_conv_transpose(*common, spec.output_padding)
        if spec.transposed
        else naive_conv(*common)
    )


def _grid():
    """Every attribute alone, then together, for each number of spatial axes."""
    for n, transposed in itertools.product((1, 2, 3), (False, True)):
        extents = (5, 6, 4)[:n]
        kernel = (3, 2, 2)[:n]
        rows = [
            {},
            {"strides": (2, 3, 1)[:n]},
            {"dilations": (2, 1, 2)[:n]},
            {"pads": (1, 0, 1)[:n] + (0, 1, 1)[:n]},
            {"group": 2},
            {"group": 4},
            {
                "strides": (2, 1, 2)[:n],
                "dilations": (1, 2, 1)[:n],
                "pads": (1, 1, 0)[:n] + (0, 1, 1)[:n],
                "group": 2,
            },
        ]
        if transposed:
            rows.append({"strides": (2, 3, 2)[:n], "output_padding": (1, 2, 0)[:n]})
        for row in rows:
            group = row.get("group", 1)
            weight = (4, 6 // group if transposed and group != 4 else 4 // group, *kernel)
            yield ConvSpec.of((2, 4, *extents), weight, transposed=transposed, **row)


@pytest.mark.parametrize("spec", list(_grid()), ids=lambda spec: spec.key)
def test_reference_equals_nested_loops_on_the_grid(spec):
    x, w = operands(spec)
    np.testing.assert_array_equal(reference(x, w, spec), naive(x, w, spec))


@few
@given(conv_specs())
def test_reference_equals_nested_loops(spec):
    x, w = operands(spec)
    y = reference(x, w, spec)
    assert y.shape == spec.output
    np.testing.assert_array_equal(y, naive(x, w, spec))


@few
@given(conv_specs())
def test_convolution_is_linear_in_data_and_in_weights(spec):
    x, w = operands(spec)
    x2, w2 = operands(spec, seed=9)
    y = reference(x, w, spec)
    np.testing.assert_array_equal(reference(x + 3 * x2, w, spec), y + 3 * reference(x2, w, spec))
    np.testing.assert_array_equal(reference(x, w - w2, spec), y - reference(x, w2, spec))


@few
@given(conv_specs(transposed=False))
def test_transposed_convolution_is_the_adjoint(spec):
    """<conv(x), y> = <x, conv_T(y)>, the same weights; output_padding makes up for points the stride skips."""
    extra = tuple(
        (spec.data[2 + i] + spec.pads[i] + spec.pads[spec.rank + i] - spec.effective_kernel[i])
        % spec.strides[i]
        for i in range(spec.rank)
    )
    back = ConvSpec.of(
        spec.output,
        spec.weight,
        strides=spec.strides,
        pads=spec.pads,
        dilations=spec.dilations,
        group=spec.group,
        transposed=True,
        output_padding=extra,
    )
    x, w = operands(spec)
    y = integers_like(spec.output, 5, -4, 4, "float64")
    assert back.output == spec.data
    assert np.sum(convolve(x, w, spec) * y) == np.sum(x * convolve_transposed(y, w, back))


@few
@given(conv_specs(transposed=False))
def test_grouped_convolution_is_one_convolution_per_group(spec):
    x, w = operands(spec)
    parts = []
    for xs, ws in zip(np.split(x, spec.group, 1), np.split(w, spec.group, 0), strict=True):
        one = ConvSpec.of(
            xs.shape, ws.shape, strides=spec.strides, pads=spec.pads, dilations=spec.dilations
        )
        parts.append(convolve(xs, ws, one))
    np.testing.assert_array_equal(convolve(x, w, spec), np.concatenate(parts, 1))


def test_a_filter_with_one_tap_copies():
    spec = ConvSpec.of((1, 2, 4, 5), (2, 2, 3, 3), pads=(1, 1, 1, 1))
    x, w = operands(spec)[0], np.zeros(spec.weight)
    w[0, 1, 1, 1] = w[1, 0, 1, 1] = 1
    np.testing.assert_array_equal(convolve(x, w, spec), x[:, ::-1])


@pytest.mark.parametrize("transposed", [False, True])
def test_an_empty_batch_gives_an_empty_result(transposed):
    spec = ConvSpec.of((0, 2, 4, 4), (2, 2, 3, 3), transposed=transposed)
    assert reference(*operands(spec), spec).shape == spec.output
