"""Files, external data and input shapes: every way they can be wrong has its words."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from convc.errors import InvalidModelError, ShapeError, UnsupportedModelError
from convc.frontend.onnx import from_onnx
from convc.ir.reference import interpret
from tests.frontend.onnx.onnx_models import make_model

WEIGHT = np.arange(8, dtype=np.float32).reshape(2, 4)


def external_model(location: str, **entries: object) -> ModelProto:
    model = make_model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (2, 4)}, ["y"])
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=WEIGHT.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    model.graph.initializer.append(tensor)
    return model


def save(folder: Path, model: ModelProto) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def invalid(model: object, **arguments: object) -> str:
    with pytest.raises(InvalidModelError) as caught:
        from_onnx(model, **arguments)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize("location", ["w.bin", "weights/w.bin"])
def test_external_data_beside_the_model_is_read(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / location).write_bytes(b"\0" * 4 + WEIGHT.tobytes())
    path = save(tmp_path, external_model(location, offset=4, length=32))
    graph = from_onnx(path)
    assert np.array_equal(graph["w"].value, WEIGHT)
    assert np.array_equal(interpret(graph, {"x": WEIGHT})["y"], 2 * WEIGHT)


def test_external_data_outside_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)
    for location, what in (
        ("../secret.bin", "a path with '..'"),
        ("up/../w.bin", "a path with '..'"),
        (str(secret), "an absolute path"),
        ("C:\\secret.bin", "an absolute path"),
        ("..\\secret.bin", "a path with '..'"),
        ("link.bin", "a symbolic link"),
        ("up/secret.bin", "a symbolic link"),
        ("", "an empty location"),
    ):
        assert invalid(save(folder, external_model(location))) == (
            f"external data of tensor 'w' must lie inside the model's folder; got {what}: '{location}'."
        )


def test_external_data_of_a_constant_node_is_checked_too(tmp_path: Path) -> None:
    tensor = external_model("../w.bin").graph.initializer[0]
    model = make_model([helper.make_node("Constant", [], ["y"], value=tensor)], {}, ["y"])
    assert "must lie inside the model's folder" in invalid(save(tmp_path, model))


def test_external_data_that_is_not_there(tmp_path: Path) -> None:
    assert invalid(save(tmp_path, external_model("w.bin"))) == (
        "external data of tensor 'w' must be a file in the model's folder; 'w.bin' is not there."
    )
    (tmp_path / "w.bin").write_bytes(b"\0" * 16)
    assert invalid(save(tmp_path, external_model("w.bin", offset=4, length=32))) == (
        "external data of tensor 'w' must lie inside 'w.bin' of 16 bytes; got offset 4 and length 32."
    )
    assert "must hold (2, 4) elements" in invalid(save(tmp_path, external_model("w.bin")))


def test_external_data_of_a_model_in_memory() -> None:
    assert invalid(external_model("w.bin")) == (
        "tensor 'w' of a model in memory must hold its data; got external data 'w.bin'. "
        "Give from_onnx the path of the file, or load it with onnx.load, which reads external data."
    )


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    assert invalid(path) == f"model must be a file; '{path}' is not there."
    assert invalid(os.fspath(tmp_path)) == f"model must be a file; '{tmp_path}' is not there."


def test_truncated_and_foreign_files(tmp_path: Path) -> None:
    path = save(tmp_path, relu())
    path.write_bytes(path.read_bytes()[:-7])
    text = invalid(path)
    assert text.startswith(
        f"net.onnx must be an ONNX protobuf file; its {path.stat().st_size} bytes"
    )
    assert text.endswith("Is it truncated?")
    path.write_text("not a model")
    assert invalid(path).startswith(
        "net.onnx must be an ONNX protobuf file; its 11 bytes do not parse"
    )
    path.write_bytes(b"")
    assert invalid(path) == "net.onnx must hold an ONNX graph; it holds none."


def relu(*shape: int | str | None) -> ModelProto:
    return make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": shape or (1,)}, ["y"])


def test_checker_failure() -> None:
    model = make_model([helper.make_node("Relu", ["z"], ["y"], name="r")], {"x": (1,)}, ["y"])
    text = invalid(model)
    assert text.startswith(
        "net must be a valid ONNX model; onnx says: Nodes in a graph must be topologically"
    )


def test_tensor_of_the_wrong_size() -> None:
    model = make_model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (2, 1024)}, ["y"])
    weight = numpy_helper.from_array(np.zeros((2, 1024), np.float32), "w")
    weight.dims[0] = 3
    model.graph.initializer.append(weight)
    assert invalid(model).startswith(
        "tensor 'w' must hold (3, 1024) elements of its type; it cannot be read: "
    )


@pytest.mark.parametrize(
    ("shape", "shown", "symbols", "example"),
    [
        (("N", 3, "H", "W"), "[N, 3, H, W]", "N, H, W", "1x3x224x224"),
        ((None, 3, 8, None), "[?, 3, 8, ?]", "?, ?", "1x3x8x224"),
        ((1, "C", -1), "[1, C, ?]", "C, ?", "1x224x224"),
    ],
)
def test_symbolic_dimensions_must_be_bound(
    shape: tuple, shown: str, symbols: str, example: str
) -> None:
    assert invalid(relu(*shape)) == (
        f"input 'x' must have a static shape; got {shown} with symbolic dimensions {symbols}. "
        f"Bind it with `--shape x:{example}`."
    )


def test_bound_dimensions() -> None:
    graph = from_onnx(relu("N", 3, None), shapes={"x": (2, 3, 5)}, name="bound")
    assert graph.name == "bound"
    assert graph["y"].type.shape == (2, 3, 5)


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ({"x": (2, 4)}, "input 'x' must fit its shape in the model, [N, 3]; got [2, 4]."),
        ({"x": (2, 3, 1)}, "input 'x' must fit its shape in the model, [N, 3]; got [2, 3, 1]."),
        ({"x": (0, 3)}, "input 'x' must be bound to positive extents; got [0, 3]."),
        ({"x": (2, 3), "xx": (1,)}, "unknown input 'xx'; known: x. Did you mean 'x'?"),
    ],
)
def test_shapes_that_do_not_fit(shapes: dict, text: str) -> None:
    assert invalid(relu("N", 3), shapes=shapes) == text


def test_all_inputs_are_told_at_once() -> None:
    add = helper.make_node("Add", ["a", "b"], ["y"])
    model = make_model([add], {"a": ("N", "C"), "b": ("N", "C")}, ["y"])
    assert [line[:9] for line in invalid(model).split("\n")] == ["input 'a'", "input 'b'"]
    assert invalid(model, shapes={"a": (2, 3), "b": (1, 3)}) == (
        "dimension N must have one extent; got 2 in input 'a' and 1 in input 'b'."
    )


def test_an_initializer_cannot_be_bound() -> None:
    model = relu(2)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    assert invalid(model, shapes={"w": (1,)}) == (
        "input 'w' must not be bound to a shape; it is an initializer."
    )


def test_input_types_convc_lacks() -> None:
    model = make_model([helper.make_node("Identity", ["x"], ["y"])], {"x": (1,)}, ["y"])
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(
        UnsupportedModelError, match="input 'x' must have an element type of float64, "
    ):
        from_onnx(model)


def test_operands_that_do_not_fit_have_a_trail() -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="conv1")
    model = make_model(
        [conv], {"x": (1, 3, 8, 8)}, ["y"], constants={"w": np.ones((4, 2, 3, 3), np.float32)}
    )
    with pytest.raises(ShapeError) as caught:
        from_onnx(model)
    assert str(caught.value) == (
        "Conv weight must have C/group = 3/1 = 3 input channels; got 2 (weight (4, 2, 3, 3))."
    )
    assert caught.value.__notes__ == ["while importing Conv node 'conv1' (opset 18) from net"]


def test_disagreement_with_onnx_shows_both(monkeypatch: pytest.MonkeyPatch) -> None:
    from convc.frontend.onnx import importer
    from convc.frontend.onnx.inference import InferredType

    inferred = {"y": InferredType(TensorProto.FLOAT, (1, 4))}
    monkeypatch.setattr(importer, "infer_types", lambda model, label: inferred)
    assert (
        invalid(relu(1, 3))
        == "value 'y' must have one type; onnx infers float [1, 4], convc infers f32[1,3]."
    )


def test_failing_inference_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    # The checker looks at no extents, so an axis that is not there gets as far as the inference.
    concat = helper.make_node("Concat", ["x", "x"], ["c"], axis=7)
    model = make_model([concat], {"x": (2, 3)}, ["c"])
    with caplog.at_level(logging.WARNING), pytest.raises(InvalidModelError):
        from_onnx(model)
    assert "onnx cannot infer the shapes of net strictly: " in caplog.text


def test_the_model_given_is_not_changed() -> None:
    model = relu("N", 3)
    before = model.SerializeToString(deterministic=True)
    from_onnx(model, shapes={"x": (2, 3)})
    assert model.SerializeToString(deterministic=True) == before


def test_stale_output_shapes_in_the_file_do_not_matter() -> None:
    model = relu(1, 3)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [9, 9]))
    assert from_onnx(model)["y"].type.shape == (1, 3)
