"""Activations written as several ops: which are recognised, in which orders, and what must stay."""

from __future__ import annotations

import numpy as np
import pytest

from convc.ir.passes import run_passes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.fuse_activations import fuse_activations
from convc.ir.reference import interpret
from convc.ir.text import parse, print_graph

HEAD = """%x = input : f32[3] %v = input : f32[3] %three = constant splat(3.0) : f32[] %six = constant dense([6.0]) : f32[1]
    %sixth = constant splat(0.16666667) : f32[] %near = constant splat(0.1666666) : f32[] %wide = constant splat(3.0) : f32[2,3]"""
RAMP = "%a = add(%x, %three) %c = clip(%a) {min = 0.0, max = 6.0}"


def graph_of(body):
    return parse(f"graph @g {{ {HEAD} {body} }}")


def lines(graph):
    return [
        line.strip()
        for line in print_graph(eliminate_dead_nodes(graph)).splitlines()
        if " = " in line and " input " not in line
    ]


def test_hard_swish_is_recognised_from_a_float32_sixth():
    graph = graph_of(
        "%s = hard_sigmoid(%x) {alpha = 0.1666666716337204} %y = mul(%s, %x) return %y"
    )
    assert lines(fuse_activations(graph)) == ["%y = hard_swish(%x) : f32[3]"]


HARD_SWISH = {
    "product, then quotient": f"{RAMP} %m = mul(%x, %c) %y = div(%m, %six) return %y",
    "product the other way round, then a sixth": f"{RAMP} %m = mul(%c, %x) %y = mul(%sixth, %m) return %y",
    "quotient, then product": f"{RAMP} %d = div(%c, %six) %y = mul(%x, %d) return %y",
    "a sixth, then product": f"{RAMP} %d = mul(%c, %sixth) %y = mul(%d, %x) return %y",
    "three comes first": "%a = add(%three, %x) %c = clip(%a) {min = 0.0, max = 6.0} %d = div(%c, %six) %y = mul(%x, %d) return %y",
}


@pytest.mark.parametrize("body", HARD_SWISH.values(), ids=HARD_SWISH.keys())
def test_hard_swish_is_recognised_from_its_ramp(body):
    graph = graph_of(body)
    fused = fuse_activations(graph)
    fused.verify()
    assert lines(fused) == ["%y = hard_swish(%x) : f32[3]"]
    data = {"x": np.array([-4.0, 1.5, 7.0]), "v": np.zeros(3)}
    np.testing.assert_allclose(
        interpret(fused, data)["y"],
        interpret(graph, data)["y"],
        rtol=2.0**-23,  # the sixth is a float32 in the graph, and exact in hard_swish
    )


GELU = {
    "as torch": "%s = div(%x, %root) %e = erf(%s) %g = add(%e, %one) %m = mul(%x, %g) %y = mul(%m, %half) return %y",
    "a factor": "%s = mul(%rooth, %x) %e = erf(%s) %g = add(%one, %e) %m = mul(%g, %x) %y = mul(%half, %m) return %y",
    "half first": "%s = mul(%x, %rooth) %e = erf(%s) %g = add(%e, %one) %m = mul(%x, %half) %y = mul(%m, %g) return %y",
    "the gate is halved": "%s = div(%x, %root) %e = erf(%s) %g = add(%e, %one) %m = mul(%half, %g) %y = mul(%x, %m) return %y",
    "the halved gate first": "%s = div(%x, %root) %e = erf(%s) %g = add(%e, %one) %m = mul(%g, %half) %y = mul(%m, %x) return %y",
    "half last": "%s = mul(%x, %rooth) %e = erf(%s) %g = add(%e, %one) %m = mul(%half, %x) %y = mul(%g, %m) return %y",
}
ROOTS = (
    "%root = constant splat(1.4142135) : f32[] %rooth = constant splat(0.70710677) : f32[]"
    " %one = constant splat(1.0) : f32[] %half = constant splat(0.5) : f32[] "
)


@pytest.mark.parametrize("body", GELU.values(), ids=GELU.keys())
def test_gelu_is_recognised(body):
    graph = graph_of(ROOTS + body)
    fused = fuse_activations(graph)
    fused.verify()
    assert lines(fused) == ["%y = gelu(%x) : f32[3]"]
    data = {"x": np.array([-4.0, 1.5, 7.0]), "v": np.zeros(3)}
    np.testing.assert_allclose(
        interpret(fused, data)["y"], interpret(graph, data)["y"], rtol=2.0**-20, atol=2.0**-23
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [("splat(1.4142135)", "splat(1.5)"), ("%one = constant splat(1.0)", "%one = constant splat(2.0)"), ("mul(%x, %g)", "mul(%v, %g)"),
     ("return %y", "return %y, %e"), ("splat(0.5)", "splat(0.25)")],
)  # fmt: skip
def test_what_is_nearly_gelu_stays(old, new):
    graph = graph_of((ROOTS + GELU["as torch"]).replace(old, new))
    assert fuse_activations(graph) is graph


@pytest.mark.parametrize("last", ["div(%c, %six)", "mul(%c, %sixth)", "mul(%sixth, %c)"])
def test_hard_sigmoid_is_recognised_from_its_ramp(last):
    graph = graph_of(f"{RAMP} %y = {last} return %y")
    fused = fuse_activations(graph)
    assert lines(fused) == ["%y = hard_sigmoid(%x) {alpha = 0.16666666666666666} : f32[3]"]
    data = {"x": np.array([-4.0, 1.5, 7.0]), "v": np.zeros(3)}
    np.testing.assert_allclose(
        interpret(fused, data)["y"], interpret(graph, data)["y"], rtol=2.0**-23
    )


@pytest.mark.parametrize(
    ("dtype", "sixth"),
    [("f64", "0.16666666666666666"), ("f16", "0.1666"), ("bf16", "0.166992")],
)
def test_the_sixth_is_the_element_types(dtype, sixth):
    head = f"%x = input : {dtype}[3] %k = constant splat(3.0) : {dtype}[]"
    ramp = "%a = add(%x, %k) %c = clip(%a) {min = 0.0, max = 6.0} %m = mul(%x, %c)"
    text = "graph @g {{ {} %s = constant splat({}) : {}[] {} %y = mul(%m, %s) return %y }}"
    graph = parse(text.format(head, sixth, dtype, ramp))
    assert lines(fuse_activations(graph)) == [f"%y = hard_swish(%x) : {dtype}[3]"]
    graph = parse(text.format(head, "0.168", dtype, ramp))
    assert fuse_activations(graph) is graph


@pytest.mark.parametrize(
    "body",
    [
        "%s = sigmoid(%x) %y = mul(%x, %s) return %y, %s",
        "%s = sigmoid(%x) %y = mul(%x, %s) %z = relu(%s) return %y, %z",
        "%s = sigmoid(%x) %y = mul(%v, %s) return %y",
        "%s = hard_sigmoid(%x) %y = mul(%x, %s) return %y",
        "%s = sigmoid(%x) %y = mul(%s, %s) return %y",
        f"{RAMP} %m = mul(%v, %c) %y = div(%m, %six) return %y",
        f"{RAMP} %m = mul(%x, %c) %y = div(%six, %m) return %y",
        f"{RAMP} %m = mul(%x, %c) %y = mul(%m, %near) return %y",
        f"{RAMP} %m = mul(%x, %c) %y = div(%m, %three) return %y",
        f"{RAMP} %m = mul(%x, %c) %y = div(%m, %six) return %y, %c",
        f"{RAMP} %m = mul(%x, %c) %y = div(%m, %six) %z = relu(%a) return %y, %z",
        f"{RAMP} %y = div(%c, %six) return %y, %a",
        "%a = add(%x, %three) %c = clip(%a) {min = 0.0, max = 5.0} %y = div(%c, %six) return %y",
        "%a = add(%x, %six) %c = clip(%a) {min = 0.0, max = 6.0} %y = div(%c, %six) return %y",
        "%a = add(%x, %wide) %c = clip(%a) {min = 0.0, max = 6.0} %y = div(%c, %six) return %y",
    ],
)
def test_others_stay(body):
    graph = graph_of(body)
    assert fuse_activations(graph) is graph


def test_a_convolution_ends_in_the_hard_swish_that_torch_wrote():
    graph = parse("""graph @g {
        %i = input : f32[1,2,3,3] %w = constant dense([1.0, 2.0, 3.0, 4.0]) : f32[2,2,1,1]
        %three = constant splat(3.0) : f32[] %six = constant splat(6.0) : f32[]
        %x = conv(%i, %w) %a = add(%x, %three) %c = clip(%a) {min = 0.0, max = 6.0}
        %m = mul(%x, %c) %y = div(%m, %six) return %y }""")
    assert lines(run_passes(graph)) == [
        "%w = constant dense([1.0, 2.0, 3.0, 4.0]) : f32[2,2,1,1]",
        "%x = conv(%i, %w) {epilogue = [hard_swish]} : f32[1,2,3,3]",
    ]


def test_a_gelu_between_two_ranks_is_one_as_well():
    """ONNX Runtime's quantizer puts a product of a matrix beside tokens."""
    graph = graph_of(
        "%u = input : f32[2,3] %t = reshape(%u) {shape = [1, 2, 3]} %root = constant splat(1.4142135) : f32[] %one = constant splat(1.0) : f32[]"
        " %half = constant splat(0.5) : f32[] %s = div(%t, %root) %e = erf(%s) %g = add(%e, %one) %m = mul(%t, %g) %n = mul(%m, %half)"
        " %y = reshape(%n) {shape = [2, 3]} return %y"
    )
    assert lines(run_passes(graph)) == ["%n = gelu(%u) : f32[2,3]"]
