"""The transform matrices: exact identities in rational numbers, and the counts that the cost model rests on."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convc.schedules.cook_toom import POINTS, cook_toom, factored

PAIRS = [(m, r) for r in range(1, 8) for m in range(1, 9) if m + r - 2 == 0 or m + r - 2 in POINTS]


def product(A, B):
    return tuple(
        tuple(sum(a * b for a, b in zip(row, col, strict=True)) for col in zip(*B, strict=True))
        for row in A
    )


def times(A, x):
    return [sum(a * b for a, b in zip(row, x, strict=True)) for row in A]


@pytest.mark.parametrize(("m", "r"), PAIRS)
@settings(deadline=None, max_examples=5, derandomize=True)
@given(data=st.data())
def test_computes_the_filter_exactly(m, r, data):
    t = cook_toom(m, r)
    number = st.integers(-99, 99).map(Fraction)
    g = data.draw(st.lists(number, min_size=r, max_size=r))
    d = data.draw(st.lists(number, min_size=t.alpha, max_size=t.alpha))
    products = [a * b for a, b in zip(times(t.G, g), times(t.B_T, d), strict=True)]
    assert times(t.A_T, products) == [sum(g[k] * d[i + k] for k in range(r)) for i in range(m)]


@pytest.mark.parametrize(("m", "r"), PAIRS)
def test_factors_multiply_to_the_whole(m, r):
    t = cook_toom(m, r)
    forward, inverse = factored(t)
    assert product(forward.outer, forward.inner) == t.B_T
    assert product(inverse.outer, inverse.inner) == t.A_T


@pytest.mark.parametrize(("m", "r", "fewer"), [(4, 3, 4), (5, 3, 12), (6, 3, 12)])
def test_factoring_saves_operations(m, r, fewer):
    t = cook_toom(m, r)
    forward, _ = factored(t)

    def terms(A):
        return sum(1 for row in A for v in row if v)

    # An identity row of the outer factor is no operation.
    assert terms(t.B_T) - (terms(forward.inner) + terms(forward.outer) - t.alpha) == fewer


def test_published_matrices_of_f23():
    t = cook_toom(2, 3)
    assert t.A_T == ((1, 1, 1, 0), (0, 1, -1, 1))
    # Lavin and Gray's B_T up to a sign and a power of two in each row, which G takes back.
    published = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
    for row, theirs in zip(t.B_T, published, strict=True):
        ratios = {a / b for a, b in zip(row, theirs, strict=True) if b}
        assert len(ratios) == 1
        assert all(not a for a, b in zip(row, theirs, strict=True) if not b)


def test_points_are_distinct_and_paired():
    for count, points in POINTS.items():
        assert len(points) == len(set(points)) == count
