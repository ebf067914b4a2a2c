"""Convolutions of one value that are added up: which become one, that it computes the same, and what must stay."""

from __future__ import annotations

import numpy as np
import pytest

from convc.ir.passes import run_passes
from convc.ir.passes.merge_branches import merge_branches
from convc.ir.reference import interpret
from convc.ir.text import parse

# Small integers: every sum is exact.
HEAD = """%x = input : f32[2,4,7,8] %u = input : f32[2,4,7,8]
    %w3 = constant dense(W3) : f32[4,4,3,3] %w1 = constant dense(W1) : f32[4,4,1,1] %w5 = constant dense(W5) : f32[4,4,5,5]
    %d3 = constant dense(D3) : f32[4,1,3,3] %d1 = constant dense(D1) : f32[4,1,1,1] %g3 = constant dense(G3) : f32[4,2,3,3]
    %h1 = constant dense(W1) : f32[4,4,1,1] %r3 = constant dense(R3) : f32[4,4,1,3] %c3 = constant dense(R3) : f32[4,4,3,1]
    %b = constant dense([1.0, 2.0, 3.0, -4.0]) : f32[4] %s = constant dense([2.0, -1.0, 4.0, 3.0]) : f32[1,4,1,1]
    %t = constant dense([0.5, 1.0, -2.0, 0.0]) : f32[4,1,1] %two = constant splat(2.0) : f32[]"""
PAD1, PAD2 = "pads = [1, 1, 1, 1]", "pads = [2, 2, 2, 2]"
BRANCHES = f"%a = conv(%x, %w3, %b) {{{PAD1}, epilogue = [bias]}} %c = conv(%x, %w1)"
MERGED = {
    "two filters": (f"{BRANCHES} %y = add(%a, %c) return %y", 1),
    "a normalised third branch": (f"{BRANCHES} %e = add(%a, %c) %m = mul(%x, %s) %n = add(%m, %t) %y = add(%e, %n) return %y", 1),
    "each normalised": (f"{BRANCHES} %m = mul(%a, %s) %n = sub(%m, %t) %o = div(%c, %two) %y = add(%n, %o) return %y", 1),
    "a difference": (f"{BRANCHES} %m = mul(%x, %s) %e = sub(%m, %a) %y = sub(%c, %e) return %y", 1),
    "a layer scale over all, and the data": (f"{BRANCHES} %e = add(%a, %c) %m = mul(%e, %s) %y = add(%x, %m) return %y", 1),
    "one filter and a scaled base": (f"%a = conv(%x, %w3) {{{PAD1}}} %m = mul(%x, %s) %y = add(%a, %m) return %y", 1),
    "strides": (f"%a = conv(%x, %w3) {{strides = [2, 2], {PAD1}}} %c = conv(%x, %w1) {{strides = [2, 2]}} %y = add(%a, %c) return %y", 1),
    "a larger filter": (f"%a = conv(%x, %w3) {{{PAD1}}} %c = conv(%x, %w5) {{{PAD2}}} %y = add(%a, %c) return %y", 1),
    "dilated": (f"%a = conv(%x, %w3) {{dilations = [2, 2], {PAD2}}} %c = conv(%x, %w1) %y = add(%a, %c) return %y", 1),
    "depthwise": (f"%a = conv(%x, %d3) {{group = 4, {PAD1}}} %c = conv(%x, %d1) {{group = 4}} %m = mul(%x, %s) %e = add(%a, %c) %y = add(%e, %m) return %y", 1),
    "groups": (f"%a = conv(%x, %g3) {{group = 2, {PAD1}}} %m = mul(%x, %s) %y = sub(%a, %m) return %y", 1),
    "lines inside a square": (f"{BRANCHES} %f = conv(%x, %r3) {{pads = [0, 1, 0, 1]}} %g = conv(%x, %c3) {{pads = [1, 0, 1, 0]}} %e = add(%a, %f) %h = add(%g, %c) %y = add(%e, %h) return %y", 1),
    "another base beside": (f"{BRANCHES} %e = add(%a, %c) %y = add(%e, %u) return %y", 1),
    "a second level": (f"{BRANCHES} %e = add(%a, %c) %f = relu(%e) %g = conv(%f, %w3) {{{PAD1}}} %h = conv(%f, %h1) %y = add(%g, %h) return %y", 2),
}  # fmt: skip
KEPT = {
    "a residual": f"%a = conv(%x, %w3) {{{PAD1}}} %y = add(%a, %x) return %y",
    "two bases": f"%a = conv(%x, %w3) {{{PAD1}}} %c = conv(%u, %w1) %y = add(%a, %c) return %y",
    "a row and a column": "%a = conv(%x, %r3) {pads = [0, 1, 0, 1]} %c = conv(%x, %c3) {pads = [1, 0, 1, 0]} %y = add(%a, %c) return %y",
    "another reader": f"{BRANCHES} %y = add(%a, %c) %z = relu(%c) return %y, %z",
    "an output": f"{BRANCHES} %y = add(%a, %c) return %y, %c",
    "groups and none": f"%a = conv(%x, %g3) {{group = 2, {PAD1}}} %c = conv(%x, %w1) %y = add(%a, %c) return %y",
    "dilations": f"%a = conv(%x, %w3) {{dilations = [2, 2], {PAD2}}} %c = conv(%x, %w3) {{{PAD1}}} %y = add(%a, %c) return %y",
    "an activation between": f"{BRANCHES} %e = relu(%a) %y = add(%e, %c) return %y",
    "a product of both": f"{BRANCHES} %y = mul(%a, %c) return %y",
}  # fmt: skip


def graph_of(body):
    rng = np.random.default_rng(0)
    head = HEAD
    sizes = {"W3": 144, "W1": 16, "W5": 400, "D3": 36, "D1": 4, "G3": 72, "R3": 48}
    for name, size in sizes.items():
        numbers = rng.integers(-3, 4, size).astype(float).tolist()
        head = head.replace(f"dense({name})", f"dense({numbers})")
    return parse(f"graph @g {{ {head} {body} }}")


def data():
    rng = np.random.default_rng(1)
    return {n: rng.integers(-4, 5, (2, 4, 7, 8)).astype(float) for n in ("x", "u")}


@pytest.mark.parametrize(("body", "convs"), MERGED.values(), ids=MERGED.keys())
def test_branches_are_one_convolution(body, convs):
    graph = graph_of(body)
    merged = merge_branches(graph)
    merged.verify()
    assert sum(n.op == "conv" for n in merged.nodes) == convs
    wanted, got = interpret(graph, data()), interpret(merged, data())
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value)
    again = merge_branches(merged)
    assert again is merged


@pytest.mark.parametrize("body", KEPT.values(), ids=KEPT.keys())
def test_what_is_no_one_convolution_stays(body):
    graph = graph_of(body)
    assert merge_branches(graph) is graph


def test_weights_that_overflow_stay():
    graph = graph_of(
        f"%huge = constant splat(1e38) : f32[] {BRANCHES} %m = mul(%a, %huge) %n = mul(%m, %huge) %y = add(%n, %c) return %y"
    )
    assert merge_branches(graph) is graph


def test_the_largest_layer_keeps_its_name():
    graph = graph_of(
        f"%point = conv(%x, %w1) %square = conv(%x, %w3) {{{PAD1}}} %y = add(%point, %square) return %y"
    )
    assert [n.name for n in run_passes(graph).nodes if n.op == "conv"] == ["square"]
