"""Fusing into epilogues: graphs before and after, and what must stay."""

from __future__ import annotations

import pytest

from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.fuse_epilogue import fuse_epilogue
from convc.ir.text import parse, print_graph

HEAD = """%x = input : f32[1,2,5,5] %w = input : f32[2,2,1,1] %v = input : f32[2,2,1,1] %r = input : f32[1,2,5,5]
    %row = input : f32[5] %wide = input : f32[3,2,5,5] %one = input : f32[1]"""


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
        ["%y = conv(%x, %w, %r, %x) {epilogue = [add, relu, add, clip(0.0, 6.0)]} : f32[1,2,5,5]"],
    ),
    "of two convolutions the last takes the other": (
        "%c = conv(%x, %w) %d = conv(%x, %v) %a = add(%d, %c) %y = relu(%a) return %y",
        [
            "%c = conv(%x, %w) : f32[1,2,5,5]",
            "%y = conv(%x, %v, %c) {epilogue = [add, relu]} : f32[1,2,5,5]",
        ],
    ),
    "a fused layer counts as running where its last step ran": (
        "%d = conv(%x, %v) %c = conv(%x, %w) %e = relu(%d) %y = add(%c, %e) return %y",
        [
            "%c = conv(%x, %w) : f32[1,2,5,5]",
            "%y = conv(%x, %v, %c) {epilogue = [relu, add]} : f32[1,2,5,5]",
        ],
    ),
    "only the convolution that nobody else reads is open": (
        "%c = conv(%x, %w) %d = conv(%c, %v) %y = add(%c, %d) return %y",
        [
            "%c = conv(%x, %w) : f32[1,2,5,5]",
            "%y = conv(%c, %v, %c) {epilogue = [add]} : f32[1,2,5,5]",
        ],
    ),
    "a scalar constant is a bias": (
        "%k = constant splat(0.5) : f32[] %c = conv(%x, %w) %y = add(%k, %c) return %y",
        [
            "%k_vector = constant splat(0.5) : f32[2]",
            "%y = conv(%x, %w, %k_vector) {epilogue = [bias]} : f32[1,2,5,5]",
        ],
    ),
    "a constant per channel is reshaped at once": (
        "%k = constant dense([1.0, 2.0]) : f32[1,2,1,1] %c = conv(%x, %w) %y = add(%c, %k) return %y",
        [
            "%k_vector = constant dense([1.0, 2.0]) : f32[2]",
            "%y = conv(%x, %w, %k_vector) {epilogue = [bias]} : f32[1,2,5,5]",
        ],
    ),
    "the bias of a dense layer is a row": (
        "%m = input : f32[3,4] %n = input : f32[2,4] %k = input : f32[2] %d = dense(%m, %n) %a = add(%d, %k) %y = tanh(%a) return %y",
        ["%y = dense(%m, %n, %k) {epilogue = [bias, tanh]} : f32[3,2]"],
    ),
    "transposed convolutions fuse alike": (
        "%c = conv_transpose(%x, %w) %y = leaky_relu(%c) {alpha = 0.1} return %y",
        ["%y = conv_transpose(%x, %w) {epilogue = [leaky_relu(0.1)]} : f32[1,2,5,5]"],
    ),
    "a fused layer moves behind what its operands need": (
        "%c = conv(%x, %w) %q = relu(%r) %y = add(%c, %q) return %y",
        [
            "%q = relu(%r) : f32[1,2,5,5]",
            "%y = conv(%x, %w, %q) {epilogue = [add]} : f32[1,2,5,5]",
        ],
    ),
}


@pytest.mark.parametrize(("body", "after"), FUSED.values(), ids=FUSED.keys())
def test_fused(body, after):
    assert lines(eliminate_dead_nodes(fuse_epilogue(graph_of(body)))) == after


STAYS = {
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
