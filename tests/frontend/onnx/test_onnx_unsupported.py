"""What convc does not take is one report, with everything in it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from convc.errors import UnsupportedModelError
from convc.frontend.onnx import from_onnx
from convc.frontend.onnx import operators as operator_table
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.report import RefusalReport
from tests.frontend.onnx.onnx_models import make_model

node = helper.make_node


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        from_onnx(model)
    return str(caught.value)


def test_the_whole_report() -> None:
    nodes = [
        node("Relu", ["x"], ["a"], name="foreign", domain="acme"),
        # `a` is refused: what follows from it is skipped, but Det and Foo are reported all the same.
        node("Relu", ["a"], ["b"], name="skipped"),
        node("Det", ["b"], ["c"], name="det0"),
        node("Det", ["x"], ["d"], name="det1"),
        node("Det", ["x"], ["d2"]),
        node("Det", ["x"], ["d3"], name="det3"),
        node("Foo", ["x"], ["e"]),
        node("Resize", ["x", "", "scales"], ["f"], name="up", antialias=1),
        node("Relu", ["x"], ["y"]),
    ]
    scales = np.ones(2, np.float32)
    model = make_model(
        nodes, {"x": (3, 3)}, ["y"], constants={"scales": scales}, domains={"acme": 3}
    )
    assert refusal(model) == (
        "net cannot be compiled: 3 operators and 1 use of operators are not supported\n"
        '  acme::Relu       v3   x1  foreign              no rule for domain "acme"\n'
        "  ai.onnx::Det     v11  x4  det0, det1, d2, ...  not implemented\n"
        "  ai.onnx::Foo     v18  x1  e                    ai.onnx has no such operator at the model's opset\n"
        "  ai.onnx::Resize  v18  x1  up                   attribute antialias=1 (only 0)\n"
        "help: `convc ops` lists what is supported"
    )


def test_ai_onnx_is_the_standard_domain() -> None:
    model = make_model([node("Relu", ["x"], ["y"], domain="ai.onnx")], {"x": (2,)}, ["y"])
    assert from_onnx(model).compute_nodes[0].op == "relu"


def test_newer_version_than_any_row(monkeypatch: pytest.MonkeyPatch) -> None:
    # onnx.defs knows Relu at 6, 13 and 14; take 14 away.
    rows = dict(operator_table._BY_VERSION)
    del rows["", "Relu", 14]
    monkeypatch.setattr(operator_table, "_BY_VERSION", rows)
    model = make_model([node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"])
    assert "convc knows Relu up to version 13; the model uses 14" in refusal(model)
    rows.pop(("", "Relu", 6))
    model = make_model([node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"], opset=7)
    assert "convc knows Relu at versions [13]; the model uses 6" in refusal(model)


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
        node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2]),
        {},
        ["y", "i"],
        "output 1 ('i') is used",
    ),
    (MASK, {}, ["y", "mask"], "output 1 ('mask') is used"),
    (
        node("Dropout", ["x", "", "t"], ["y"]),
        {"t": np.array(True)},
        ["y"],
        "training_mode=1 (only 0)",
    ),
    (
        node("Pad", ["x", "p"], ["y"], mode="reflect"),
        {"p": np.array([0, 0, 1, 1] * 2)},
        ["y"],
        "attribute mode=reflect (only constant)",
    ),
    (
        node("Slice", ["x", "a", "b", "c", "d"], ["y"]),
        {"a": np.array([3]), "b": np.array([0]), "c": np.array([2]), "d": np.array([-1])},
        ["y"],
        "steps [-1] (only positive)",
    ),
    (
        node("Resize", ["x", "", "s"], ["y"], mode="linear"),
        {"s": np.array([1, 1, 2, 2], np.float32)},
        ["y"],
        "attribute mode=linear (only nearest)",
    ),
    (
        node("Resize", ["x", "", "s"], ["y"]),
        {"s": np.array([1, 1, 1.5, 2], np.float32)},
        ["y"],
        "scales [1.0, 1.0, 1.5, 2.0] (only whole numbers)",
    ),
    (
        node(
            "Resize",
            ["x", "", "s"],
            ["y"],
            coordinate_transformation_mode="asymmetric",
            nearest_mode="ceil",
        ),
        {"s": np.array([1, 1, 2, 2], np.float32)},
        ["y"],
        (
            "attribute coordinate_transformation_mode=asymmetric with nearest_mode=ceil at factor 2 "
            "(only where each element is repeated in place)"
        ),
    ),
    (
        node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y", "m", "v"], training_mode=1),
        {"s": np.ones(2, np.float32)},
        ["y"],
        "attribute training_mode=1 (only 0)",
    ),
    (node("Clip", ["x", "x"], ["y"]), {}, ["y"], "depends on runtime values of 'x'"),
    (
        node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16),
        {},
        ["y"],
        "depends on runtime values of 'x' (cast from float32 to float16)",
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
    [(6, "onnx.version_converter can raise it."), (onnx.defs.onnx_opset_version() + 1, f"A newer onnx package may know it (installed: {onnx.__version__}).")],
)  # fmt: skip
def test_opset_out_of_range(opset: int, hint: str) -> None:
    model = make_model([node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"], opset=opset)
    newest = onnx.defs.onnx_opset_version()
    assert refusal(model) == f"net must use opset 7 to {newest} of ai.onnx; got {opset}. {hint}"


def test_ir_version_too_new() -> None:
    model = make_model([node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"])
    model.ir_version = onnx.IR_VERSION + 1
    assert refusal(model).startswith(
        f"net must have ir_version {onnx.IR_VERSION} or older; got {onnx.IR_VERSION + 1}."
    )


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
