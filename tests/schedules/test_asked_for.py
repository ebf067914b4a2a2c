"""What a node asks for itself: the algorithm, in order of preference, and the element type of its sums."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.errors import DTypeError, UnknownNameError
from convc.explaining import explain
from convc.ir import Graph
from convc.ir.reference import interpret
from convc.ir.text import parse, print_graph


def graph(attributes: str, dtype: str = "f32", op: str = "conv") -> Graph:
    return parse(
        f"""graph @g {{ %x = input : {dtype}[1,64,6,6]  %w = constant splat(0.125) : {dtype}[64,64,3,3]
        %y = {op}(%x, %w) {{{attributes}}}  return %y }}"""
    )


@pytest.mark.parametrize(
    ("asked", "chosen", "reason"),
    [
        ("im2col", "im2col", "asked for by the model"),
        ("fft", "fft", "asked for by the model"),
        (
            "cudnn, winograd",
            "winograd",
            "asked for by the model; cudnn asked for, but this target has no such algorithm",
        ),
    ],
)
def test_a_node_gets_the_first_algorithm_it_asks_for(asked, chosen, reason):
    built = compile(graph(f'algorithm = "{asked}"'), threads=1)
    assert built.plan["y"].algorithm == chosen
    assert built.plan["y"].reason == reason
    step = next(s for s in built.manifest.steps if s.node == "y" and s.op == "conv")
    assert (step.algorithm, step.reason) == (chosen, reason)


def test_what_cannot_be_had_is_said_in_the_result():
    choice = compile(graph('strides = [2, 2], algorithm = "fft"'), threads=1).plan["y"]
    assert choice.algorithm != "fft"
    assert choice.reason.startswith("fft asked for, but strides must be 1; got (2, 2); estimated ")


def test_the_command_overrules_the_node():
    (layer,) = explain(graph('algorithm = "im2col"'), threads=1, algo_for={"y": "direct"})
    assert [c.algorithm for c in layer.candidates if c.chosen] == ["direct"]


def test_an_algorithm_nobody_knows_is_refused():
    with pytest.raises(UnknownNameError, match="unknown algorithm 'winogard'"):
        compile(graph('algorithm = "winogard"'))


def test_the_text_form_keeps_both():
    text = print_graph(graph('accumulate = "float64", algorithm = "im2col"'))
    assert print_graph(parse(text)) == text
    assert 'accumulate = "float64", algorithm = "im2col"' in text


@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
@pytest.mark.parametrize(
    ("dtype", "accumulate", "limit"),
    # 576 products of about 1/8: half precision loses a unit of 2^-11 at each, float32 only at the end.
    [("f16", "", 2.0**-11), ("f16", "float32", 2.0**-11), ("f32", "float64", 2.0**-24)],
)
def test_wide_sums_round_once(op, dtype, accumulate, limit):
    g = graph(f'accumulate = "{accumulate}"' if accumulate else "", dtype, op)
    x = np.random.default_rng(0).uniform(0.5, 1.5, (1, 64, 6, 6)).astype(g["x"].type.dtype)
    actual, expected = compile(g, threads=1).run({"x": x})["y"], interpret(g, {"x": x})["y"]
    assert (np.abs(actual - expected) <= limit * np.abs(expected)).all()


def test_narrow_sums_are_had_on_request():
    x = np.random.default_rng(0).uniform(0.5, 1.5, (1, 64, 6, 6)).astype(np.float16)
    narrow = compile(graph('accumulate = "float16"', "f16"), threads=1).run({"x": x})["y"]
    exact = interpret(graph("", "f16"), {"x": x})["y"]
    # 576 roundings of sums up to 72, each by up to 2^-5, of which about the square root adds up: more than the one at the end.
    assert 2.0**-11 < np.abs(narrow / exact - 1).max() < 576 * 2.0**-11


@pytest.mark.parametrize(
    ("dtype", "accumulate"), [("f64", "float32"), ("f32", "float16"), ("f16", "bfloat16"), ("f32", "int32")]
)  # fmt: skip
def test_sums_narrower_than_the_operands_are_refused(dtype, accumulate):
    with pytest.raises(DTypeError, match=rf"conv accumulate must be float.* got '{accumulate}'\."):
        graph(f'accumulate = "{accumulate}"', dtype)
