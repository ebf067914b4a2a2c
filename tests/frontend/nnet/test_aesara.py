"""`convc.nnet` gives Aesara's answers: by the definition (the float64 oracle) for all, through compiled modules for all under `slow`."""

from __future__ import annotations

import numpy as np
import pytest

from convc import dsl
from convc.ir import Graph
from convc.ir.reference import interpret
from tests.frontend.nnet.aesara_cases import CALLS, Case, cases

# Two programs add up the same float64 products in two orders.
EXACTNESS = 1e-12


def of(op: str) -> list[Case]:
    return [c for c in cases() if c.op == op]


def graph_of(rows: list[Case]) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return a graph of all cases, everything an input, and its inputs."""
    outputs, inputs = {}, {}
    for case in rows:
        arrays = {f"{case.id}{name}": a for name, a in case.arrays().items()}
        inputs |= arrays
        operands = {n[-1]: dsl.input(n, a.shape, "float64") for n, a in arrays.items()}
        outputs[case.id] = case.call(operands)
    return dsl.graph(outputs), inputs


@pytest.mark.parametrize("op", CALLS)
def test_the_meaning_is_aesaras(op):
    graph, inputs = graph_of(of(op))
    results = interpret(graph, inputs)
    wrong = []
    for case in of(op):
        result, answer = results[case.id], case.answer
        assert result.shape == answer.shape
        if answer.size and np.abs(result - answer).max() > EXACTNESS:
            wrong.append((case.id, case.keywords))
    assert not wrong


def test_every_answer_is_asked_for():
    assert len(cases()) == 2139
    assert len({c.id for c in cases()}) == 2139
