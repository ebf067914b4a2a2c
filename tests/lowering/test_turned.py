"""Heads of attention: products that read and write them where they lie, bit by bit on whole numbers, and transposes that stay steps."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.reference import interpret
from convc.ir.text import parse
from convc.ir.types import numpy_dtype
from tests.tolerance import assert_exact

# (samples, tokens, heads, elements): one sample, one head, heads of no whole vector, tokens with a tail.
HEADS = [(1, 20, 3, 15), (4, 33, 2, 16), (3, 17, 1, 20), (1, 6, 1, 24)]


@pytest.fixture(scope="module")
def run():
    generator, inputs, outputs = np.random.default_rng(0), {}, {}

    def given(name, *shape):
        inputs[name] = generator.integers(-2, 3, shape).astype(np.float32)
        return cc.input(name, shape)

    for at, (b, n, h, d) in enumerate(HEADS):
        q, k, v = (given(f"{name}{at}", b, n, h, d) for name in "qkv")
        mask = given(f"mask{at}", 1, h, n, n)
        scores = cc.matmul(q.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1)) * 2.0 + mask
        y = cc.matmul(scores, v.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
        w = generator.integers(-2, 3, (h * d, 18)).astype(np.float32)
        outputs[f"attention {at}"] = cc.matmul(cc.reshape(y, (b, n, h * d)), w)
        outputs[f"the heads themselves {at}"] = cc.matmul(
            q.transpose(0, 2, 1, 3), given(f"m{at}", d, 19)
        ).transpose(0, 2, 1, 3)
        outputs[f"by columns {at}"] = cc.matmul(
            q.transpose(0, 2, 1, 3), given(f"c{at}", d, h, b, 21).transpose(2, 1, 0, 3)
        )
    x = given("x", 2, 7, 3, 16)
    turned = x.transpose(0, 2, 1, 3)
    outputs["somebody else reads it"] = cc.matmul(turned, given("w", 16, 32))
    outputs["who"] = cc.relu(turned)
    outputs["the data's last axis moves"] = cc.matmul(
        given("z", 2, 16, 9).transpose(0, 2, 1), given("u", 16, 32)
    )
    graph = cc.graph(outputs)
    return compile(graph, threads=2), inputs, interpret(graph, inputs)


def test_products_of_heads_are_exact(run):
    model, inputs, expected = run
    for name, array in model.run(inputs).items():
        assert_exact(array, expected[name])


def test_no_step_transposes_heads(run):
    model, _, _ = run
    moved = [s for s in model.manifest.steps if s.op == "transpose"]
    assert len(moved) == 2


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_heads_of_half_types(dtype):
    ports = " ".join(f"%{name} = input : {dtype}[2,6,3,4]" for name in "qkv")
    graph = parse(
        f"graph @g {{ {ports} %h = transpose(%q) {{perm = [0, 2, 1, 3]}} %t = transpose(%k) {{perm = [0, 2, 3, 1]}}"
        " %s = matmul(%h, %t) %u = transpose(%v) {perm = [0, 2, 1, 3]} %p = matmul(%s, %u)"
        " %y = transpose(%p) {perm = [0, 2, 1, 3]} return %y }"
    )
    # Scores are up to 4, results to 24: exact in 8 bits.
    generator = np.random.default_rng(0)
    inputs = {n.name: generator.integers(-1, 2, n.type.shape).astype(np.float32) for n in graph.inputs}  # fmt: skip
    model = compile(graph, threads=1)
    assert not [s for s in model.manifest.steps if s.op == "transpose"]
    given = {n: x.astype(numpy_dtype(graph[n].type.dtype)) for n, x in inputs.items()}
    assert_exact(model.run(given)["y"].astype(np.float32), interpret(graph, given)["y"])
