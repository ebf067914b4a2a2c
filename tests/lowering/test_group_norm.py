"""Group normalisation of data whose sums are long and far from zero, beside float64."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir.text import parse

# Shape, groups: many chunks in all channels together; a group a channel; no whole vectors, one chain side by side; one long axis.
CASES = [((1, 16, 200, 256), 1), ((2, 24, 64, 64), 24), ((1, 6, 67, 101), 2), ((1, 4, 40960), 2)]


def normalised(x: np.ndarray, groups: int) -> np.ndarray:
    grouped = x.astype(np.float64).reshape(x.shape[0], groups, -1)
    centred = grouped - grouped.mean(2, keepdims=True)
    variance = np.square(centred).mean(2, keepdims=True)
    return (centred / np.sqrt(variance + 1e-5)).reshape(x.shape)


@pytest.fixture(scope="module", params=CASES, ids=str)
def norm(request):
    shape, groups = request.param
    column = ", ".join(["1", str(shape[1]), *["1"] * (len(shape) - 2)])
    graph = parse(
        f"graph @g {{ %x = input : f32[{', '.join(map(str, shape))}] %s = constant splat(1.0) : f32[{column}]"
        f" %b = constant splat(0.0) : f32[{column}] %y = group_norm(%x, %s, %b) {{groups = {groups}}} return %y }}"
    )
    return shape, groups, compile(graph, threads=1).load(threads=1)


@pytest.mark.parametrize("shift", [0, 100, 10000])
def test_the_mean_costs_no_accuracy(norm, shift):
    shape, groups, module = norm
    x = (np.random.default_rng(0).normal(size=shape) + shift).astype(np.float32)
    # Results are below 6; a mean of 10 000 rounded to float32 alone would be wrong by 5e-4.
    assert np.abs(module(x) - normalised(x, groups)).max() <= 1e-5


def test_one_value_throughout_is_zero_exactly(norm):
    shape, _, module = norm
    assert np.all(module(np.full(shape, 3.3, np.float32)) == 0)
