"""The recipes of the README, each done with a toy row: nothing but the row is needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from tvm import topi

from convc import compiler
from convc.compiler import compile
from convc.errors import UnsupportedConvError, UnsupportedModelError
from convc.explaining import explain
from convc.frontend.onnx import from_onnx, operators
from convc.frontend.onnx.converter import Converter
from convc.ir import Graph
from convc.ir.ops import OPS, OpDef
from convc.ir.ops.elementwise import NoAttributes
from convc.ir.passes import PIPELINE, Pass
from convc.ir.passes.rewrite import Rewriter
from convc.ir.reference import interpret
from convc.ir.text import parse, print_graph
from convc.schedules import table
from convc.schedules.generic import Generic
from convc.schedules.llvm import backend
from convc.schedules.llvm.convolutions import SCHEDULES
from convc.schedules.operators import OPERATORS, Operator
from convc.schedules.plan import Unsupported

CONV = """graph @g {
  %x = input : f32[1,3,5,5]  %w = constant splat(0.5) : f32[4,3,1,1]  %v = constant splat(0.25) : f32[4,4,3,3]
  %one = conv(%x, %w)  %three = conv(%one, %v)  return %three }"""


def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, 5, 5)).astype(np.float32)


# ---- an op ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows: what it means, and how it is computed."""
    meaning = OpDef("toy", NoAttributes, (1, 1), lambda types, a: types[0], lambda arrays, a: np.sin(arrays[0]), elementwise=True)  # fmt: skip
    monkeypatch.setitem(OPS, "toy", meaning)
    monkeypatch.setitem(
        OPERATORS, "toy", Operator(lambda tensors, node, types, block: topi.sin(tensors[0]))
    )


@pytest.mark.usefixtures("sine")
def test_an_op_is_two_rows():
    graph = parse(
        """graph @g { %x = input : f32[1,3,5,5]  %w = constant splat(0.5) : f32[5,3,1,1]
        %c = conv(%x, %w)  %s = toy(%c)  %y = relu(%s)  return %y }"""
    )
    assert "%s = toy(%c) : f32[1,5,5,5]" in print_graph(graph)
    expected = interpret(graph, {"x": image()})["y"]
    compiled = compile(graph, threads=1)
    np.testing.assert_allclose(compiled(image()), expected, atol=1e-6)
    # It joins units like any other elementwise op.
    assert "toy+relu" in {step.op for step in compiled.manifest.steps}


# ---- an ONNX operator ---------------------------------------------------------------------------------------------

SIN = '<ir_version: 8, opset_import: ["": 18]> net (float[4] a) => (float[4] y) { b = Relu(a) y = Sin(b) }'


@pytest.fixture
def without_sin(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had written the row of Sin."""
    kept = tuple(row for row in operators.CONVERTERS if row.op_type != "Sin")
    monkeypatch.setattr(operators, "CONVERTERS", kept)
    monkeypatch.setattr(
        operators, "_BY_VERSION", {(r.domain, r.op_type, v): r for r in kept for v in r.since}
    )


@pytest.mark.usefixtures("without_sin")
def test_without_its_row_an_operator_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"Sin +v7 +x1 .*not implemented"):
        from_onnx(onnx.parser.parse_model(SIN))


@pytest.mark.usefixtures("sine", "without_sin")
def test_an_onnx_operator_is_one_row(monkeypatch):
    row = Converter("Sin", (7, 22), lambda node: node.emit("toy", [node.value(0)]))
    monkeypatch.setattr(operators, "CONVERTERS", (*operators.CONVERTERS, row))
    monkeypatch.setattr(operators, "_BY_VERSION", operators._BY_VERSION | {("", "Sin", v): row for v in row.since})  # fmt: skip
    model = onnx.parser.parse_model(SIN)
    x = np.array([-1, 0.5, 1, 2], np.float32)
    np.testing.assert_allclose(compile(model, threads=1)(x), np.sin(np.maximum(x, 0)), atol=1e-6)
    assert ("ai.onnx", "Sin", (7, 22), "") in operators.supported_operators()


# ---- an algorithm -------------------------------------------------------------------------------------------------


class Pointwise(Generic):
    """A toy: the definition itself, which says that it is fast and takes filters of one tap alone."""

    name = "pointwise"

    def supports(self, problem, target):
        if not problem.spec.is_pointwise:
            return Unsupported(f"filter must have one tap; got {problem.spec.kernel}")
        return None

    def cycles(self, problem, target, knobs):
        return 1.0


@pytest.fixture
def pointwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows: the algorithm and its schedule."""
    rows = (Pointwise(), *table.ALGORITHMS)
    schedules = {**backend.BACKEND.schedules, "pointwise": SCHEDULES["generic"]}
    made = replace(backend.BACKEND, algorithms=rows, schedules=schedules)
    monkeypatch.setattr(backend, "BACKEND", made)


@pytest.mark.usefixtures("pointwise")
def test_an_algorithm_is_two_rows():
    graph = parse(CONV)
    compiled = compile(graph, threads=1)
    assert compiled.plan["one"].algorithm == "pointwise"
    assert compiled.plan["one"].reason.startswith("estimated ")
    assert compiled.plan["three"].algorithm != "pointwise"
    np.testing.assert_allclose(
        compiled(image()), interpret(graph, {"x": image()})["three"], rtol=1e-5
    )
    assert {s.algorithm for s in compiled.manifest.steps if s.node == "one"} >= {"pointwise"}


@pytest.mark.usefixtures("pointwise")
def test_an_algorithm_is_explained_and_can_be_pinned():
    reports = {r.node: {c.algorithm: c for c in r.candidates} for r in explain(parse(CONV))}
    assert reports["one"]["pointwise"].chosen
    assert reports["three"]["pointwise"].reason == "filter must have one tap; got (3, 3)"
    with pytest.raises(UnsupportedConvError) as caught:
        compile(parse(CONV), algo_for={"three": "pointwise"})
    assert str(caught.value).startswith(
        "algorithm 'pointwise' cannot compute 'three': filter must have one tap; got (3, 3). These can: "
    )


# ---- a pass -------------------------------------------------------------------------------------------------------


def remove_double_negation(graph: Graph) -> Graph:
    """Return the graph without `neg(neg(x))`."""
    r = Rewriter(graph)
    for node in graph.nodes:
        if node.op == "neg":
            (inner,) = r.operands(node)
            if inner.op == "neg":
                r.forward(node, inner.inputs[0])
                continue
        r.keep(node)
    return r.finish()


def test_a_pass_is_one_function_in_the_pipeline(monkeypatch, tmp_path):
    step = Pass("remove_double_negation", remove_double_negation)
    monkeypatch.setattr(compiler, "PIPELINE", (step, *PIPELINE))
    graph = parse(
        "graph @g { %x = input : f32[3]  %a = neg(%x)  %b = neg(%a)  %y = relu(%b)  return %y }"
    )
    compiled = compile(graph, threads=1, dump=tmp_path)
    assert [n.op for n in compiled.graph.compute_nodes] == ["relu"]
    assert (tmp_path / "00_remove_double_negation.cvc").is_file()
    assert compiled(np.array([-1, 0, 2], np.float32)).tolist() == [0, 0, 2]
