"""Layer normalisations of rows, as exporters write them, become one op; instances of a signal and everything else stay."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.expand_powers import expand_powers
from convc.ir.passes.fuse_layer_norm import fuse_layer_norm
from convc.ir.reference import interpret
from convc.ir.text import parse


def core(axis: int, last: str = "%y0 = div(%c, %r)") -> str:
    return (
        f"%m = reduce_mean(%x) {{axes = [{axis}]}} %c = sub(%x, %m) %two = constant splat(2.0) : f32[] %s = pow(%c, %two)"
        f" %v = reduce_mean(%s) {{axes = [{axis}]}} %e = constant splat(0.01) : f32[] %a = add(%v, %e) %r = sqrt(%a) {last}"
    )


ROW = (
    "%g = constant dense([1.0, -2.0, 0.5]) : f32[3] %h = constant dense([0.5, 1.0, 2.0]) : f32[1,3]"
)
SCALED = f"{ROW} %k = mul(%g, %y0) %y = add(%k, %h) return %y"
# name -> shape, body, ops left beside inputs and constants
FUSED = {
    "tokens": ("2,7,3", f"{core(2)} {SCALED}", ["layer_norm"]),
    "tokens, only shifted": ("2,7,3", f"{core(2)} {ROW} %y = add(%y0, %h) return %y", ["layer_norm"]),
    "tokens that are read twice": ("2,7,3", f"{core(2)} {ROW} %k = mul(%y0, %g) %l = add(%y0, %h) return %k, %l", ["layer_norm", "mul", "add"]),
    "tokens by a row of run time": ("2,7,3", f"%w = input : f32[2,1,3] {core(2)} %y = mul(%w, %y0) return %y", ["layer_norm", "mul"]),
    "tokens that a product reads": ("2,7,3", f"%w = input : f32[3,4] {core(2)} %y = matmul(%y0, %w) return %y", ["layer_norm", "matmul"]),
    "rows": ("7,3", f"{core(1)} {SCALED}", ["layer_norm"]),
    "channels last": ("2,4,5,3", f"{core(3)} {SCALED}", ["layer_norm"]),
    "volumes": ("2,4,1,5,3", f"{core(4)} {SCALED}", ["layer_norm"]),
    "not scaled": ("2,4,5,3", f"{core(3)} return %y0", ["layer_norm"]),
    "a scale in it": ("2,4,5,3", f"{ROW} {core(3, '%f = div(%g, %r) %y0 = mul(%c, %f)')} return %y0", ["layer_norm"]),
    "a result that is read twice": ("2,4,5,3", f"{core(3)} {ROW} %k = mul(%y0, %g) return %k, %y0", ["layer_norm", "mul"]),
    "by a scalar": ("2,4,5,3", f"{core(3)} %g = constant splat(3.0) : f32[] %k = mul(%y0, %g) return %k", ["layer_norm"]),
    "channels": ("2,3,4,5", f"{core(1)} return %y0", ["layer_norm"]),
    "channels, scaled": ("2,3,4,5", f"{core(1)} %g = constant dense([1.0, 2.0, 3.0]) : f32[3,1,1] %k = mul(%y0, %g) %y = add(%k, %g) return %y", ["layer_norm"]),
    "channels of a signal": ("2,3,7", f"{core(1)} return %y0", ["layer_norm"]),
    "channels, scaled by columns": ("2,3,4,5", f"{core(1)} %g = constant dense([1.0, 2.0, 3.0, 4.0, 5.0]) : f32[5] %k = mul(%y0, %g) return %k", ["layer_norm", "mul"]),
    "a mean that is read, too": ("2,4,5,3", f"{core(3)} return %y0, %m", ["reduce_mean", "layer_norm"]),
}  # fmt: skip
LEFT = {
    "instances": ("2,3,7", f"{core(2)} return %y0"),
    "instances, scaled": ("2,3,7", f"{core(2)} %g = constant dense([1.0, 2.0, 3.0]) : f32[3,1] %k = mul(%y0, %g) return %k"),
    "another axis": ("2,3,4,5", f"{core(2)} return %y0"),
    "a scale of each row": ("2,3,4,5", f"%w = input : f32[2,3,4,1] {core(3, '%f = div(%w, %r) %y0 = mul(%c, %f)')} return %y0"),
}  # fmt: skip


def graph_of(shape: str, body: str):
    graph = parse(f"graph @g {{ %x = input : f32[{shape}] {body} }}")
    return eliminate_dead_nodes(expand_powers(graph))


def assert_close(got, wanted) -> None:
    assert wanted.keys() == got.keys()
    for name in wanted:
        # Scales and biases are rounded to float32 once more.
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-6, atol=1e-6)


def data_of(graph) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        n.name: generator.normal(size=n.type.shape).astype(np.float32) + 2 for n in graph.inputs
    }


@pytest.mark.parametrize(("shape", "body", "left"), FUSED.values(), ids=FUSED.keys())
def test_rows_are_one_op(shape, body, left):
    graph = graph_of(shape, body)
    fused = fuse_layer_norm(graph)
    fused.verify()
    assert [n.op for n in fused.nodes if n.op not in ("input", "constant")] == left
    assert_close(interpret(fused, data_of(graph)), interpret(graph, data_of(graph)))
    assert fuse_layer_norm(fused) is fused


@pytest.mark.parametrize(("shape", "body"), LEFT.values(), ids=LEFT.keys())
def test_what_is_none_stays(shape, body):
    graph = graph_of(shape, body)
    assert [n.op for n in fuse_layer_norm(graph).nodes] == [n.op for n in graph.nodes]


def test_of_channels_nothing_is_moved():
    """Between convolutions it runs on blocks of channels, of which the last is not whole."""
    generator = np.random.default_rng(0)
    weights = [generator.normal(size=s).astype(np.float32) for s in ((20, 3, 1, 1), (8, 20, 3, 3))]
    x = cc.conv2d(cc.input("x", (2, 3, 6, 5)), weights[0], name="first")
    centred = x - cc.mean(x, 1, keepdims=True)
    y = centred / cc.sqrt(cc.mean(centred * centred, 1, keepdims=True) + 0.01)
    graph = cc.graph({"y": cc.conv2d(y, weights[1], pads=1, name="last")})
    model = compile(graph, threads=1, algo="direct")
    steps = [s.op for s in model.manifest.steps if s.op != "border"]
    at = steps.index("layer_norm")
    assert steps[at - 1 : at + 2] == ["conv", "layer_norm", "conv"]
    data = {"x": generator.normal(size=(2, 3, 6, 5)).astype(np.float32)}
    np.testing.assert_allclose(model.run(data)["y"], interpret(graph, data)["y"], atol=2e-5)


def test_compiled_by_rows():
    graph = graph_of("2,7,3", f"{core(2)} {SCALED}")
    model = compile(graph, threads=1)
    assert [(s.op, s.algorithm) for s in model.manifest.steps] == [("layer_norm", "rows")]
    assert_close(model.run(data_of(graph)), interpret(graph, data_of(graph)))
