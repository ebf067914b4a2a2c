"""The transforms by themselves: every length and both directions against NumPy's, in float64, and what the programs cost."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convc.schedules.fft_transform import (
    column_filter,
    column_forward,
    column_inverse,
    column_product,
    row_forward,
    row_inverse,
)
from convc.schedules.overlap_save import LENGTHS
from convc.schedules.straight_line import Program, evaluate, slots

# Lengths with every factor and with none, beside those that are used.
MORE = (1, 2, 3, 4, 5, 6, 7, 9, 10, 14, 15, 21, 28, 35, 36)


def outputs(program: Program, inputs: np.ndarray) -> np.ndarray:
    """Return the program's outputs, computed with its results kept in as few places as `slots` says."""
    values = inputs.reshape(-1)
    assert values.shape == (program.inputs,)
    result = np.full(len(program.outputs), np.nan)
    places = slots(program)
    kept = np.full(max(places.values(), default=0) + 1, np.nan)

    def number(value) -> float:
        return float(np.asarray(value))

    class Deferred:
        """A value computed where it is used."""

        def __init__(self, compute) -> None:
            self.compute = compute

        def __array__(self, dtype=None, copy=None):
            return np.asarray(self.compute())

        def __add__(self, other):
            return Deferred(lambda: number(self) + number(other))

        def __sub__(self, other):
            return Deferred(lambda: number(self) - number(other))

        def __mul__(self, other):
            return Deferred(lambda: number(self) * number(other))

        def __neg__(self):
            return Deferred(lambda: -number(self))

    def keep(name: int, value) -> Deferred:
        kept[places[name]] = number(value)
        return Deferred(lambda: kept[places[name]])

    evaluate(
        program,
        lambda position: Deferred(lambda: values[position]),
        lambda position, value: result.__setitem__(position, number(value)),
        keep=keep,
    )
    return result


def as_pairs(values: np.ndarray) -> np.ndarray:
    return np.stack([values.real, values.imag], -1)


def as_complex(pairs: np.ndarray) -> np.ndarray:
    return pairs.reshape(-1, 2) @ np.array([1, 1j])


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    # 1e-14 of the greatest value; transforms of up to 64 points err by a few units in the last place.
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=1e-14 * max(1, np.abs(expected).max())
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def half_bins(x: np.ndarray) -> np.ndarray:
    """Return the transform at the frequencies 1/2, 5/2, 9/2 ..."""
    t = len(x)
    return np.fft.fft(x * np.exp(-1j * math.pi / t * np.arange(t)))[::2]


@pytest.mark.parametrize("t", sorted({*LENGTHS, *(2 * n for n in MORE)}))
def test_rows(t, rng):
    x = rng.standard_normal(t)
    S = half_bins(x)
    assert_close(as_complex(outputs(row_forward(t), x)), S)
    for m in {1, t // 2, t // 2 + 1, t}:
        assert_close(outputs(row_inverse(t, m), as_pairs(S)) / (t / 2), x[:m])


@pytest.mark.parametrize(("t", "points"), [(2, 1), (8, 3), (12, 7), (20, 13), (64, 31), (16, 16)])
def test_of_the_first_points_alone(t, points, rng):
    """A filter's rows and columns, the others zeros: U's planes as products and depthwise layers read them, and fewer steps."""
    x = np.zeros(t)
    x[:points] = rng.standard_normal(points)
    assert_close(as_complex(outputs(row_forward(t, points), x[:points])), half_bins(x))
    assert len(row_forward(t, points).steps) <= len(row_forward(t).steps)
    z = np.zeros(t, np.complex128)
    z[:points] = rng.standard_normal(points) + 1j * rng.standard_normal(points)
    U = np.fft.fft(z).conj()
    planes = {2: (U.real, U.imag), 3: (U.imag - U.real, U.imag + U.real, U.real), 4: (U.real,)}
    for form, expected in planes.items():
        found = outputs(column_filter(t, points, form), as_pairs(z[:points]))
        assert_close(found.reshape(t, -1), np.stack(expected, -1))


@pytest.mark.parametrize("t", sorted({*LENGTHS, *MORE}))
def test_columns(t, rng):
    z = rng.standard_normal(t) + 1j * rng.standard_normal(t)
    V = np.fft.fft(z)
    re, im = V.real, V.imag
    assert_close(
        outputs(column_forward(t, 3), as_pairs(z)).reshape(t, 3), np.stack([re, im, re + im], -1)
    )
    assert_close(
        outputs(column_forward(t, 4), as_pairs(z)).reshape(t, 3), np.stack([-im, re, im], -1)
    )
    for m in {1, (t + 1) // 2, t}:
        assert_close(as_complex(outputs(column_inverse(t, m, 4), as_pairs(V))) / t, z[:m])


@pytest.mark.parametrize("t", LENGTHS)
def test_three_products_are_a_complex_one(t, rng):
    V, U = (rng.standard_normal(t) + 1j * rng.standard_normal(t) for _ in "VU")
    products = np.stack(
        [V.real * (U.imag - U.real), V.imag * (U.imag + U.real), (V.real + V.imag) * U.real], -1
    )
    assert_close(as_complex(outputs(column_inverse(t, t, 3), products)) / t, np.fft.ifft(V * U))


@pytest.mark.parametrize("t", sorted({*LENGTHS, *MORE}))
def test_a_column_through_a_product(t, rng):
    z, U = (rng.standard_normal(t) + 1j * rng.standard_normal(t) for _ in "zU")
    expected = np.fft.ifft(np.fft.fft(z) * U)
    m = (t + 1) // 2
    actual = outputs(column_product(t, m), np.concatenate([as_pairs(z), as_pairs(U)]))
    assert_close(as_complex(actual) / t, expected[:m])


@pytest.mark.parametrize(
    ("n", "operations"), [(2, 4), (4, 16), (8, 60), (16, 176), (32, 476), (64, 1200)]
)
def test_powers_of_two_cost_what_split_radix_costs(n, operations):
    # 4 n log2(n) - 6 n + 8, with 2 operations more for each turn by an eighth, which are written as products (fused when compiled).
    count = len(column_forward(n, 4).steps)
    assert count == operations
    assert count <= 4 * n * math.log2(n) - 6 * n + 8 + 2 * n


def test_results_that_nobody_wants_are_not_computed():
    assert len(row_inverse(32, 8).steps) < len(row_inverse(32, 32).steps)
    assert len(column_inverse(32, 1, 4).steps) == 2 * 31


def test_values_share_places():
    program = column_product(64, 34)
    places = slots(program)
    assert len(set(places.values())) < 300 < len(places)
