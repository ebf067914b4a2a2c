"""GridSample by points beside float64: planes and volumes, both modes, what lies outside; and what it leaves to the op's own loops."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.frontend.dsl.tensor import apply
from convc.ir.ops.sample import GridAttributes
from convc.ir.reference import interpret
from convc.ir.types import TensorType
from convc.schedules.grid_points import refusal

# Data, the grid's extents, attributes: rows of points, rows together, several vectors of channels, parts of one, volumes.
CASES = [
    ((2, 16, 8, 9), (20, 4), GridAttributes("linear", "zeros", False)),
    ((1, 48, 6, 5), (3, 20), GridAttributes("linear", "border", True)),
    ((1, 24, 7, 6), (2, 14), GridAttributes("linear", "reflection", False)),
    ((1, 8, 5, 1), (4, 8), GridAttributes("linear", "reflection", True)),
    ((2, 16, 8, 9), (20, 4), GridAttributes("nearest", "zeros", True)),
    ((1, 16, 3, 5, 6), (3, 4, 6), GridAttributes("linear", "zeros", True)),
    ((1, 8, 3, 5, 6), (3, 4, 8), GridAttributes("nearest", "border", False)),
    ((16, 16, 32, 32), (300, 4), GridAttributes("linear", "zeros", False)),  # shared by threads
]


@pytest.fixture(scope="module")
def run():
    outputs = {}
    for i, (shape, out, attributes) in enumerate(CASES):
        x = cc.input(f"x{i}", shape)
        grid = cc.input(f"grid{i}", (shape[0], *out, len(out)))
        outputs[f"y{i}"] = apply("grid_sample", [x, grid], attributes)
    graph = cc.graph(outputs)
    model = compile(graph, threads=2)
    assert all(s.algorithm == "points" for s in model.manifest.steps if s.op == "grid_sample")
    return graph, model.load(threads=2)


def test_within_rounding_of_float64(run):
    graph, module = run
    generator = np.random.default_rng(0)
    fed = {}
    for i, (shape, out, _) in enumerate(CASES):
        fed[f"x{i}"] = generator.normal(size=shape).astype(np.float32)
        fed[f"grid{i}"] = generator.uniform(-1.3, 1.3, (shape[0], *out, len(out))).astype(np.float32)  # fmt: skip
    exact = interpret(graph, fed)
    actual = module.run(fed)
    for i, (shape, out, _) in enumerate(CASES):
        # A place is rounded three times, each axis moves the result by the difference of two neighbours; eight products and sums.
        most = np.abs(fed[f"x{i}"]).max() * 2.0**-24
        bound = len(out) * 3 * 1.3 * max(shape[2:]) * 2 * most + 8 * most
        assert np.abs(actual[f"y{i}"] - exact[f"y{i}"]).max() <= bound, CASES[i]


@pytest.mark.parametrize("place", [np.inf, -np.inf, np.nan])
def test_places_that_are_no_places(run, place):
    """The reference reads something, too: both see the same element, zero or NaN there."""
    graph, module = run
    generator = np.random.default_rng(2)
    fed = {}
    for i, (shape, out, _) in enumerate(CASES):
        fed[f"x{i}"] = generator.normal(size=shape).astype(np.float32)
        grid = generator.uniform(-0.9, 0.9, (shape[0], *out, len(out))).astype(np.float32)
        grid[:, 0] = place
        fed[f"grid{i}"] = grid
    exact, actual = interpret(graph, fed), module.run(fed)
    for i in range(len(CASES)):
        there = exact[f"y{i}"][:, :, 0].astype(np.float32)
        np.testing.assert_array_equal(actual[f"y{i}"][:, :, 0], there, err_msg=str(CASES[i]))


def test_points_of_the_data_are_read_exactly(run):
    graph, module = run
    generator = np.random.default_rng(1)
    fed = {}
    for i, (shape, out, _) in enumerate(CASES):
        fed[f"x{i}"] = generator.integers(-99, 99, shape).astype(np.float32)
        fed[f"grid{i}"] = np.zeros((shape[0], *out, len(out)), np.float32)
    exact = interpret(graph, fed)
    for name, actual in module.run(fed).items():
        np.testing.assert_array_equal(actual, exact[name], err_msg=name)


@pytest.mark.parametrize(
    ("data", "out", "mode", "why"),
    [
        ((1, 16, 8, 8), (8, 8), "cubic", "mode must be linear or nearest; got cubic"),
        ((1, 3, 8, 8), (8, 8), "linear", "channels must be a multiple"),
        ((1, 16, 8, 8), (7, 7), "linear", "rows of points must be"),
        ((1, 16, 32, 32), (8, 8), "linear", "the plane must have at most 4 x"),
    ],
)
def test_what_is_left_to_the_ops_own_loops(data, out, mode, why):
    found = refusal(TensorType(data), TensorType((*data[:2], *out)), GridAttributes(mode))
    assert found is not None
    assert why in found.reason
