"""What convc does not take is one report, with everything in it."""

import numpy as np
import onnx
import pytest
from onnx import helper

from convc.errors import InvalidModelError, ShapeError, UnsupportedModelError
from convc.frontend.onnx import from_onnx
from convc.frontend.onnx import operators as operator_table
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.report import RefusalReport
from convc.ir.reference import interpret
from tests.frontend.onnx.onnx_models import make_model

node = helper.make_node


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        from_onnx(model)
    return str(caught.value)


def test_the_whole_report() -> None:
    nodes = [
        node("Relu", ["x"], ["a"], name="foreign", domain="acme"),
        # `a` is refused: what follows from it is skipped, but RandomNormalLike and Foo are reported all the same.
        node("Relu", ["a"], ["b"], name="skipped"),
        node("RandomNormalLike", ["b"], ["c"], name="det0"),
        node("RandomNormalLike", ["x"], ["d"], name="det1"),
        node("RandomNormalLike", ["x"], ["d2"]),
        node("RandomNormalLike", ["x"], ["d3"], name="det3"),
        node("Foo", ["x"], ["e"]),
        node("Dropout", ["x", "", "training"], ["f"], name="drop"),
        node("Relu", ["x"], ["y"]),
    ]
    training = np.array(True)
    model = make_model(
        nodes, {"x": (3, 3)}, ["y"], constants={"training": training}, domains={"acme": 3}
    )
    assert refusal(model) == (
        "net cannot be compiled: 3 operators and 1 use of operators are not supported\n"
        '  acme::Relu                 v3   x1  foreign              no rule for domain "acme"\n'
        "  ai.onnx::Dropout           v13  x1  drop                 training_mode=1 (only 0)\n"
        "  ai.onnx::Foo               v18  x1  e                    ai.onnx has no such operator at the model's opset\n"
        "  ai.onnx::RandomNormalLike  v1   x4  det0, det1, d2, ...  not implemented\n"
        "help: `convc ops` lists what is supported"
    )


def test_ai_onnx_is_the_standard_domain() -> None:
    model = make_model([node("Relu", ["x"], ["y"], domain="ai.onnx")], {"x": (2,)}, ["y"])
    assert from_onnx(model).compute_nodes[0].op == "relu"


def test_newer_version_than_any_row(monkeypatch: pytest.MonkeyPatch) -> None:
    # onnx.defs knows Sqrt at 1, 6 and 13; take 13 away.
    rows = dict(operator_table._BY_VERSION)
    del rows["", "Sqrt", 13]
    monkeypatch.setattr(operator_table, "_BY_VERSION", rows)
    model = make_model([node("Sqrt", ["x"], ["y"])], {"x": (2,)}, ["y"])
    assert "convc knows Sqrt up to version 6; the model uses 13" in refusal(model)
    rows["", "Sqrt", 14] = rows.pop(("", "Sqrt", 6))
    assert "convc knows Sqrt at versions [14]; the model uses 13" in refusal(model)


def test_an_operator_that_onnx_defines_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {k: v for k, v in operator_table._BY_VERSION.items() if k[1] != "HardSwish"}
    monkeypatch.setattr(operator_table, "_BY_VERSION", rows)
    model = make_model([node("HardSwish", ["x"], ["y"])], {"x": (3,)}, ["y"])
    graph = from_onnx(model)
    assert "hard_sigmoid" in {n.op for n in graph.compute_nodes}
    got = interpret(graph, {"x": np.array([-4.0, 1.0, 4.0])})["y"]
    np.testing.assert_allclose(got, [0, 2 / 3, 4], rtol=1e-6)


def test_attribute_nobody_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(n: object) -> str:
        return n.value()  # type: ignore[attr-defined]

    rows = dict(operator_table._BY_VERSION)
    rows["", "LeakyRelu", 16] = Converter("LeakyRelu", (16,), forgetful)
    monkeypatch.setattr(operator_table, "_BY_VERSION", rows)
    model = make_model([node("LeakyRelu", ["x"], ["y"], alpha=0.5)], {"x": (2,)}, ["y"])
    assert "attribute alpha\n" in refusal(model)


MASK = node("Dropout", ["x"], ["y", "mask"])
X = (1, 2, 4, 4)
REASONS = [
    (
        node("Dropout", ["x", "", "t"], ["y"]),
        {"t": np.array(True)},
        ["y"],
        "training_mode=1 (only 0)",
    ),
    (
        node("Reshape", ["x", "x"], ["y"]),
        {},
        ["y"],
        "depends on runtime values of 'x'",
    ),
    (
        node("Constant", [], ["y"], value_string="text"),
        {},
        ["y"],
        "attribute value_string",
    ),
]


@pytest.mark.parametrize(
    ("refused", "constants", "outputs", "reason"), REASONS, ids=[r[3][:40] for r in REASONS]
)
def test_reason(refused: onnx.NodeProto, constants: dict, outputs: list[str], reason: str) -> None:
    line = refusal(make_model([refused], {"x": X}, outputs, constants=constants)).split("\n")[1]
    assert line.endswith(f"  {reason}")


def test_unused_second_outputs_are_fine() -> None:
    assert from_onnx(make_model([MASK], {"x": X}, ["y"])).outputs[0].value == "x"


@pytest.mark.parametrize(
    ("opset", "hint"),
    [(0, ""), (onnx.defs.onnx_opset_version() + 1, f" A newer onnx package may know it (installed: {onnx.__version__}).")],
)  # fmt: skip
def test_opset_out_of_range(opset: int, hint: str) -> None:
    model = make_model([node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"], opset=opset)
    newest = onnx.defs.onnx_opset_version()
    assert refusal(model) == f"net must use opset 1 to {newest} of ai.onnx; got {opset}.{hint}"


def test_an_opset_before_7_is_raised_by_onnx() -> None:
    attributes = {"broadcast": 1}  # opset 7 has no such attribute
    model = make_model(
        [node("Add", ["x", "c"], ["y"], **attributes)],
        {"x": (2, 3, 4)},
        ["y"],
        opset=6,
        constants={"c": np.array([1, 2, 3, 4], np.float32)},
    )
    x = np.zeros((2, 3, 4), np.float32)
    got = interpret(from_onnx(model), {"x": x})["y"]
    np.testing.assert_array_equal(got, x + np.array([1, 2, 3, 4]))


def test_ir_version_too_new() -> None:
    model = make_model([node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"])
    model.ir_version = onnx.IR_VERSION + 1
    assert refusal(model).startswith(
        f"net must have ir_version {onnx.IR_VERSION} or older; got {onnx.IR_VERSION + 1}."
    )


def _loops(turns: int) -> onnx.ModelProto:
    """Return a model with a loop in a loop, of that many turns each."""
    text = """<ir_version: 8, opset_import: ["": 18]>
        g (float[4] x) => (float[4] y) {
          n = Constant <value = int64 {TURNS}> ()
          t = Constant <value = bool {1}> ()
          y = Loop (n, t, x) <body = outer (int64 i, bool c, float[4] a) => (bool c1, float[4] b) {
            c1 = Identity(c)
            b = Loop (n, c, a) <body = inner (int64 j, bool d, float[4] e) => (bool d1, float[4] f) {
              d1 = Identity(d)
              f = Exp(e)
            }>
          }>
        }"""
    return onnx.parser.parse_model(text.replace("TURNS", str(turns)))


def test_bodies_have_one_budget_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # 4 turns of 2 + 4 * 2 nodes are 40.
    monkeypatch.setattr("convc.frontend.onnx.importer.MOST_WRITTEN_OUT", 40)
    assert len(from_onnx(_loops(4)).compute_nodes) == 16
    assert "more than 40 nodes when bodies are written out\n" in refusal(_loops(5))


@pytest.mark.parametrize(("op", "shape"), [("Conv", (1, 2, 4, 4)), ("MatMul", (3, 2))])
def test_nan_weights_are_refused_with_the_node_and_the_place(op: str, shape: tuple) -> None:
    w = np.ones((3, 2, 1, 1) if op == "Conv" else (2, 5), np.float32)
    w[1, 1] = np.nan
    model = make_model(
        [node(op, ["x", "w"], ["y"], name="stem")], {"x": shape}, ["y"], constants={"w": w}
    )
    with pytest.raises(InvalidModelError) as caught:
        from_onnx(model)
    assert str(caught.value).startswith(
        f"weights of {op} must be numbers; got 1 NaN among the {w.size} elements of 'w', the first at [1, 1"
    )
    assert caught.value.__notes__ == [f"while importing {op} node 'stem' (opset 18) from net"]


def test_a_nan_that_means_something_is_taken() -> None:
    filling = np.array(np.nan, np.float32)
    nodes = [node("IsNaN", ["x"], ["n"]), node("Where", ["n", "x", "nan"], ["y"])]
    assert from_onnx(
        make_model(nodes, {"x": (2,)}, ["y"], constants={"nan": filling})
    ).compute_nodes


@pytest.mark.parametrize("extent", [2**40, 2**62])
def test_a_value_beyond_all_memory_is_refused(extent: int) -> None:
    w = np.ones((1, 2, 1, 1), np.float32)
    pads = [extent, 0, extent, 0]
    model = make_model(
        [node("Conv", ["x", "w"], ["y"], name="stem", pads=pads)],
        {"x": X},
        ["y"],
        constants={"w": w},
    )
    with pytest.raises(ShapeError, match="value %y must have less than 1 TiB; got f32") as caught:
        from_onnx(model)
    assert caught.value.__notes__ == ["while importing Conv node 'stem' (opset 18) from net"]


def test_local_functions_are_inlined() -> None:
    function = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )
    model = make_model(
        [node("Twice", ["x"], ["y"], domain="local")], {"x": (2,)}, ["y"], domains={"local": 1}
    )
    model.functions.append(function)
    assert [n.op for n in from_onnx(model).compute_nodes] == ["add"]


def test_empty_report_raises_nothing() -> None:
    assert RefusalReport().raise_if_any("net") is None
