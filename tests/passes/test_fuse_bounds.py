"""Maxima and minima with numbers: which become relu, clip and leaky_relu, and what must stay. Powers written as products and roots."""

from __future__ import annotations

import numpy as np
import pytest

from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.expand_powers import expand_powers
from convc.ir.passes.fuse_bounds import fuse_bounds
from convc.ir.reference import interpret
from convc.ir.text import parse, print_graph

HEAD = """%x = input : f32[4] %v = input : f32[4] %zero = constant splat(0.0) : f32[] %six = constant dense([6.0]) : f32[1]
    %one = constant splat(1.0) : f32[] %minus = constant splat(-1.0) : f32[] %nan = constant splat(nan) : f32[]
    %mixed = constant dense([0.0, 1.0, 2.0, 3.0]) : f32[4] %wide = constant splat(0.0) : f32[2,4] %tenth = constant splat(0.125) : f32[]"""
DATA = {"x": np.array([-4.0, 0.5, 3.0, 7.0]), "v": np.array([1.0, -2.0, 9.0, -0.5])}
CLIP6 = ["%y = clip(%x) {min = 0.0, max = 6.0} : f32[4]"]

FUSED = {
    "relu": ("%y = maximum(%x, %zero) return %y", ["%y = relu(%x) : f32[4]"]),
    "the number first": ("%y = maximum(%zero, %x) return %y", ["%y = relu(%x) : f32[4]"]),
    "a lower bound": ("%y = maximum(%x, %one) return %y", ["%y = clip(%x) {min = 1.0} : f32[4]"]),
    "an upper bound": ("%y = minimum(%x, %six) return %y", ["%y = clip(%x) {max = 6.0} : f32[4]"]),
    "both": ("%a = maximum(%x, %zero) %y = minimum(%a, %six) return %y", CLIP6),
    "both, the upper first": ("%a = minimum(%six, %x) %y = maximum(%zero, %a) return %y", CLIP6),
    "relu, then an upper bound": ("%a = relu(%x) %y = minimum(%a, %six) return %y", CLIP6),
    "leaky relu": ("%s = mul(%x, %tenth) %y = maximum(%s, %x) return %y", ["%y = leaky_relu(%x) {alpha = 0.125} : f32[4]"]),
    "bounds that cross": (
        "%a = maximum(%x, %one) %y = minimum(%a, %minus) return %y",
        ["%a = clip(%x) {min = 1.0} : f32[4]", "%y = clip(%a) {max = -1.0} : f32[4]"],
    ),
    "what is in between is read": (
        "%a = maximum(%x, %zero) %y = minimum(%a, %six) %z = add(%a, %y) return %z",
        ["%a = relu(%x) : f32[4]", "%y = clip(%a) {max = 6.0} : f32[4]", "%z = add(%a, %y) : f32[4]"],
    ),
}  # fmt: skip
KEPT = {
    "two values": "%y = maximum(%x, %v) return %y",
    "numbers": "%y = maximum(%x, %mixed) return %y",
    "a larger result": "%y = maximum(%x, %wide) return %y",
    "NaN": "%y = minimum(%x, %nan) return %y",
    "a steep slope": "%s = mul(%x, %six) %y = maximum(%s, %x) return %y",
    "a smaller of both": "%s = mul(%x, %tenth) %y = minimum(%s, %x) return %y",
    "another value's slope": "%s = mul(%v, %tenth) %y = maximum(%s, %x) return %y",
}


def lines(graph):
    text = print_graph(eliminate_dead_nodes(graph)).splitlines()
    return [s.strip() for s in text if " = " in s and " input " not in s and " constant " not in s]


@pytest.mark.parametrize(("body", "wanted"), FUSED.values(), ids=FUSED.keys())
def test_bounds_are_activations(body, wanted):
    graph = parse(f"graph @g {{ {HEAD} {body} }}")
    fused = fuse_bounds(graph)
    fused.verify()
    assert lines(fused) == wanted
    for name, value in interpret(graph, DATA).items():
        np.testing.assert_array_equal(interpret(fused, DATA)[name], value)


@pytest.mark.parametrize("body", KEPT.values(), ids=KEPT.keys())
def test_what_is_no_activation_stays(body):
    graph = parse(f"graph @g {{ {HEAD} {body} }}")
    assert fuse_bounds(graph) is graph


def test_maxima_of_integers_stay():
    graph = parse("graph @g { %x = input : i32[4] %zero = constant splat(0) : i32[] %y = maximum(%x, %zero) return %y }")  # fmt: skip
    assert fuse_bounds(graph) is graph


@pytest.mark.parametrize("exponent", [2.0, 3.0, 4.0, 0.5, -1.0, -0.5])
def test_powers_are_products_and_roots(exponent):
    graph = parse(f"graph @g {{ %x = input : f32[4] %p = constant splat({exponent}) : f32[1] %y = pow(%x, %p) return %y }}")  # fmt: skip
    written = expand_powers(graph)
    written.verify()
    assert not [n for n in written.nodes if n.op == "pow"]
    data = {"x": np.array([0.25, 1.0, 3.0, 1e-3])}
    np.testing.assert_allclose(
        interpret(written, data)["y"], interpret(graph, data)["y"], rtol=1e-15
    )


@pytest.mark.parametrize(
    "body",
    [
        "%p = constant splat(2.5) : f32[]",
        "%p = constant splat(2.0) : f32[2,4]",
        "%p = constant dense([1.0, 2.0, 3.0, 4.0]) : f32[4]",
        "%p = input : f32[]",
    ],
)
def test_other_powers_stay(body):
    graph = parse(f"graph @g {{ %x = input : f32[4] {body} %y = pow(%x, %p) return %y }}")
    assert expand_powers(graph) is graph
