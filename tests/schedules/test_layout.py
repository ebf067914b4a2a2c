"""Layouts: every view's addresses against NumPy's own views of the same buffer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convc.schedules.layout import ALIGNMENT, PLAIN, Halo, Layout, View

many = settings(deadline=None, max_examples=150, derandomize=True)
extents = st.integers(1, 5)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 20), extents, extents)
halos = st.builds(Halo, *[st.integers(0, 3)] * 4)


@st.composite
def images(draw) -> tuple[tuple[int, ...], Halo]:
    """Return a shape of 1 to 3 spatial axes and a halo around them."""
    rank = draw(st.integers(1, 3))
    sides = [draw(st.tuples(*[st.integers(0, 3)] * rank)) for _ in range(2)]
    shape = (*draw(shapes)[:2], *(draw(extents) for _ in range(rank)))
    return shape, Halo.of(*sides)


blocks = st.sampled_from([1, 4, 8, 16])
dtypes = st.sampled_from(["float32", "float64", "float16", "int8"])


def addresses(view: View, buffer: np.ndarray) -> np.ndarray:
    """Return the elements that a kernel sees; `buffer` holds its own element numbers."""
    size = np.dtype(view.dtype).itemsize
    assert view.offset % size == 0
    start = buffer.reshape(-1)[view.offset // size :]
    strides = [s * buffer.itemsize for s in view.strides]
    return np.lib.stride_tricks.as_strided(start, view.shape, strides)


def numbered(layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
    whole = layout.buffer_shape(shape)
    return np.arange(np.prod(whole)).reshape(whole)


@many
@given(images(), blocks, dtypes, st.data())
def test_a_view_is_the_inside_of_its_buffer_and_a_part_of_the_halo(image, block, dtype, data):
    shape, halo = image
    rank = len(shape) - 2
    part = [
        tuple(data.draw(st.integers(0, n)) for n in side(rank)) for side in (halo.begins, halo.ends)
    ]
    layout = Layout(block, halo)
    view, buffer = layout.view(shape, dtype, Halo.of(*part)), numbered(layout, shape)
    inside = tuple(
        slice(first - begin, first + extent + end)
        for first, extent, begin, end in zip(halo.begins(rank), shape[2:], *part, strict=True)
    )
    np.testing.assert_array_equal(addresses(view, buffer), buffer[(..., *inside, slice(None))])
    assert layout.nbytes(shape, dtype) == buffer.size * np.dtype(dtype).itemsize
    assert view.offset % view.alignment == 0
    assert ALIGNMENT % view.alignment == 0


@many
@given(images(), blocks, dtypes)
def test_bands_are_the_halo_and_nothing_else(image, block, dtype):
    shape, halo = image
    layout = Layout(block, halo)
    buffer = numbered(layout, shape)
    covered = [addresses(view, buffer).reshape(-1) for view in layout.bands(shape, dtype)]
    inside = addresses(layout.view(shape, dtype), buffer).reshape(-1)
    every = np.concatenate([inside, *covered])
    np.testing.assert_array_equal(np.sort(every), np.arange(buffer.size))
    for view in layout.bands(shape, dtype):
        assert view.offset % view.alignment == 0


@many
@given(images(), blocks)
def test_a_raised_view_is_the_same_elements_with_a_height_of_one(image, block):
    shape, halo = image
    view, buffer = Layout(block, halo).view(shape, "float32"), numbered(Layout(block, halo), shape)
    seen = addresses(view, buffer)
    expected = seen[:, :, None] if len(shape) == 3 else seen
    np.testing.assert_array_equal(addresses(view.raised(), buffer), expected)
    assert view.raised().is_compact == view.is_compact


@many
@given(shapes, st.sampled_from([1, 4, 8]), halos, st.integers(1, 3), st.integers(0, 3))
def test_a_part_of_a_larger_image(shape, block, halo, parts, index):
    channels = -(-shape[1] // block) * block
    image = (shape[0], channels * (parts + index), *shape[2:])
    layout = Layout(block, halo)
    view = layout.view(shape, "float32", image=image, channel=channels * index)
    buffer = numbered(layout, image)
    whole = addresses(layout.view(image, "float32"), buffer)
    first = channels // block * index
    expected = whole[:, first : first + channels // block]
    np.testing.assert_array_equal(addresses(view, buffer), expected)
    assert view.offset % view.alignment == 0


@many
@given(shapes, blocks, halos, st.integers(1, 3), st.integers(1, 3))
def test_split_sees_rows_and_columns_by_residue(shape, block, halo, rows, cols):
    n, c, h, w = shape
    shape = (n, c, h * rows, w * cols)
    layout = Layout(block, halo)
    buffer, view = numbered(layout, shape), layout.view(shape, "float32")
    seen = addresses(view, buffer)
    n, cb, h, w, b = seen.shape
    expected = seen.reshape(n, cb, h // rows, rows, w // cols, cols, b)
    np.testing.assert_array_equal(addresses(view.split(rows, cols), buffer), expected)


@many
@given(shapes, st.sampled_from([0, *[1, 4, 8, 16]]), st.sampled_from([0, *[1, 4, 8, 16]]))
def test_same_bytes_is_true_only_if_they_are(shape, source, result):
    """Whether every element lies at the same place in both orders, and both buffers have the same size."""

    def places(block: int) -> np.ndarray:
        if not block:
            return np.arange(np.prod(shape)).reshape(shape)
        buffer = numbered(Layout(block), shape)
        n, cb, h, w, b = buffer.shape
        return buffer.transpose(0, 1, 4, 2, 3).reshape(n, cb * b, h, w)[:, : shape[1]]

    a, b = Layout(source), Layout(result)
    if a.same_bytes(b, shape):
        np.testing.assert_array_equal(places(source), places(result))
        assert a.nbytes(shape, "float32") == b.nbytes(shape, "float32")


def test_plain_and_one_channel_blocks_are_the_same_bytes():
    assert PLAIN.same_bytes(Layout(1), (2, 3, 4, 5))
    assert Layout(16).same_bytes(PLAIN, (2, 32, 1, 1))
    assert not Layout(16).same_bytes(PLAIN, (2, 33, 1, 1))
    assert not Layout(16).same_bytes(PLAIN, (2, 32, 1, 2))
    assert not Layout(1, Halo(1)).same_bytes(PLAIN, (2, 3, 4, 5))


@pytest.mark.parametrize(
    ("layout", "text"),
    [(PLAIN, "plain"), (Layout(1), "nchw"), (Layout(16), "nchw16c"), (Layout(8, Halo(1, 2, 3, 4)), "nchw8c+1.2.3.4"), (Layout(8, Halo.of((5, 1, 2), (6, 3, 4))), "nchw8c+5.1.2.6.3.4")],
)  # fmt: skip
def test_names(layout, text):
    assert str(layout) == text


def test_a_border_beyond_the_halo_is_a_bug():
    with pytest.raises(AssertionError, match=r"0\.1\.0\.0 reaches beyond 1\.0\.0\.0"):
        Layout(8, Halo(1)).view((1, 8, 4, 4), "float32", Halo(0, 1))


@many
@given(halos, halos)
def test_union_is_the_smallest_halo_that_holds_both(a, b):
    union = a.union(b)
    assert union.union(a) == union == union.union(b) == b.union(a)
    assert all(
        getattr(union, side) in (getattr(a, side), getattr(b, side))
        for side in ("top", "left", "bottom", "right")
    )
    assert bool(union) == (bool(a) or bool(b))
