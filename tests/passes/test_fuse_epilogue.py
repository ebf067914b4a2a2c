"""Fusing into epilogues: graphs before and after, and what must stay."""

from __future__ import annotations

import numpy as np
import pytest

from convc.ir import Output
from convc.ir.passes import run_passes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.fuse_epilogue import fuse_epilogue
from convc.ir.reference import interpret
from convc.ir.text import parse, print_graph
from tests.strategies import inputs_of

HEAD = """%x = input : f32[1,2,5,5] %w = input : f32[2,2,1,1] %v = input : f32[2,2,1,1] %r = input : f32[1,2,5,5]
    %row = input : f32[5] %wide = input : f32[3,2,5,5] %one = input : f32[1]
    %sq = input : f32[5,5] %mask = input : f32[2,1,5]"""


def graph_of(body):
    return parse(f"graph @g {{ {HEAD} {body} }}")


def lines(graph):
    return [
        line.strip()
        for line in print_graph(graph).splitlines()
        if " = " in line and "input" not in line
    ]


FUSED = {
    "two residuals and activations in between": (
        "%c = conv(%x, %w) %a = add(%r, %c) %b = relu(%a) %d = add(%b, %x) %y = clip(%d) {min = 0.0, max = 6.0} return %y",
        ["%c = conv(%x, %w, %r, %x) {epilogue = [add, relu, add, clip(0.0, 6.0)]} : f32[1,2,5,5]"],
    ),
    "of two convolutions the last takes the other": (
        "%c = conv(%x, %w) %d = conv(%x, %v) %a = add(%d, %c) %y = relu(%a) return %y",
        [
            "%c = conv(%x, %w) : f32[1,2,5,5]",
            "%d = conv(%x, %v, %c) {epilogue = [add, relu]} : f32[1,2,5,5]",
        ],
    ),
    "a fused layer counts as running where its last step ran": (
        "%d = conv(%x, %v) %c = conv(%x, %w) %e = relu(%d) %y = add(%c, %e) return %y",
        [
            "%c = conv(%x, %w) : f32[1,2,5,5]",
            "%d = conv(%x, %v, %c) {epilogue = [relu, add]} : f32[1,2,5,5]",
        ],
    ),
    "only the convolution that nobody else reads is open": (
        "%c = conv(%x, %w) %d = conv(%c, %v) %y = add(%c, %d) return %y",
        [
            "%c = conv(%x, %w) : f32[1,2,5,5]",
            "%d = conv(%c, %v, %c) {epilogue = [add]} : f32[1,2,5,5]",
        ],
    ),
    "a scalar constant is a bias": (
        "%k = constant splat(0.5) : f32[] %c = conv(%x, %w) %y = add(%k, %c) return %y",
        [
            "%k_vector = constant splat(0.5) : f32[2]",
            "%c = conv(%x, %w, %k_vector) {epilogue = [bias]} : f32[1,2,5,5]",
        ],
    ),
    "a constant per channel is reshaped at once": (
        "%k = constant dense([1.0, 2.0]) : f32[1,2,1,1] %c = conv(%x, %w) %y = add(%c, %k) return %y",
        [
            "%k_vector = constant dense([1.0, 2.0]) : f32[2]",
            "%c = conv(%x, %w, %k_vector) {epilogue = [bias]} : f32[1,2,5,5]",
        ],
    ),
    "the bias of a dense layer is a row": (
        "%m = input : f32[3,4] %n = input : f32[2,4] %k = input : f32[2] %d = dense(%m, %n) %a = add(%d, %k) %y = tanh(%a) return %y",
        ["%d = dense(%m, %n, %k) {epilogue = [bias, tanh]} : f32[3,2]"],
    ),
    "transposed convolutions fuse alike": (
        "%c = conv_transpose(%x, %w) %y = leaky_relu(%c) {alpha = 0.1} return %y",
        ["%c = conv_transpose(%x, %w) {epilogue = [leaky_relu(0.1)]} : f32[1,2,5,5]"],
    ),
    "a product's bias is along its last axis": (
        "%m = matmul(%r, %sq) %a = add(%row, %m) %b = gelu(%a) %y = add(%b, %r) return %y",
        ["%m = matmul(%r, %sq, %row, %r) {epilogue = [bias, gelu, add]} : f32[1,2,5,5]"],
    ),
    "a product takes factors and what broadcasts to it": (
        "%m = matmul(%r, %sq) %a = mul(%m, %one) %y = add(%a, %mask) return %y",
        ["%m = matmul(%r, %sq, %one, %mask) {epilogue = [mul, add]} : f32[1,2,5,5]"],
    ),
    "a product's constant divisor is a factor": (
        "%k = constant splat(8.0) : f32[] %m = matmul(%r, %sq) %y = div(%m, %k) return %y",
        [
            "%k_reciprocal = constant splat(0.125) : f32[]",
            "%m = matmul(%r, %sq, %k_reciprocal) {epilogue = [mul]} : f32[1,2,5,5]",
        ],
    ),
    "a fused layer moves behind what its operands need": (
        "%c = conv(%x, %w) %q = relu(%r) %y = add(%c, %q) return %y",
        [
            "%q = relu(%r) : f32[1,2,5,5]",
            "%c = conv(%x, %w, %q) {epilogue = [add]} : f32[1,2,5,5]",
        ],
    ),
}


@pytest.mark.parametrize(("body", "after"), FUSED.values(), ids=FUSED.keys())
def test_fused(body, after):
    fused = eliminate_dead_nodes(fuse_epilogue(graph_of(body)))
    assert lines(fused) == after
    # The public name stays; its value is the layer's.
    assert fused.outputs == (Output("y", fused.nodes[-1].name),)


def test_a_chain_keeps_the_name_of_its_convolution():
    """Bias, scale, shift, residual and activation around it: `stem` is what users pin and what reports show."""
    graph = parse("""graph @g {
        %x = input : f32[1,2,3,3]
        %w = constant dense([1.0, 2.0, 3.0, 4.0]) : f32[2,2,1,1]
        %b = constant dense([1.0, 2.0]) : f32[2]
        %s = constant dense([2.0, 3.0]) : f32[1,2,1,1]
        %t = constant dense([5.0, 7.0]) : f32[1,2,1,1]
        %stem = conv(%x, %w, %b) {epilogue = [bias]}
        %bn_1 = mul(%stem, %s)
        %bn_2 = add(%bn_1, %t)
        %sum = add(%x, %bn_2)
        %relu_1 = relu(%sum)
        %m = max_pool(%relu_1) {kernel = [2, 2]}
        return %m, %relu_1 as "features" }""")
    after = run_passes(graph)
    assert (
        print_graph(after)
        == """graph @g {
  %x = input : f32[1,2,3,3]
  %w_scaled = constant dense([2.0, 4.0, 9.0, 12.0]) : f32[2,2,1,1]
  %stem_bias = constant dense([7.0, 13.0]) : f32[2]
  %stem = conv(%x, %w_scaled, %stem_bias, %x) {epilogue = [bias, add, relu]} : f32[1,2,3,3]
  %m = max_pool(%stem) {kernel = [2, 2]} : f32[1,2,2,2]
  return %m, %stem as "features"
}
"""
    )
    data = inputs_of(graph)
    expected, got = interpret(graph, data), interpret(after, data)
    assert list(got) == ["m", "features"]
    for name in got:
        np.testing.assert_array_equal(got[name], expected[name])


def test_two_layers_in_a_row_and_a_value_read_twice_are_forwarded():
    graph = graph_of(
        "%c = conv(%x, %w) %p = relu(%c) %d = conv(%p, %v) %q = add(%d, %p) %o = tanh(%q) "
        '%m = mul(%o, %o) return %m as "a", %o as "b", %o as "c"'
    )
    fused = fuse_epilogue(graph)
    assert lines(fused) == [
        "%c = conv(%x, %w) {epilogue = [relu]} : f32[1,2,5,5]",
        "%d = conv(%c, %v, %c) {epilogue = [add, tanh]} : f32[1,2,5,5]",
        "%m = mul(%d, %d) : f32[1,2,5,5]",
    ]
    assert fused.outputs == (Output("a", "m"), Output("b", "d"), Output("c", "d"))


def test_a_layer_is_as_closed_as_the_value_it_ends_in():
    """The convolution itself has one user each time; what it fused into has two, or is an output."""
    graph = graph_of("%c = conv(%x, %w) %a = relu(%c) %y = tanh(%a) return %y, %a")
    assert lines(fuse_epilogue(graph)) == [
        "%c = conv(%x, %w) {epilogue = [relu]} : f32[1,2,5,5]",
        "%y = tanh(%c) : f32[1,2,5,5]",
    ]
    graph = graph_of("%c = conv(%x, %w) %a = relu(%c) %t = tanh(%a) %y = mul(%a, %t) return %y")
    assert lines(fuse_epilogue(graph)) == [
        "%c = conv(%x, %w) {epilogue = [relu]} : f32[1,2,5,5]",
        "%t = tanh(%c) : f32[1,2,5,5]",
        "%y = mul(%c, %t) : f32[1,2,5,5]",
    ]


def test_a_new_constant_avoids_the_names_of_the_model():
    graph = graph_of(
        "%k = constant splat(0.5) : f32[] %k_vector = relu(%r) %c = conv(%k_vector, %w) %y = add(%k, %c) return %y"
    )
    assert fuse_epilogue(graph)["c"].inputs == ("k_vector", "w", "k_vector_1")


STAYS = {
    "a layer that is no product is multiplied": "%c = conv(%x, %w) %y = mul(%c, %r) return %y",
    "the product is the divisor": "%m = matmul(%r, %sq) %y = div(%r, %m) return %y",
    "the divisor is computed": "%m = matmul(%r, %sq) %y = div(%m, %one) return %y",
    "the divisor has no normal reciprocal": "%k = constant splat(1e6) : f32[] %m = matmul(%r, %sq) %y = div(%m, %k) return %y",
    "the sum is larger than the product": "%m = matmul(%r, %sq) %y = add(%m, %wide) return %y",
    "the layer is an output": "%c = conv(%x, %w) %y = relu(%c) return %y, %c",
    "the layer has another user": "%c = conv(%x, %w) %a = relu(%c) %b = tanh(%c) %y = mul(%a, %b) return %y",
    "the value is added to itself": "%c = conv(%x, %w) %y = add(%c, %c) return %y",
    "the operand varies along a row": "%c = conv(%x, %w) %y = add(%c, %row) return %y",
    "the sum is larger than the layer": "%c = conv(%x, %w) %y = add(%c, %wide) return %y",
    "a computed scalar needs broadcasting": "%c = conv(%x, %w) %y = add(%c, %one) return %y",
    "no epilogue step multiplies": "%c = conv(%x, %w) %y = mul(%c, %r) return %y",
    "no layer comes before": "%a = add(%x, %r) %y = relu(%a) return %y",
}


@pytest.mark.parametrize("body", STAYS.values(), ids=STAYS.keys())
def test_unless(body):
    graph = graph_of(body)
    assert fuse_epilogue(graph) is graph
