"""The pipeline's runner: order, dumps, verification and the trail it leaves on errors."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from convc.errors import VerifyError
from convc.ir import GraphBuilder, TensorType
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.pool import MaxPoolAttributes
from convc.ir.passes import PIPELINE, Pass, run_passes
from convc.ir.passes.rewrite import Rewriter
from convc.ir.text import parse, print_graph

GRAPH = parse("graph @g { %x = input : f32[2] %y = relu(%x) return %y }")


def breaking(graph):
    return graph.with_nodes([*graph.nodes, *graph.nodes[-1:]])


def raising(graph):
    raise VerifyError("node %y must be nice; it is not.")


@pytest.mark.parametrize("function", [breaking, raising])
def test_an_error_names_the_pass_and_those_before(function):
    passes = (
        Pass("one", lambda g: g),
        Pass("two", lambda g: replace(g, name="h")),
        Pass("three", function),
    )
    with pytest.raises(VerifyError) as caught:
        run_passes(GRAPH, passes)
    assert caught.value.__notes__ == ["in pass three, after one, two"]
    with pytest.raises(VerifyError) as caught:
        run_passes(GRAPH, passes[2:])
    assert caught.value.__notes__ == ["in pass three"]


def test_the_graph_is_verified_before_the_first_pass():
    with pytest.raises(VerifyError) as caught:
        run_passes(breaking(GRAPH), ())
    assert str(caught.value) == "value %y must have one definition; it has two."


def test_dump_sees_every_pass_in_order():
    seen = []
    run_passes(GRAPH, dump=lambda name, graph: seen.append((name, graph.name)))
    assert seen == [(p.name, "g") for p in PIPELINE]


def test_a_whole_block():
    graph = parse("""graph @block {
      %x = input : f32[1,2,4,4]
      %w = constant splat(1.0) : f32[2,2,3,3]
      %s = constant dense([2.0, 4.0]) : f32[1,2,1,1]
      %t = constant dense([1.0, 3.0]) : f32[1,2,1,1]
      %p = pad(%x) {pads = [0, 0, 1, 1, 0, 0, 1, 1]}
      %c = conv(%p, %w)
      %m = mul(%c, %s)
      %b = add(%m, %t)
      %r = add(%b, %x)
      %g = sigmoid(%r)
      %a = mul(%r, %g)
      %q = average_pool(%a) {kernel = [4, 4]}
      %f = reshape(%q) {shape = [2, 1]}
      %h = reshape(%f) {shape = [1, 2]}
      return %h as "out"
    }""")
    assert (
        print_graph(run_passes(graph), weights="block.npz")
        == """graph @block {
  %x = input : f32[1,2,4,4]
  %w_scaled = constant ref("block.npz", "w_scaled") : f32[2,2,3,3]
  %c_bias = constant dense([1.0, 3.0]) : f32[2]
  %c = conv(%x, %w_scaled, %c_bias, %x) {pads = [1, 1, 1, 1], epilogue = [bias, add, silu]} : f32[1,2,4,4]
  %q = reduce_mean(%c) {axes = [2, 3]} : f32[1,2,1,1]
  %h = reshape(%q) {shape = [1, 2]} : f32[1,2]
  return %h as "out"
}
"""
    )


def test_rewriter_names_avoid_both_graphs():
    r = Rewriter(GRAPH)
    assert [r.unique("y"), r.unique("y"), r.unique("z")] == ["y_1", "y_2", "z"]


def test_a_rewriter_that_changes_nothing_returns_the_same_graph():
    r = Rewriter(GRAPH)
    for node in GRAPH.nodes:
        r.keep(node)
    assert r.finish() is GRAPH


def test_the_pipeline_is_linear():
    """A thousand layers, 7000 nodes: a quadratic pass would take minutes."""
    b = GraphBuilder("deep")
    value = b.input("x", TensorType((1, 2, 3, 3)))
    weight = np.ones((2, 2, 1, 1), "float32")
    for i in range(1000):
        conv = b.add("conv", [value, b.constant(weight * i)], ConvAttributes())
        scaled = b.add("mul", [conv, b.constant(np.float32([[[2]], [[3]]]))])
        value = b.add("add", [b.add("relu", [scaled]), value])
    # Nothing absorbs these: one chain of scales and shifts.
    value = b.add("tanh", [b.add("max_pool", [value], MaxPoolAttributes((1, 1), (2, 2)))])
    for i in range(1000):
        value = b.add("mul", [value, b.constant(np.float32(0.5 if i % 2 else 2.0))])
        value = b.add("add", [value, b.constant(np.float32(1.0))])
    started = time.process_time()
    result = run_passes(b.finish({"y": value}))
    assert time.process_time() - started < 10
    assert len(result.compute_nodes) == 1000 + 2 + 1
    assert result.compute_nodes[-1].op == "add"
