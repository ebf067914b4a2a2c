"""Layers are pinned, explained and compiled under the names that the model gives them, whatever they absorb."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.errors import UnknownNameError
from convc.explaining import explain
from convc.ir.passes import run_passes
from convc.ir.reference import interpret
from convc.ir.text import parse
from convc.schedules.select import select
from convc.target import parse_target
from tests.strategies import inputs_of

# conv1 absorbs a BatchNormalization and a relu, conv2 a bias, a residual and a relu that is an output, too.
GRAPH = parse("""graph @net {
    %x = input : f32[1,8,6,6]
    %w1 = constant splat(0.25) : f32[8,8,3,3]
    %w2 = constant splat(0.5) : f32[8,8,3,3]
    %s = constant splat(2.0) : f32[1,8,1,1]
    %t = constant splat(-1.0) : f32[1,8,1,1]
    %conv1 = conv(%x, %w1) {pads = [1, 1, 1, 1]}
    %bn1_mul = mul(%conv1, %s)
    %bn1 = add(%bn1_mul, %t)
    %relu1 = relu(%bn1)
    %conv2 = conv(%relu1, %w2) {pads = [1, 1, 1, 1]}
    %bias2 = add(%conv2, %t)
    %sum = add(%bias2, %x)
    %relu2 = relu(%sum)
    %m = max_pool(%relu2) {kernel = [2, 2]}
    return %m as "pooled", %relu2
}""")


def test_a_pin_finds_its_convolution():
    graph = run_passes(GRAPH)
    target = parse_target("llvm", "x86-64-v3", 1)
    plan = select(graph, target, algo_for={"conv1": "winograd", "conv2": "direct"})
    assert [plan[name].algorithm for name in ("conv1", "conv2")] == ["winograd", "direct"]
    assert plan["conv1"].reason == "pinned by --algo-for conv1"


def test_a_pin_on_what_was_absorbed_says_what_the_layers_are_called():
    graph, target = run_passes(GRAPH), parse_target("llvm", "x86-64-v3", 1)
    with pytest.raises(UnknownNameError) as caught:
        select(graph, target, algo_for={"relu1": "direct"})
    assert str(caught.value) == "unknown convolution 'relu1'; known: conv1, conv2."


def test_explain_reports_layers_by_their_own_names():
    reports = explain(GRAPH, mcpu="x86-64-v3", threads=1, algo_for={"conv*": "direct"})
    assert [r.node for r in reports] == ["conv1", "conv2"]
    for report in reports:
        (chosen,) = (c for c in report.candidates if c.chosen)
        assert (chosen.algorithm, chosen.reason) == ("direct", "pinned by --algo-for conv*")


def test_a_module_names_its_steps_after_layers_and_its_outputs_as_the_model_does():
    compiled = compile(GRAPH, threads=1, algo="direct")
    assert [s.node for s in compiled.manifest.steps if s.op == "conv"] == ["conv1", "conv2"]
    assert [o.name for o in compiled.manifest.outputs] == ["pooled", "relu2"]
    data = inputs_of(GRAPH)
    expected = interpret(GRAPH, data)
    actual = compiled.run(data)
    assert list(actual) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array)  # sums of quarters are exact
