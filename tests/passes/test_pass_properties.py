"""What every pass promises, on random graphs whose arithmetic is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from convc.ir import Graph
from convc.ir.passes import PASSES, run_passes
from convc.ir.reference import interpret
from convc.ir.text import print_graph
from tests.strategies import graphs, inputs_of

few = settings(deadline=None, max_examples=60, derandomize=True)


def assert_same_results(before: Graph, after: Graph) -> None:
    data = inputs_of(before)
    expected, got = interpret(before, data), interpret(after, data)
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.mark.parametrize("step", PASSES, ids=lambda step: step.name)
@few
@given(graph=graphs())
def test_pass(step, graph):
    result = step.function(graph)
    result.verify()
    assert_same_results(graph, result)
    # Inputs and the public names of outputs are the graph's signature.
    assert result.inputs == graph.inputs
    assert [o.name for o in result.outputs] == [o.name for o in graph.outputs]
    # Once more changes nothing, and says so by returning the same object.
    assert step.function(result) is result
    # Same graph in, same graph out.
    assert print_graph(step.function(graph)) == print_graph(result)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(graphs(exact=True, max_ops=12))
def test_pipeline_keeps_exact_results(graph):
    result = run_passes(graph)
    assert_same_results(graph, result)
    assert len(result.compute_nodes) <= len(graph.compute_nodes)


@few
@given(graphs(exact=False))
def test_pipeline_keeps_activations(graph):
    """With sigmoids the results are no longer dyadic; folding and fusing may then round differently, in float64."""
    result = run_passes(graph)
    data = inputs_of(graph)
    expected, got = interpret(graph, data), interpret(result, data)
    for name, array in expected.items():
        scale = max(1.0, float(np.abs(array).max(initial=0)))
        np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-9 * scale)
