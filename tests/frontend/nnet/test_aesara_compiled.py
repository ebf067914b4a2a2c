"""Aesara's answers from compiled modules: float64 to 1e-12, float32 within the algorithm's bound, by every algorithm that applies.

A sample runs by default; all 2139 cases with `python -m pytest -m slow tests/frontend/nnet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from convc import dsl
from convc.compiler import CompiledModel, compile
from convc.frontend.dsl.collect import collected
from convc.ir import Graph
from convc.ir.ops.conv import conv_spec
from convc.schedules.algorithm import Problem
from convc.schedules.select import is_convolution
from convc.schedules.table import ALGORITHMS, algorithm_named
from convc.target import Target
from tests.frontend.nnet.aesara_cases import WEIGHTS, Case, cases, sample
from tests.frontend.nnet.error_analysis import bounds

EXACTNESS = 1e-12
# Cases of one module: loading and linking are paid once, but a module of everything would hide which part is slow.
CHUNK = 180
SAMPLE = 6
SAMPLE_OF_ALL = 45
# Which cases an algorithm takes does not depend on the machine that the tests run on.
AVX512 = Target("llvm", "x86_64-linux-gnu", "x86-64-v4", (), 16, 32)
NAMES = [a.name for a in ALGORITHMS]


# Cases of which each algorithm takes a convolution on AVX512. A `supports` that refuses more than it must makes this red.
TAKEN = {
    "depthwise": 94,
    "direct": 714,
    "grouped": 20,
    "winograd": 399,
    "fft": 91,
    "subpixel": 649,
    "im2col": 714,
    "generic": 1363,
}


def graph_of(
    rows: Sequence[Case], dtype: str, known: str = WEIGHTS
) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return a graph of the cases and its inputs in float64; operands in `known` are constants."""
    outputs, inputs = {}, {}
    for case in rows:
        operands: dict[str, object] = {}
        for name, array in case.arrays().items():
            operands[name] = array
            if name not in known:
                inputs[f"{case.id}{name}"] = array
                operands[name] = dsl.input(f"{case.id}{name}", array.shape, dtype)
        outputs[case.id] = case.call(operands)
    return dsl.graph(outputs, name="aesara"), inputs


def answers(
    model: CompiledModel, inputs: dict[str, np.ndarray], dtype: str
) -> dict[str, np.ndarray]:
    given = {n.name: inputs[n.name].astype(dtype) for n in model.graph.inputs}
    return model.load(threads=1).run(given)


@cache
def convolutions() -> tuple[Case, ...]:
    """Return the cases with a convolution that algorithms compete for."""
    return tuple(c for c in cases() if _problems(c))


@cache
def _problems(case: Case) -> tuple[Problem, ...]:
    """Return the case's convolutions, with weights that are known."""
    operands = {name: dsl.input(name, shape) for name, shape in case.shapes.items()}
    found = []
    for tensor in collected([case.call(operands)]):
        if is_convolution(tensor.node):
            data, weight = (p.node.type for p in tensor.producers[:2])
            found.append(Problem(conv_spec(data, weight, tensor.node.attributes)))
    return tuple(found)


@cache
def taken(name: str) -> tuple[Case, ...]:
    """Return the cases of which the algorithm takes a convolution."""
    algorithm = algorithm_named(name)
    return tuple(
        c
        for c in convolutions()
        if any(algorithm.supports(p, AVX512) is None for p in _problems(c))
    )


def parts(rows: Sequence[Case]) -> list[Sequence[Case]]:
    return [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]


def check_float64(rows: Sequence[Case], known: str) -> None:
    graph, inputs = graph_of(rows, "float64", known)
    results = answers(compile(graph, threads=1), inputs, "float64")
    wrong = []
    for case in rows:
        assert results[case.id].shape == case.answer.shape
        error = np.abs(results[case.id] - case.answer).max(initial=0)
        if not error <= EXACTNESS:
            wrong.append((case.id, float(error), case.op, case.keywords))
    assert not wrong


def check_float32(rows: Sequence[Case], algorithm: str = "auto", known: str = WEIGHTS) -> None:
    graph, inputs = graph_of(rows, "float32", known)
    model = compile(graph, threads=1, algo=algorithm)
    if algorithm != "auto":
        chosen = {c.algorithm for c in model.plan.choices.values()}
        assert algorithm in chosen
    results, limits = answers(model, inputs, "float32"), bounds(model, inputs)
    wrong = []
    for case in rows:
        assert results[case.id].shape == case.answer.shape
        # The answers are rounded, too: where windows see zeros only, some are 1e-15 instead of 0.
        excess = np.abs(results[case.id] - case.answer) - limits[case.id] - EXACTNESS
        if not (excess <= 0).all():
            wrong.append((case.id, float(excess.max()), case.op, case.keywords))
    assert not wrong


# ---- a sample --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [WEIGHTS, ""], ids=["weights known", "weights given"])
def test_a_sample_in_float64(known):
    check_float64(sample(cases(), SAMPLE_OF_ALL), known)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_by_every_algorithm(name):
    check_float32(sample(taken(name), SAMPLE), name)


def test_a_sample_of_what_has_no_algorithms():
    rest = [c for c in cases() if c not in set(convolutions())]
    check_float32(sample(rest, 3 * SAMPLE))


# ---- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("part", range(len(parts(cases()))))
def test_all_in_float64(part):
    check_float64(parts(cases())[part], WEIGHTS if part % 2 else "")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("name", NAMES)
def test_all_by_every_algorithm(name, part):
    rows = taken(name)[part::10]
    assert rows
    check_float32(rows, name)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_all_that_have_no_algorithms(part):
    rest = [c for c in cases() if c not in set(convolutions())]
    check_float32(rest[part::5])


def test_nothing_is_left_out():
    assert {c.id for name in NAMES for c in taken(name)} == {c.id for c in convolutions()}
    assert sum(map(len, parts(cases()))) == len(cases()) == 2139
    assert {name: len(taken(name)) for name in NAMES} == TAKEN
