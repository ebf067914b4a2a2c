"""Which values narrow, which stay wide, and what is too large to narrow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from convc.compiler import compile
from convc.deviation import compare
from convc.errors import DTypeError, UnknownNameError
from convc.inputs import random_inputs
from convc.ir.graph import Graph
from convc.ir.passes import run_passes
from convc.ir.passes.convert_floats import FLOAT_TYPES, convert_floats
from convc.ir.reference import interpret
from convc.ir.text import parse
from convc.ir.types import HALVES
from convc.runtime.manifest import Tensor
from tests.strategies import graphs, inputs_of


def converted(body: str, dtype: str, head: str = "%x = input : f32[1,4,6,6]") -> Graph:
    graph = convert_floats(parse(f"graph @g {{ {head} {body} }}"), dtype)
    graph.verify()
    return graph


def types(graph: Graph) -> dict[str, str]:
    return {n.name: str(n.type).split("[")[0] for n in graph.compute_nodes if n.op != "cast"}


NET = """
  %w = constant splat(0.5) : f32[8,4,3,3]  %b = constant splat(0.1) : f32[8]
  %c = conv(%x, %w, %b) {epilogue = [bias, relu]}
  %p = max_pool(%c) {kernel = [2, 2]}
  %a = average_pool(%p) {kernel = [3, 3]}
  %f = reshape(%a) {shape = [1, 8]}  %v = constant splat(0.25) : f32[5,8]
  %d = dense(%f, %v)  %s = softmax(%d) {axis = 1}  %t = topk(%s) {axis = 1, k = 2}
"""


@pytest.mark.parametrize(("dtype", "narrow"), [("bf16", "bf16"), ("fp16", "f16")])
def test_products_narrow_and_means_and_softmax_stay(dtype: str, narrow: str) -> None:
    graph = converted(NET.replace("%t = topk(%s) {axis = 1, k = 2}", "return %s"), dtype)
    found = types(graph)
    assert {found[n] for n in "cpd"} == {narrow}
    assert {found[n] for n in "as"} == {"f32"}
    (conv,) = [n for n in graph.nodes if n.op == "conv"]
    assert [graph[i].type.dtype for i in conv.inputs] == [FLOAT_TYPES[dtype]] * 2 + ["float32"]
    assert [n.type.dtype for n in graph.inputs] == ["float32"]
    assert [graph[o.value].type.dtype for o in graph.outputs] == ["float32"]


def test_unshared_layers_and_weight_gradients_are_products_too() -> None:
    """Each compiled in float16, sums in float32, against float64 on the same rounded operands."""
    body = """
      %w = input : f32[4,6,6,4,1,1]  %y = conv_local(%x, %w)
      %d = conv_local_data_grad(%y, %w) {extents = [6, 6]}  %g = conv_local_weight_grad(%x, %y) {kernel = [1, 1]}
      %k = conv_weight_grad(%x, %y) {kernel = [1, 1]}  return %y, %d, %g, %k
    """
    graph = converted(body, "fp16")
    assert set(types(graph).values()) == {"f16"}
    fed = random_inputs([Tensor(n.name, n.type.shape, n.type.dtype) for n in graph.inputs], 0)
    ours, exact = compile(graph, threads=1).run(fed), interpret(graph, fed, rounded=HALVES)
    for name, value in ours.items():
        assert compare(name, np.asarray(value), exact[name], 2e-3).max_relative_error <= 2e-3, name


def test_a_norm_written_out_stays_in_float32() -> None:
    body = """
      %w = constant splat(0.5) : f32[4,4,1,1]  %c = conv(%x, %w)
      %m = reduce_mean(%c) {axes = [1]}  %z = sub(%c, %m)  %q = mul(%z, %z)  %v = reduce_mean(%q) {axes = [1]}
      %e = constant splat(1e-5) : f32[]  %i = add(%v, %e)  %r = sqrt(%i)  %n = div(%z, %r)
      %g = constant splat(2.0) : f32[4,1,1]  %y = mul(%n, %g)  %o = conv(%y, %w)  return %o
    """
    found = types(converted(body, "bf16"))
    assert {found[n] for n in ("c", "o")} == {"bf16"}
    assert {found[n] for n in ("m", "z", "q", "v", "i", "r", "n", "y")} == {"f32"}


def test_a_value_is_cast_once() -> None:
    body = "%w = constant splat(0.5) : f32[4,4,1,1] %a = conv(%x, %w) %b = conv(%x, %w) %e = exp(%a) %f = sqrt(%a) return %b, %e, %f"
    casts = [n for n in converted(body, "bf16").nodes if n.op == "cast"]
    assert [n.inputs[0] for n in casts] == ["x", "a", "b"]


def test_a_weight_too_large_for_the_type_is_named() -> None:
    body = "%w = constant splat(1e5) : f32[4,4,1,1] %y = conv(%x, %w) return %y"
    with pytest.raises(
        DTypeError, match=r"'w' must be at most 65504 to be float16; got 100000\..*bf16"
    ):
        converted(body, "fp16")
    converted(body, "bf16")


def test_a_large_constant_keeps_its_operator_wide() -> None:
    body = "%w = constant splat(0.5) : f32[4,4,1,1] %c = conv(%x, %w) %k = constant splat(-1e9) : f32[] %y = maximum(%c, %k) return %y"
    assert types(converted(body, "fp16"))["y"] == "f32"
    assert types(converted(body, "bf16"))["y"] == "bf16"


def test_integers_quantised_values_and_bits_are_left_alone() -> None:
    body = """
      %s = constant splat(0.5) : f32[]  %z = constant splat(0.0) : f32[]  %q = quantize(%x, %s, %z)  %d = dequantize(%q, %s, %z)
      %i = cast(%d) {dtype = "int32"}  %j = add(%i, %i)  %k = cast(%j) {dtype = "float32"}  %b = bit_cast(%x) {source = "float32", dtype = "int32"}
      return %k, %b
    """
    found = types(converted(body, "bf16"))
    assert found == {"q": "u8", "d": "f32", "j": "i32", "b": "i32"}


def test_a_model_of_halves_in_float32() -> None:
    head = "%x = input : f16[1,4,6,6]"
    body = '%w = constant splat(0.5) : f16[4,4,1,1] %c = conv(%x, %w) {accumulate = "float16"} return %c'
    graph = converted(body, "fp32", head)
    assert types(graph) == {"c": "f32"}
    assert graph[graph.outputs[0].value].type.dtype == "float16"


def test_unknown_types_and_none() -> None:
    graph = parse("graph @g { %x = input : f32[2] %y = relu(%x) return %y }")
    assert convert_floats(graph, None) is graph
    with pytest.raises(UnknownNameError, match="bf16"):
        convert_floats(graph, "bfloat")


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_wider_means_the_same(graph: Graph) -> None:
    inputs = inputs_of(graph)
    wide = convert_floats(run_passes(graph), "fp64")
    wide.verify()
    expected = interpret(graph, inputs)
    for name, value in interpret(wide, inputs).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-6)
