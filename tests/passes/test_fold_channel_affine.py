"""Folding a scale and shift into weights: which are folded, which stay, and how exact the result is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convc.ir import GraphBuilder, Output, Step, TensorType
from convc.ir.ops.conv import (
    ConvAttributes,
    ConvTransposeAttributes,
    DenseAttributes,
    convolve,
    convolve_transposed,
)
from convc.ir.passes import run_passes
from convc.ir.passes.fold_channel_affine import fold_channel_affine
from convc.ir.reference import interpret
from convc.ir.text import parse, print_graph
from tests.strategies import conv_specs

few = settings(deadline=None, max_examples=50, derandomize=True)
U = 2.0**-24  # unit roundoff of float32


@few
@given(conv_specs(), st.integers(0, 2**31), st.booleans())
def test_folding_rounds_each_weight_and_bias_once(spec, seed, has_bias):
    """|y' - y| <= u (|w s| * |x| + |b s + t|): one rounding a weight, one for the bias, and nothing else."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder("g")
    x = b.input("x", TensorType(spec.data))
    k = spec.out_channels
    w = rng.standard_normal(spec.weight).astype("float32")
    bias = rng.standard_normal(k).astype("float32")
    scale, shift, factor = (
        rng.standard_normal((k, *(1,) * spec.rank)).astype("float32") for _ in range(3)
    )
    operands, steps = [x, b.constant(w)], ()
    if has_bias:
        operands.append(b.constant(bias))
        steps = (Step("bias"),)
    geometry = (spec.strides, spec.pads, spec.dilations, spec.group)
    if spec.transposed:
        y = b.add(
            "conv_transpose",
            operands,
            ConvTransposeAttributes(*geometry, spec.output_padding, steps),
        )
    else:
        y = b.add("conv", operands, ConvAttributes(*geometry, steps))
    y = b.add("mul", [y, b.constant(scale)])
    y = b.add("sub", [b.constant(shift), y])
    y = b.add("div", [y, b.constant(factor)])
    graph = b.finish({"y": y})

    folded = fold_channel_affine(graph)
    assert [n.op for n in folded.compute_nodes] == ["conv_transpose" if spec.transposed else "conv"]
    data = {"x": rng.standard_normal(spec.data)}
    expected, got = interpret(graph, data)["y"], interpret(folded, data)["y"]

    total = np.abs(scale.astype(np.float64) / factor).reshape(k, *(1,) * spec.rank)
    products = (convolve_transposed if spec.transposed else convolve)(
        np.abs(data["x"]), np.abs(w.astype(np.float64)), spec
    )
    inner = bias.astype(np.float64).reshape(scale.shape) if has_bias else 0.0
    constant = np.abs((shift.astype(np.float64) - inner * scale) / factor)
    bound = U * (products * total + constant)
    # Both sides also round in float64, a few times for each product.
    slack = 1e-14 * (products * total + constant + np.abs(inner * scale / factor))
    assert (np.abs(got - expected) <= bound + slack).all()


def test_dense_layers_fold_along_their_rows():
    graph = parse("""graph @g {
        %x = input : f32[1,2]
        %w = constant dense([1.0, 2.0, 3.0, 4.0]) : f32[2,2]
        %s = constant dense([10.0, 100.0]) : f32[2]
        %d = dense(%x, %w)
        %y = mul(%s, %d)
        return %y }""")
    folded = fold_channel_affine(graph)
    np.testing.assert_array_equal(folded["w_scaled"].value, [[10, 20], [300, 400]])
    assert folded["d"].attributes == DenseAttributes()
    assert folded.outputs == (Output("y", "d"),)


def test_splats_stay_splats():
    graph = parse("""graph @g {
        %x = input : f32[1,512,7,7]
        %w = constant splat(0.5) : f32[512,512,3,3]
        %s = constant splat(4.0) : f32[1,512,1,1]
        %c = conv(%x, %w)
        %y = mul(%c, %s)
        return %y }""")
    assert "constant splat(2.0) : f32[512,512,3,3]" in print_graph(fold_channel_affine(graph))


HEAD = """%x = input : f32[1,1,3,3] %v = input : f32[2,1,1,1] %t = input : f32[2,1,1]
    %w = constant dense([1.0, 10.0]) : f32[2,1,1,1] %s = constant dense([2.0, 3.0]) : f32[2,1,1]
    %row = constant dense([1.0, 2.0, 3.0]) : f32[3] %zero = constant splat(0.0) : f32[]
    %huge = constant splat(3e38) : f32[] %wide = constant splat(1.0) : f32[4,2,3,3]"""

STAYS = {
    "the layer is an output": "%c = conv(%x, %w) %y = mul(%c, %s) return %y, %c",
    "the layer has another user": "%c = conv(%x, %w) %m = mul(%c, %s) %r = relu(%c) %y = add(%m, %r) return %y",
    "weights are not constant": "%c = conv(%x, %v) %y = mul(%c, %s) return %y",
    "the operand is not constant": "%c = conv(%x, %w) %y = mul(%c, %t) return %y",
    "the operand varies along a row": "%c = conv(%x, %w) %y = mul(%c, %row) return %y",
    "the operand enlarges the result": "%c = conv(%x, %w) %y = mul(%c, %wide) return %y",
    "an activation comes between": "%c = conv(%x, %w) {epilogue = [relu]} %y = mul(%c, %s) return %y",
    "the op is not affine": "%c = conv(%x, %w) %y = maximum(%c, %s) return %y",
    "the layer divides": "%c = conv(%x, %w) %y = div(%s, %c) return %y",
    "the value meets itself": "%c = conv(%x, %w) %y = mul(%c, %c) return %y",
    "a quotient by zero is not finite": "%c = conv(%x, %w) %y = div(%c, %zero) return %y",
    "weights would overflow": "%c = conv(%x, %w) %y = mul(%c, %huge) return %y",
    "the scale comes before the layer": "%m = mul(%x, %huge) %y = conv(%m, %w) {pads = [1, 1, 1, 1]} return %y",
}


@pytest.mark.parametrize("body", STAYS.values(), ids=STAYS.keys())
def test_unless(body):
    graph = parse(f"graph @g {{ {HEAD} {body} }}")
    assert fold_channel_affine(graph) is graph


def test_a_chain_is_folded_up_to_the_first_other_node():
    graph = parse(
        f'graph @g {{ {HEAD} %c = conv(%x, %w) %m = mul(%c, %s) %y = relu(%m) return %y, %m as "inner" }}'
    )
    assert (
        print_graph(run_passes(graph))
        == """graph @g {
  %x = input : f32[1,1,3,3]
  %v = input : f32[2,1,1,1]
  %t = input : f32[2,1,1]
  %w_scaled = constant dense([2.0, 30.0]) : f32[2,1,1,1]
  %c = conv(%x, %w_scaled) : f32[1,2,3,3]
  %y = relu(%c) : f32[1,2,3,3]
  return %y, %c as "inner"
}
"""
    )


def test_shared_weights_are_copied_for_the_layer_that_scales_them():
    graph = parse(
        f"graph @g {{ {HEAD} %c = conv(%x, %w) %m = mul(%c, %s) %d = conv(%x, %w) %y = add(%m, %d) return %y }}"
    )
    folded = fold_channel_affine(graph)
    assert folded["c"].inputs == ("x", "w_scaled")
    assert folded["d"].inputs == ("x", "w")
    assert folded["y"].inputs == ("c", "d")


def test_two_layers_in_a_row_keep_their_names_and_name_their_constants():
    graph = parse(
        f"""graph @g {{ {HEAD} %v2 = constant splat(1.0) : f32[2,2,1,1] %d_bias = constant splat(1.0) : f32[2]
        %c = conv(%x, %w) %m = mul(%c, %s) %a = add(%m, %s)
        %d = conv(%a, %v2, %d_bias) {{epilogue = [bias]}} %y = mul(%s, %d) return %y, %y as "z" }}"""
    )
    folded = fold_channel_affine(graph)
    assert [(n.name, n.inputs) for n in folded.compute_nodes] == [
        ("c", ("x", "w_scaled", "c_bias")),
        ("d", ("c", "v2_scaled", "d_bias_1")),
    ]
    assert folded.outputs == (Output("y", "d"), Output("z", "d"))


def test_a_folded_layer_stands_where_its_chain_ended():
    """It may only come earlier or later among nodes that do not depend on it: what reads it still comes after."""
    graph = parse(
        f"graph @g {{ {HEAD} %c = conv(%x, %w) %q = relu(%x) %m = mul(%c, %s) %y = add(%m, %q) return %y }}"
    )
    folded = fold_channel_affine(graph)
    folded.verify()
    assert [n.name for n in folded.compute_nodes] == ["q", "c", "y"]
