"""Constant subgraphs are computed at import and leave no nodes."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from convc.errors import InvalidModelError, UnsupportedModelError
from convc.frontend.onnx import from_onnx
from convc.frontend.onnx.folding import ConstantFolder
from convc.frontend.onnx.operators import CONVERTERS
from convc.ir.graph import ConstantAttributes
from tests.frontend.onnx.onnx_models import (
    NEWEST,
    check_against_onnx,
    make_model,
    random_inputs,
    run_onnx,
)

node = helper.make_node
# operator -> (operands, attributes): computed by onnx.reference at every version in the rows.
FOLDED = {
    "Gather": ((np.arange(6).reshape(2, 3), np.array([2, 0])), {"axis": 1}),
    "GatherElements": ((np.arange(6).reshape(2, 3), np.array([[1, 0, 1]])), {"axis": 0}),
    "GatherND": ((np.arange(6).reshape(2, 3), np.array([[1, 0], [0, 2]])), {}),
    "ScatterND": ((np.arange(4), np.array([[1], [3]]), np.array([9, 8])), {}),
    "Range": ((np.array(1), np.array(7), np.array(2)), {}),
    "Unique": ((np.array([3, 1, 3]),), {}),
    "NonMaxSuppression": (
        (
            np.array([[[0, 0, 1, 1], [0, 0, 1, 0.9], [0, 2, 1, 3]]], np.float32),
            np.array([[[0.9, 0.8, 0.7]]], np.float32),
            np.array([3]),
            np.array([0.5], np.float32),
        ),
        {},
    ),
    "Det": ((np.array([[0.0, 1.0], [-1.0, 0.0]]),), {}),
    "MelWeightMatrix": (
        (np.array(1), np.array(2), np.array(16), np.array(0.0), np.array(8.0)),
        {},
    ),
    "TfIdfVectorizer": (
        (np.array([1, 1, 2]),),
        {
            "mode": "TF",
            "min_gram_length": 1,
            "max_gram_length": 1,
            "max_skip_count": 0,
            "ngram_counts": [0],
            "ngram_indexes": [0, 1],
            "pool_int64s": [1, 2],
        },
    ),
    "Tile": ((np.arange(3), np.array([2])), {}),
    "Where": ((np.array([True, False]), np.array([1, 2]), np.array([3, 4])), {}),
    "Equal": ((np.array([1, 2]), np.array([1, 3])), {}),
    "Less": ((np.array([1.0, 3.0]), np.array([2.0, 2.0])), {}),
    "Greater": ((np.array([1.0, 3.0]), np.array([2.0, 2.0])), {}),
    "Not": ((np.array([True, False]),), {}),
    "And": ((np.array([True, False]), np.array([True, True])), {}),
    "Or": ((np.array([True, False]), np.array([True, True])), {}),
    "Mod": ((np.array([-7, 7]), np.array([3, 3])), {}),
    "Sign": ((np.array([-7, 0, 7]),), {}),
    "NonZero": ((np.array([1, 0, 3]),), {}),
    "ReduceProd": ((np.arange(1, 5).reshape(2, 2),), {"keepdims": 0}),
    "Cast": ((np.array([1.7, -1.7]),), {"to": TensorProto.INT64}),
    "Div": ((np.array([7, -7]), np.array([2, 2])), {}),
    "Add": ((np.array([7, -7]), np.array([2, 2])), {}),
    "Concat": ((np.array([7, -7]), np.array([2])), {"axis": 0}),
    "Max": ((np.array([7, -7]), np.array([2, 2])), {}),
}
EXPECTED = {
    "Gather": [[2, 0], [5, 3]],
    "GatherElements": [[3, 1, 5]],
    "GatherND": [3, 2],
    "ScatterND": [0, 9, 2, 8],
    "Range": [1, 3, 5],
    "Tile": [0, 1, 2, 0, 1, 2],
    "Where": [1, 4],
    "Equal": [True, False],
    "Less": [True, False],
    "Greater": [False, True],
    "Not": [False, True],
    "And": [True, False],
    "Or": [True, True],
    "Mod": [2, 1],
    "Sign": [-1, 0, 1],
    "NonZero": [[0, 2]],
    "Unique": [1, 3],
    "NonMaxSuppression": [[0, 0, 0], [0, 0, 2]],
    "Det": 1.0,
    "TfIdfVectorizer": [2.0, 1.0],
    "MelWeightMatrix": [[1.0], [0.0]],
    "ReduceProd": 24,
    "Cast": [1, -1],
    "Div": [3, -3],
    "Add": [9, -5],
    "Concat": [7, -7, 2],
    "Max": [7, 2],
}
FOLD_RUNS = [
    (op, v) for op in FOLDED for r in CONVERTERS if r.op_type == op for v in r.since if v <= NEWEST
]


@pytest.mark.parametrize(("op", "version"), FOLD_RUNS, ids=lambda v: str(v))
def test_constants_fold(op: str, version: int) -> None:
    operands, attributes = FOLDED[op]
    result = ConstantFolder({"": max(version, 7)}).fold(
        node(op, [f"i{i}" for i in range(len(operands))], ["y"], **attributes), list(operands)
    )
    assert result is not None
    assert result[0].tolist() == EXPECTED[op]


def test_every_constants_only_operator_is_tried() -> None:
    assert {r.op_type for r in CONVERTERS if r.note == "constants only"} <= set(FOLDED)


def test_shape_gather_concat_reshape_chain_folds() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "minus"], ["shape2"], axis=0),
        node("Reshape", ["x", "shape2"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axes": np.array([0]), "minus": np.array([-1])}
    model = make_model(nodes, {"x": (2, 3, 4)}, ["y"], constants=constants)
    graph = check_against_onnx(model, random_inputs(model))
    assert [(n.op, n.type.shape) for n in graph.nodes] == [
        ("input", (2, 3, 4)),
        ("reshape", (2, 12)),
    ]


@pytest.mark.parametrize("opset", [7, 13, 15, NEWEST])
def test_shape_and_size_of_a_static_value_are_constants(opset: int) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Size", ["x"], ["n"]),
    ]
    graph = from_onnx(make_model(nodes, {"x": (2, 3, 4)}, ["s", "n"], opset=opset, dtype=np.int64))
    assert [n.value.tolist() for n in graph.constants] == [[2, 3, 4], 24]
    assert graph.compute_nodes == ()


def test_shape_has_start_and_end_since_15() -> None:
    nodes = [node("Shape", ["x"], ["s"], start=-2, end=-1)]
    graph = from_onnx(make_model(nodes, {"x": (2, 3, 4)}, ["s"], dtype=np.int64))
    assert graph["s"].value.tolist() == [3]


@pytest.mark.parametrize("opset", [9, 20, 21, 23, 24, 25])
def test_constant_of_shape_is_a_splat(opset: int) -> None:
    value = numpy_helper.from_array(np.array([0.5], np.float32))
    nodes = [
        node("ConstantOfShape", ["shape"], ["w"], value=value),
        node("Expand", ["one", "shape"], ["v"]),
        node("Add", ["x", "w"], ["z"]),
        node("Add", ["z", "v"], ["y"]),
    ]
    shape = np.array([4096, 4096, 64])  # 4 GiB if it were stored
    constants = {"shape": shape, "one": np.array([2.0], np.float32)}
    graph = from_onnx(make_model(nodes, {"x": (1, 64)}, ["y"], opset=opset, constants=constants))
    for name in ("w", "v"):
        attributes = graph[name].attributes
        assert isinstance(attributes, ConstantAttributes)
        assert attributes.is_splat
        assert graph[name].type.shape == (4096, 4096, 64)


def test_large_results_are_left_to_the_graph() -> None:
    a, b = np.ones((2, 1), np.float32), np.ones((1, 3), np.float32)
    add = node("Add", ["a", "b"], ["y"])
    assert ConstantFolder({"": 18}, limit_bytes=24).fold(add, [a, b]) is not None
    assert ConstantFolder({"": 18}, limit_bytes=23).fold(add, [a, b]) is None
    # 10^15 elements are never tried.
    repeats = np.array([10**15])
    assert ConstantFolder({"": 18}).fold(node("Tile", ["a", "r"], ["y"]), [a[0], repeats]) is None


def test_alike_nodes_share_an_evaluator() -> None:
    folder = ConstantFolder({"": 18})
    for i in range(3):
        assert folder.fold(node("Neg", [f"a{i}"], [f"b{i}"]), [np.array(i)]) == [np.array(-i)]
    assert len(folder._evaluators) == 1


def test_constants_that_do_not_compute_are_an_invalid_model() -> None:
    gather = node("Gather", ["a", "i"], ["g"], name="g0")
    add = node("Add", ["x", "g"], ["y"])
    constants = {"a": np.arange(3, dtype=np.float32), "i": np.array(7)}
    with pytest.raises(InvalidModelError) as caught:
        from_onnx(make_model([gather, add], {"x": (2,)}, ["y"], constants=constants))
    assert str(caught.value).startswith(
        "Gather of constants must be computable; got float32[3], int64[]: "
    )
    assert caught.value.__notes__ == ["while importing Gather node 'g0' (opset 18) from net"]


def test_runtime_shape_is_refused_with_its_name() -> None:
    nodes = [node("Unique", ["x"], ["where"]), node("Cast", ["x"], ["i"], to=TensorProto.INT64)]
    model = make_model([*nodes, node("Reshape", ["x", "i"], ["y"])], {"x": (2,)}, ["y", "where"])
    with pytest.raises(UnsupportedModelError) as caught:
        from_onnx(model)
    assert str(caught.value) == (
        "net cannot be compiled: 2 uses of operators are not supported\n"
        "  ai.onnx::Reshape  v14  x1  y      depends on runtime values of 'i'\n"
        "  ai.onnx::Unique   v11  x1  where  depends on runtime values of 'x'\n"
        "help: `convc ops` lists what is supported"
    )


def test_integer_arithmetic_at_run_time() -> None:
    model = make_model([node("Add", ["i", "i"], ["y"])], {"i": (2,)}, ["y"], dtype=np.int64)
    (add,) = from_onnx(model).compute_nodes
    assert (add.op, add.type.dtype) == ("add", "int64")


def test_a_value_makes_an_input_a_constant() -> None:
    model = make_model([node("Reshape", ["x", "s"], ["y"])], {"x": (2, 3)}, ["y"])
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, [2]))
    graph = from_onnx(model, values={"s": np.array([3, 2])})
    assert [i.name for i in graph.inputs] == ["x"]
    assert graph["y"].type.shape == (3, 2)
    with pytest.raises(
        InvalidModelError, match=r"value of input 's' must be int64 \[2\]; got float32 \[2\]"
    ):
        from_onnx(model, values={"s": np.ones(2, np.float32)})
    with pytest.raises(
        InvalidModelError, match=r"value must be given for an input of the model, x, s; got 'z'"
    ):
        from_onnx(model, values={"z": np.array([3, 2])})


def test_initializer_backed_inputs_are_constants() -> None:
    nodes = [node("Reshape", ["x", "shape"], ["y"])]
    model = make_model(nodes, {"x": (2, 3)}, ["y"], opset=9, constants={"shape": np.array([3, 2])})
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [2]))
    graph = from_onnx(model)
    assert [i.name for i in graph.inputs] == ["x"]


def test_constant_output_keeps_its_name() -> None:
    nodes = [node("Neg", ["c"], ["y"]), node("Relu", ["x"], ["z"])]
    model = make_model(nodes, {"x": (2,)}, ["y", "z"], constants={"c": np.ones(2, np.float32)})
    graph = from_onnx(model)
    assert graph["y"].value.tolist() == [-1, -1]
    assert np.array_equal(run_onnx(model, {"x": np.ones(2, np.float32)})[0], graph["y"].value)
