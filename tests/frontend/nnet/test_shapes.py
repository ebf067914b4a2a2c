"""The shape helpers: Aesara's documented values, None, and one rule for all."""

from __future__ import annotations

import pytest

from convc import dsl, nnet
from convc.errors import ShapeError


@pytest.mark.parametrize(
    ("border_mode", "extents"),
    [
        ("valid", (4, 2)),
        ("half", (12, 5)),
        ("full", (20, 7)),
        ((1, 2), (6, 4)),
        (((1, 2), 0), (7, 2)),
    ],
)
def test_output_shapes_in_two_dimensions(border_mode, extents):
    found = nnet.get_conv_output_shape((3, 2, 12, 9), (4, 2, 5, 6), border_mode, (1, 2), (2, 1))
    assert found == (3, 4, *extents)


@pytest.mark.parametrize(
    ("border_mode", "extents"),
    [("valid", (4, 2, 4)), ("half", (12, 5, 8)), ("full", (20, 7, 10)), ((1, 2, 3), (6, 4, 10))],
)
def test_output_shapes_in_three_dimensions(border_mode, extents):
    found = nnet.get_conv_output_shape(
        (3, 2, 12, 9, 7), (4, 2, 5, 6, 4), border_mode, (1, 2, 1), (2, 1, 1)
    )
    assert found == (3, 4, *extents)


def test_unshared_filters_have_their_kernel_last():
    found = nnet.get_conv_output_shape((3, 2, 9, 9), (4, 7, 8, 2, 3, 2), "valid", (1, 1))
    assert found == (3, 4, 7, 8)


def test_what_is_not_known_stays_so():
    assert nnet.get_conv_output_shape((None, 2, 9, None), (4, 2, 3, 3), "half", (2, 1)) == (
        None,
        4,
        5,
        None,
    )
    assert nnet.get_conv_gradinputs_shape((4, None, 3, 3), (None, 4, 5, 5), "full", (1, 2)) == (
        None,
        None,
        3,
        None,
    )
    assert nnet.get_conv_gradweights_shape((None, 2, 9, 9), (None, 4, 5, 7), "half", (1, 1)) == (
        4,
        2,
        None,
        None,
    )


@pytest.mark.parametrize("border_mode", ["valid", "half", "full", (0, 2)])
def test_every_shape_agrees_with_the_output_it_has(border_mode):
    for image in range(1, 20):
        for kernel in range(1, 10):
            for stride in (1, 2, 3):
                for dilation in (1, 2, 3):
                    data, weight = (5, 6, image, image), (7, 6, kernel, kernel)
                    geometry = border_mode, (stride,) * 2, (dilation,) * 2
                    top = nnet.get_conv_output_shape(data, weight, *geometry)
                    assert nnet.check_conv_gradinputs_shape(data, weight, top, *geometry)
                    assert nnet.check_conv_gradinputs_shape(
                        (None, 6, None, image), weight, top, *geometry
                    )
                    wrong = (*top[:3], top[3] + 1)
                    assert not nnet.check_conv_gradinputs_shape(data, weight, wrong, *geometry)
                    back = nnet.get_conv_gradinputs_shape(weight, top, *geometry)
                    assert back == (5, 6, *([image] * 2 if stride == 1 else [None] * 2))


@pytest.mark.parametrize("groups", [1, 3])
def test_weight_shapes_are_whole_and_of_one_group(groups):
    top = nnet.get_conv_output_shape((2, 6, 11, 9), (9, 6 // groups, 3, 2), (1, 0), (1, 1), (2, 3))
    found = nnet.get_conv_gradweights_shape((2, 6, 11, 9), top, (1, 0), (1, 1), (2, 3), groups)
    assert found == (9, 6 // groups, 3, 2)
    unshared = nnet.get_conv_gradweights_shape(
        (2, 6, 11, 9), top, (1, 0), (1, 1), (2, 3), groups, True
    )
    assert unshared == (9, *top[2:], 6 // groups, 3, 2)
    with pytest.raises(ShapeError, match="filter must span a multiple of its dilation 2 >= 0"):
        nnet.get_conv_gradweights_shape((2, 6, 11, 9), (2, 9, 8, 6), "valid", (1, 1), (2, 3))


def test_assertions():
    assert nnet.assert_conv_shape((0, 0, 1, None)) == (0, 0, 1, None)
    with pytest.raises(ShapeError, match="axis 2 >= 1; got 0"):
        nnet.assert_conv_shape((1, 1, 0, 3))
    x = dsl.input("x", (2, 3))
    assert nnet.assert_shape(x, (None, 3)) is x
    with pytest.raises(ShapeError, match=r"got \(2, 4\) for \(2, 3\)") as caught:
        nnet.assert_shape(x, (2, 4), "the classifier's input")
    assert caught.value.__notes__ == ["the classifier's input"]


def test_border_modes():
    assert nnet.border_mode_to_pad("half", 2, (3, 4)) == ((1, 1), (2, 2))
    assert nnet.border_mode_to_pad("full", 1, (3,)) == ((2, 2),)
    assert nnet.border_mode_to_pad(2, 3, (3, 3, 3)) == ((2, 2),) * 3
    assert nnet.border_mode_to_pad(((0, 1), 2), 2, (3, 3)) == ((0, 1), (2, 2))
