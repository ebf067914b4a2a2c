"""Every algorithm on every convolution of the grid that it takes, against the float64 reference."""

from __future__ import annotations

import hashlib
import re
from functools import cache

import numpy as np
import pytest

from convc.errors import UnsupportedConvError
from convc.ir import GraphBuilder, TensorType
from convc.schedules.algorithm import Problem
from convc.schedules.dual import posed
from convc.schedules.llvm.convolutions import SCHEDULES
from convc.schedules.plan import Unsupported
from convc.schedules.select import select
from convc.schedules.table import ALGORITHMS, algorithm_named
from convc.target import Target, parse_target
from tests.conv_grid import CONV_GRID, LARGE_GRID, Row
from tests.schedules.conv_module import Case, ConvModule, Result, conv_node
from tests.tolerance import INEXACT, assert_bounded, assert_exact, error_bound

# A fixed machine, so that what is taken does not depend on where the tests run.
AVX512 = Target("llvm", "x86_64-linux-gnu", "x86-64-v4", (), 16, 32)
# Rows of an algorithm that run by default; all of them run under `-m slow`.
SAMPLE = 28

# Rows of CONV_GRID that each algorithm takes on AVX512. A `supports` that refuses more than it must makes this red.
TAKEN = {
    "depthwise": 17,
    "direct": 126,
    "grouped": 9,
    "winograd": 119,
    "fft": 87,
    "subpixel": 39,
    "inner_product": 26,
    "im2col": 126,
    "generic": len(CONV_GRID),
}


def taken(name: str) -> list[Row]:
    algorithm = algorithm_named(name)
    return [row for row in CONV_GRID if algorithm.supports(Problem(row.spec), AVX512) is None]


@cache
def sample(name: str) -> tuple[Row, ...]:
    """Return the rows with the lowest hashes: always the same ones, spread over all groups."""

    def order(row: Row) -> bytes:
        return hashlib.sha256(f"{name} {row.id}".encode()).digest()

    return tuple(sorted(taken(name), key=order)[:SAMPLE])


@cache
def compiled(name: str, whole: bool) -> ConvModule:
    target = parse_target(cores=1)
    rows = taken(name) if whole else sample(name)
    return ConvModule([Case(name, row.spec) for row in rows], target)


def check(results: list[Result]) -> None:
    assert results
    wrong = []
    for result in results:
        bound = error_bound(
            result.case.algorithm, result.data, result.weight, result.case.spec, result.knobs
        )
        try:
            assert result.actual.shape == result.expected.shape
            assert_bounded(result.actual, result.expected, bound)
        except AssertionError as error:
            wrong.append(f"{result.case.spec.key}: {error}")
    assert not wrong, "\n".join(wrong)


def check_exact(results: list[Result]) -> None:
    assert results
    wrong = []
    for result in results:
        try:
            assert_exact(result.actual, result.expected)
        except AssertionError as error:
            wrong.append(f"{result.case.spec.key}: {error}")
    assert not wrong, "\n".join(wrong)


SIZES = [False, pytest.param(True, marks=pytest.mark.slow)]
NAMES = [algorithm.name for algorithm in ALGORITHMS]


def test_every_algorithm_says_how_much_of_the_grid_it_takes():
    assert {name: len(taken(name)) for name in NAMES} == TAKEN


def test_the_sample_has_rows_of_every_group():
    for name in ("direct", "winograd", "generic"):
        assert {row.group for row in sample(name)} == {"tiny", "edges", "nets"}


@pytest.mark.parametrize("whole", SIZES, ids=["sample", "whole"])
@pytest.mark.parametrize("name", [n for n in NAMES if n not in INEXACT])
def test_whole_numbers_are_exact(name, whole):
    check_exact(compiled(name, whole).run(exact=True))


@pytest.mark.parametrize("whole", SIZES, ids=["sample", "whole"])
@pytest.mark.parametrize("name", [n for n in NAMES if n in INEXACT])
def test_inexact_algorithms_on_whole_numbers(name, whole):
    check(compiled(name, whole).run(exact=True))


@pytest.mark.parametrize("whole", SIZES, ids=["sample", "whole"])
@pytest.mark.parametrize("name", NAMES)
def test_normal_data_stay_within_the_bound(name, whole):
    check(compiled(name, whole).run(exact=False))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_layers_at_full_size(name):
    algorithm = algorithm_named(name)
    cases = [
        Case(name, row.spec)
        for row in LARGE_GRID
        if algorithm.supports(Problem(row.spec), AVX512) is None
    ]
    module = ConvModule(cases, parse_target(cores=1))
    check(module.run(exact=False))


@pytest.mark.parametrize("name", NAMES)
def test_every_row_has_a_schedule(name):
    assert name in SCHEDULES


def refusal_of(algorithm, spec) -> Unsupported | None:
    """Return why neither the convolution nor its dual can be computed, or None."""
    found = posed(Problem(spec), algorithm, AVX512)
    return found if isinstance(found, Unsupported) else None


def refused() -> list[object]:
    """Return (algorithm, row) for one row of each reason an algorithm gives, numbers aside."""
    cases = []
    for algorithm in ALGORITHMS:
        seen = set()
        for row in CONV_GRID:
            refusal = refusal_of(algorithm, row.spec)
            kind = refusal and refusal.reason.partition("; got")[0]
            if kind and kind not in seen:
                seen.add(kind)
                cases.append(pytest.param(algorithm.name, row, id=f"{algorithm.name}: {kind}"))
    return cases


@pytest.mark.parametrize(("name", "row"), refused())
def test_a_refusal_says_why_and_pinning_repeats_it(name, row):
    reason = refusal_of(algorithm_named(name), row.spec).reason
    assert re.search(r" must (not )?(be|have|equal) ", reason)
    b = GraphBuilder("g")
    x = b.input("x", TensorType(row.spec.data))
    w = b.constant(np.ones(row.spec.weight, np.float32))
    graph = b.finish({"y": conv_node(b, x, w, row.spec, name="layer")})
    with pytest.raises(UnsupportedConvError) as caught:
        select(graph, AVX512, algo_for={"layer": name})
    assert str(caught.value).startswith(
        f"algorithm '{name}' cannot compute 'layer': {reason}. These can: "
    )
    assert "generic" in str(caught.value).rpartition("These can: ")[2]
    plan = select(graph, AVX512, algo=name)
    assert plan["layer"].algorithm != name
