"""Merging chains of scales and shifts: which are merged, which stay, and how exact the result is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convc.ir import GraphBuilder, Output, TensorType
from convc.ir.passes import run_passes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.merge_affine import merge_affine
from convc.ir.reference import interpret
from convc.ir.text import parse, print_graph

HEAD = """%x = input : f32[1,2,3,3] %s = constant dense([2.0, 4.0]) : f32[2,1,1] %t = constant dense([1.0, 3.0]) : f32[1,2,1,1]
    %two = constant splat(2.0) : f32[] %half = constant splat(0.5) : f32[1,1,1,1] %zero = constant splat(0.0) : f32[]
    %small = constant splat(1e-20) : f32[] %huge = constant splat(1e30) : f32[] %row = constant dense([1.0, 2.0, 3.0]) : f32[3]"""


def graph_of(body):
    return parse(f"graph @g {{ {HEAD} {body} }}")


def lines(graph):
    """Return the lines of what the pass may write: constants that it made, and ops."""
    given = graph_of("return %x").by_name
    return [
        line.strip()
        for line in print_graph(eliminate_dead_nodes(graph)).splitlines()
        if " = " in line and line.split()[0][1:] not in given
    ]


def test_the_batch_norm_before_an_activation():
    """DenseNet as Caffe wrote it: a BatchNorm without affine, then a Scale, both two ops."""
    graph = graph_of(
        "%c = concat(%x, %x) {axis = 0} %a = mul(%c, %s) %b = add(%a, %t) %d = mul(%s, %b) %e = sub(%d, %t) %y = relu(%e) return %y"
    )
    assert (
        print_graph(run_passes(graph))
        == """graph @g {
  %x = input : f32[1,2,3,3]
  %c = concat(%x, %x) {axis = 0} : f32[2,2,3,3]
  %e_scale = constant dense([4.0, 16.0]) : f32[1,2,1,1]
  %e_product = mul(%c, %e_scale) : f32[2,2,3,3]
  %e_shift = constant dense([1.0, 9.0]) : f32[1,2,1,1]
  %e = add(%e_product, %e_shift) : f32[2,2,3,3]
  %y = relu(%e) : f32[2,2,3,3]
  return %y
}
"""
    )


MERGED = {
    "scales alone": (
        "%a = mul(%x, %s) %y = div(%a, %half) return %y",
        [
            "%y_scale = constant dense([4.0, 8.0]) : f32[1,2,1,1]",
            "%y = mul(%x, %y_scale) : f32[1,2,3,3]",
        ],
    ),
    "shifts alone, as a scalar": (
        "%a = add(%two, %x) %y = sub(%a, %half) return %y",
        ["%y_shift = constant splat(1.5) : f32[]", "%y = add(%x, %y_shift) : f32[1,2,3,3]"],
    ),
    "a difference from a constant turns the sign": (
        "%a = sub(%two, %x) %b = mul(%a, %s) %y = sub(%t, %b) return %y",
        [
            "%y_scale = constant dense([2.0, 4.0]) : f32[1,2,1,1]",
            "%y_product = mul(%x, %y_scale) : f32[1,2,3,3]",
            "%y_shift = constant dense([-3.0, -5.0]) : f32[1,2,1,1]",
            "%y = add(%y_product, %y_shift) : f32[1,2,3,3]",
        ],
    ),
    "what cancels vanishes": (
        "%a = mul(%x, %two) %b = add(%a, %two) %d = mul(%b, %half) %e = sub(%d, %half) %f = sub(%e, %half) %y = relu(%f) return %y",
        ["%y = relu(%x) : f32[1,2,3,3]"],
    ),
    "the scale cancels, the shift stays": (
        "%a = mul(%x, %s) %b = add(%a, %two) %y = div(%b, %s) return %y",
        [
            "%y_shift = constant dense([1.0, 0.5]) : f32[1,2,1,1]",
            "%y = add(%x, %y_shift) : f32[1,2,3,3]",
        ],
    ),
    "an identity by itself": (
        "%a = relu(%x) %b = sub(%a, %zero) %y = tanh(%b) return %y",
        ["%a = relu(%x) : f32[1,2,3,3]", "%y = tanh(%a) : f32[1,2,3,3]"],
    ),
    "up to what would overflow, and from there": (
        "%a = mul(%x, %two) %b = mul(%a, %huge) %d = mul(%b, %huge) %y = sub(%two, %d) return %y",
        [
            "%b_scale = constant splat(2e+30) : f32[]",
            "%b = mul(%x, %b_scale) : f32[1,2,3,3]",
            "%d = mul(%b, %huge) : f32[1,2,3,3]",
            "%y = sub(%two, %d) : f32[1,2,3,3]",
        ],
    ),
    "beyond what would overflow, if the chain leads back": (
        "%a = mul(%x, %huge) %b = mul(%a, %huge) %d = div(%b, %huge) %y = div(%d, %huge) return %y",
        [],
    ),
    "up to a value that another op reads": (
        "%a = mul(%x, %s) %b = mul(%a, %two) %d = add(%b, %two) %e = add(%d, %t) %y = mul(%b, %e) return %y",
        [
            "%b_scale = constant dense([4.0, 8.0]) : f32[1,2,1,1]",
            "%b = mul(%x, %b_scale) : f32[1,2,3,3]",
            "%e_shift = constant dense([3.0, 5.0]) : f32[1,2,1,1]",
            "%e = add(%b, %e_shift) : f32[1,2,3,3]",
            "%y = mul(%b, %e) : f32[1,2,3,3]",
        ],
    ),
    "scalars of a vector": (
        "%v = input : f32[3] %a = mul(%v, %two) %y = mul(%a, %two) return %y",
        [
            "%v = input : f32[3]",
            "%y_scale = constant splat(4.0) : f32[]",
            "%y = mul(%v, %y_scale) : f32[3]",
        ],
    ),
}


@pytest.mark.parametrize(("body", "after"), MERGED.values(), ids=MERGED.keys())
def test_merged(body, after):
    merged = merge_affine(graph_of(body))
    merged.verify()
    assert lines(merged) == after
    assert merge_affine(merged) is merged


STAYS = {
    "one of each": "%a = mul(%x, %s) %y = add(%a, %t) return %y",
    "one of each, the other way round": "%a = add(%x, %t) %y = div(%a, %s) return %y",
    "the value in between is an output": "%a = mul(%x, %s) %y = mul(%a, %s) return %y, %a",
    "the value in between has another user": "%a = mul(%x, %s) %b = mul(%a, %s) %y = add(%a, %b) return %y",
    "the operand varies along a row": "%a = mul(%x, %row) %y = mul(%a, %row) return %y",
    "the operand is not constant": "%v = input : f32[2,1,1] %a = mul(%x, %v) %y = mul(%a, %v) return %y",
    "the first op enlarges its operand": "%v = input : f32[1,1,3,3] %a = mul(%v, %s) %y = mul(%a, %s) return %y",
    "an activation comes between": "%a = mul(%x, %s) %b = relu(%a) %y = mul(%b, %s) return %y",
    "the value divides": "%a = div(%s, %x) %y = div(%s, %a) return %y",
    "the value meets itself": "%a = mul(%x, %x) %y = mul(%a, %a) return %y",
    "the product would overflow": "%a = mul(%x, %huge) %y = mul(%a, %huge) return %y",
    "the product would underflow": "%a = mul(%x, %small) %y = mul(%a, %small) return %y",
    "a quotient by zero is not finite": "%a = mul(%x, %two) %y = div(%a, %zero) return %y",
    "integers": "%i = input : i32[2] %k = constant splat(2) : i32[] %a = mul(%i, %k) %y = div(%a, %k) return %y",
    "a vector's elements are no channels": "%v = input : f32[3] %a = mul(%v, %row) %y = mul(%a, %row) return %y",
}


@pytest.mark.parametrize("body", STAYS.values(), ids=STAYS.keys())
def test_unless(body):
    graph = graph_of(body)
    assert merge_affine(graph) is graph


@pytest.mark.parametrize("dtype", ["f64", "f16", "bf16"])
def test_other_floats(dtype):
    graph = parse(
        f"graph @g {{ %x = input : {dtype}[4] %k = constant splat(0.5) : {dtype}[1] %a = mul(%x, %k) %y = div(%a, %k) return %y }}"
    )
    merged = merge_affine(graph)
    assert merged.compute_nodes == ()
    assert merged.outputs == (Output("y", "x"),)


def test_a_layer_takes_the_chain_first_and_the_merged_shift_as_its_bias():
    """Weights that are no constants cannot be scaled, but two shifts become the one bias."""
    graph = graph_of(
        "%w = input : f32[2,2,1,1] %c = conv(%x, %w) %a = add(%c, %t) %b = add(%a, %t) %y = relu(%b) return %y"
    )
    after = run_passes(graph)
    assert [(n.name, n.op) for n in after.compute_nodes] == [("c", "conv")]
    np.testing.assert_array_equal(after[after["c"].inputs[2]].value, [2, 6])


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.sampled_from(["mul", "add", "sub", "div", "from"]), min_size=2, max_size=7), st.integers(0, 2**31))  # fmt: skip
def test_merging_rounds_each_scale_and_shift_once(ops, seed):
    """|y' - y| <= u (|s x| + |t|), s and t what the whole chain does: one rounding each, and nothing else."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder("g")
    y = b.input("x", TensorType((2, 3, 2, 2)))
    s, t, size = np.ones((3, 1, 1)), np.zeros((3, 1, 1)), np.zeros((3, 1, 1))
    for op in ops:
        shape = [(), (3, 1, 1), (1, 3, 1, 1), (1,)][rng.integers(4)]
        c = (np.exp2(rng.uniform(-1, 1, shape)) * rng.choice([-1, 1], shape)).astype("float32")
        operands = [b.constant(c), y] if op == "from" else [y, b.constant(c)]
        y = b.add("sub" if op == "from" else op, operands)
        wide = c.astype(np.float64).reshape(shape[-3:])
        match op:
            case "mul" | "div":
                factor = wide if op == "mul" else 1 / wide
                s, t, size = s * factor, t * factor, size * np.abs(factor)
            case "add" | "sub":
                t, size = t + (wide if op == "add" else -wide), size + np.abs(wide)
            case "from":
                s, t, size = -s, wide - t, size + np.abs(wide)
    graph = b.finish({"y": y})
    merged = merge_affine(graph)
    merged.verify()
    assert len(merged.compute_nodes) <= min(2, len(graph.compute_nodes))
    data = {"x": rng.standard_normal((2, 3, 2, 2))}
    expected, got = interpret(graph, data)["y"], interpret(merged, data)["y"]
    bound = 2.0**-24 * (np.abs(s * data["x"]) + np.abs(t))
    # Both sides also round in float64, a few times for each product; `size` is the sum of |shifts| that may have cancelled.
    slack = 1e-14 * (np.abs(s * data["x"]) + size)
    assert (np.abs(got - expected) <= bound + slack).all()
