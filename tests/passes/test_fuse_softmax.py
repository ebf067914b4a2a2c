"""Softmax written out, as attention in plain ops has it: one op where it is exactly that, and what is not stays."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.passes import run_passes
from convc.ir.passes.fuse_softmax import fuse_softmax
from convc.ir.reference import interpret
from convc.ir.text import parse

OPEN = "graph @g { %x = input : f32[2,3,4] %o = input : f32[2,3,1]"
TOP = "%m = reduce_max(%x) {axes = [2]} %c = sub(%x, %m) %e = exp(%c)"
SUM = "%s = reduce_sum(%e) {axes = [2]}"
LEFT = {
    "another number is subtracted": f"%c = sub(%x, %o) %e = exp(%c) {SUM} %y = div(%e, %s) return %y",
    "nothing is": f"%e = exp(%x) {SUM} %y = div(%e, %s) return %y",
    "another axis": f"{TOP} %s = reduce_sum(%e) {{axes = [1]}} %y = div(%e, %s) return %y",
    "two axes": f"{TOP} %s = reduce_sum(%e) {{axes = [1, 2]}} %y = div(%e, %s) return %y",
    "the other way round": f"{TOP} {SUM} %y = div(%s, %e) return %y",
    "the exponentials are read": f"{TOP} {SUM} %y = div(%e, %s) %z = neg(%e) return %y, %z",
    "the exponentials are a result": f"{TOP} {SUM} %y = div(%e, %s) return %y, %e",
}


@pytest.mark.parametrize("body", LEFT.values(), ids=LEFT)
def test_what_is_none_stays(body):
    graph = parse(f"{OPEN} {body} }}")
    assert "softmax" not in [n.op for n in fuse_softmax(graph).nodes]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_same_on_infinities(axis):
    body = TOP.replace("[2]", f"[{axis}]") + SUM.replace("[2]", f"[{axis}]")
    graph = parse(f"{OPEN} {body} %y = div(%e, %s) return %y }}")
    fused = fuse_softmax(graph)
    assert [n.op for n in fused.compute_nodes] == ["softmax"]
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32) * 90
    x[0, 0] = -np.inf
    x[0, 1, 1], x[1, 2, 3], x[1, 0, 0] = -np.inf, np.inf, np.nan
    with np.errstate(invalid="ignore"):
        given = {"x": x, "o": np.zeros((2, 3, 1), np.float32)}
        wanted, got = interpret(graph, given)["y"], interpret(fused, given)["y"]
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_attention_in_plain_ops():
    q, k, v = (cc.input(n, (2, 5, 16)) for n in "qkv")
    scores = cc.matmul(q, k.transpose(0, 2, 1)) * 0.25
    power = cc.exp(scores - cc.max(scores, -1, keepdims=True))
    graph = cc.graph({"y": cc.matmul(power / cc.sum(power, -1, keepdims=True), v)})
    assert [n.op for n in run_passes(graph).compute_nodes].count("softmax") == 1
    generator = np.random.default_rng(0)
    inputs = {n: generator.normal(size=(2, 5, 16)).astype(np.float32) for n in "qkv"}
    actual = compile(graph, threads=1).run(inputs)["y"]
    np.testing.assert_allclose(actual, interpret(graph, inputs)["y"], atol=1e-5)
