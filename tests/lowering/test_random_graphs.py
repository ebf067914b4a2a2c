"""Random graphs: the compiled module gives what the interpreter gives, whatever was in its memory before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from convc.compiler import compile
from convc.ir.reference import interpret
from convc.ir.text import print_graph
from tests.lowering.image_graphs import image_graphs
from tests.lowering.module_steps import assert_lanes_stay_zero, poison_arena
from tests.lowering.small_tiles import compile_small
from tests.strategies import graphs, inputs_of
from tests.tolerance import assert_exact

few = settings(
    deadline=None,
    max_examples=8,
    derandomize=True,
    # A step of shrinking is a compilation: the failing graph is printed as it is.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
MANY = [8, pytest.param(300, marks=pytest.mark.slow)]


def check(graph, module) -> None:
    """Compare two runs on different data, the second in poisoned memory."""
    note(print_graph(graph))
    for seed in (1, 2):
        inputs = inputs_of(graph, seed)
        expected, actual = interpret(graph, inputs), module.run(inputs)
        assert list(actual) == [o.name for o in graph.outputs]
        for name in expected:
            assert np.abs(expected[name]).max() < 2**24, "too large to be exact"
            assert_exact(actual[name], expected[name])
        poison_arena(module)


@pytest.mark.parametrize("examples", MANY)
def test_images_in_every_order_of_memory(examples):
    @settings(few, max_examples=examples)
    @given(image_graphs(), st.data())
    def every(graph, data):
        # Any algorithm that takes the convolution: plain and blocked values meet.
        module = compile_small(graph, lambda rows: data.draw(st.sampled_from(rows)))
        check(graph, module)

    every()


@pytest.mark.parametrize("examples", [25, pytest.param(500, marks=pytest.mark.slow)])
def test_graphs_through_all_stages(examples):
    @settings(few, max_examples=examples)
    @given(graphs(max_ops=8))
    def every(graph):
        check(graph, compile(graph, threads=1).load(threads=1))

    every()


@pytest.mark.parametrize("examples", MANY)
def test_lanes_beyond_the_last_channel_stay_zero(examples):
    @settings(few, max_examples=examples)
    @given(image_graphs())
    def every(graph):
        note(print_graph(graph))
        assert_lanes_stay_zero(graph, compile_small(graph), inputs_of(graph))

    every()
