"""Every converter row against onnx.reference; tables and files agree."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import convc.frontend.onnx.operators as operators
from convc.frontend.onnx import from_onnx
from convc.frontend.onnx.model_file import since_version
from convc.frontend.onnx.operators import CONVERTERS, FAMILIES, supported_operators
from convc.ir.reference import interpret
from tests.frontend.onnx.backend.suite import cases, out_of_scope
from tests.frontend.onnx.older_cases import OLDER_CASES, OlderCase
from tests.frontend.onnx.onnx_models import (
    NEWEST,
    check_against_onnx,
    make_model,
    random_inputs,
    run_onnx,
    run_onnxruntime,
)
from tests.frontend.onnx.operator_cases import CASES, IMAGE, Case, floats

SINCE = {op: since for domain, op, since, _ in supported_operators() if domain == "ai.onnx"}
RUNS = [(case, version) for case in CASES for version in case.versions(SINCE[case.op])]


@pytest.mark.parametrize(
    ("case", "version"), RUNS, ids=[f"{c.op}-{v}-{i}" for i, (c, v) in enumerate(RUNS)]
)
def test_operator_agrees_with_onnx(case: Case, version: int) -> None:
    model = case.model(max(version, 7))
    first, last = case.wrong_in_onnx
    oracle = run_onnxruntime if first <= version <= last else run_onnx
    check_against_onnx(model, random_inputs(model), oracle=oracle)


OLDER_RUNS = [
    (case, version) for case in OLDER_CASES for version in case.versions if version <= NEWEST
]


@pytest.mark.parametrize(
    ("case", "version"), OLDER_RUNS, ids=[f"{c.op}-{v}-{i}" for i, (c, v) in enumerate(OLDER_RUNS)]
)
def test_older_version_agrees_with_onnx(case: OlderCase, version: int) -> None:
    model = case.model(version)
    with np.errstate(all="ignore"):  # some are about infinities and NaN
        check_against_onnx(
            model, random_inputs(model), oracle=run_onnxruntime if case.peer else run_onnx
        )


# Older versions that no case runs: their difference to the newest one is in the converter's text. The list only shrinks.
OLDER: dict[str, set[int]] = {"GlobalLpPool": {22}}


def test_cases_reach_every_row() -> None:
    # Softmax before 13 is compared with its formula below: onnx.reference lacks those versions.
    reached = {(c.op, v) for c, v in (*RUNS, *OLDER_RUNS)} | {
        (op, v) for op in ("Softmax", "LogSoftmax") for v in (1, 11)
    }
    reached.add(("SplitToSequence", 24))  # test_onnx_sequences.py
    # ONNX's own suite has every operator at its newest version; what it leaves to CASES are the older ones.
    for case in cases().values():
        opset = {o.domain: o.version for o in case.model.opset_import}.get("", 1)
        reached |= {
            (n.op_type, since_version("", n.op_type, max(opset, 7)))
            for n in case.model.graph.node
            if not n.domain and not out_of_scope(case)
        }
    constants_only = {r.op_type for r in CONVERTERS if r.note == "constants only"}
    rest = constants_only | {"Shape", "Size", "ConstantOfShape"}  # test_onnx_folding.py
    # ONNX Runtime's own operators are compared with it: test_onnx_qoperator.py.
    rows = {
        (r.op_type, v)
        for r in CONVERTERS
        for v in r.since
        if not r.domain and r.op_type not in rest and v <= NEWEST
    }
    assert rows - reached == {(op, v) for op, versions in OLDER.items() for v in versions}


def test_rows_are_unique_and_every_file_is_listed() -> None:
    keys = [(r.domain, r.op_type, v) for r in CONVERTERS for v in r.since]
    assert len(keys) == len(set(keys))
    files = {p.stem for p in Path(operators.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {f.__name__.rpartition(".")[2] for f in FAMILIES}


# Versions that convc leaves out: Scan-8 has a batch axis and sequence lengths, which no exporter wrote.
# Scan-8 has a batch axis; the Optional operators of 15 take only optionals and sequences.
LEFT_OUT = {"Scan": {8}, "OptionalGetElement": {15}, "OptionalHasElement": {15}}


ONNX_ROWS = [row for row in supported_operators() if row.domain == "ai.onnx"]


@pytest.mark.parametrize("row", ONNX_ROWS, ids=lambda r: r.op_type)
def test_versions_are_those_of_opsets_7_to_newest(row: operators.SupportedOperator) -> None:
    schemas = [
        onnx.defs.get_schema(row.op_type, opset, "")
        for opset in range(7, NEWEST + 1)
        if onnx.defs.has(row.op_type, opset, "")
    ]
    # A later onnx may know newer versions than these rows; an older one fewer.
    reachable = {s.since_version for s in schemas if not s.deprecated}
    left_out = LEFT_OUT.get(row.op_type, set())
    assert reachable == {v for v in row.since if v <= NEWEST} | left_out


@pytest.mark.parametrize("opset", [9, 12])
@pytest.mark.parametrize("axis", [-1, 0, 1, 2, 3])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_before_13_flattens(op: str, axis: int, opset: int) -> None:
    model = make_model(
        [helper.make_node(op, ["x"], ["y"], axis=axis)], {"x": IMAGE}, ["y"], opset=opset
    )
    x = random_inputs(model)["x"].astype(np.float64)
    matrix = x.reshape(int(np.prod(IMAGE[: axis % 4])), -1)
    e = np.exp(matrix)
    wanted = e / e.sum(1, keepdims=True)
    wanted = np.log(wanted) if op == "LogSoftmax" else wanted
    got = interpret(from_onnx(model), {"x": x})["y"]
    np.testing.assert_allclose(got, wanted.reshape(IMAGE), rtol=1e-12)


def test_softmax_before_13_defaults_to_axis_1() -> None:
    node = helper.make_node("Softmax", ["x"], ["y"])
    x = np.zeros((1, 2, 3))
    old = interpret(from_onnx(make_model([node], {"x": x.shape}, ["y"], opset=11)), {"x": x})["y"]
    new = interpret(from_onnx(make_model([node], {"x": x.shape}, ["y"], opset=13)), {"x": x})["y"]
    assert np.allclose(old, 1 / 6)
    assert np.allclose(new, 1 / 3)


def test_negative_pads_cut() -> None:
    pads = np.array([-1, 1, 0, -2])
    node = helper.make_node("Pad", ["x", "pads"], ["y"])
    model = make_model([node], {"x": (3, 4)}, ["y"], constants={"pads": pads})
    x = np.arange(12.0).reshape(3, 4)
    graph = from_onnx(model)
    assert [n.op for n in graph.compute_nodes] == ["slice", "pad"]
    assert interpret(graph, {"x": x})["y"].tolist() == [[0, 4, 5], [0, 8, 9]]


def test_values_keep_their_onnx_names() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv0"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Identity", ["r"], ["y"]),
    ]
    constants = {"w": floats(2, 3, 1, 1), "b": floats(2), "unused": floats(9)}
    graph = from_onnx(make_model(nodes, {"x": (1, 3, 4, 4)}, ["y"], constants=constants))
    assert [n.name for n in graph.nodes] == ["x", "w", "b", "c", "r"]
    assert [(o.name, o.value) for o in graph.outputs] == [("y", "r")]


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_float_types_go_through(dtype: type) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    w = floats(2, 3, 3, 3).astype(dtype)
    model = make_model(nodes, {"x": (1, 3, 5, 5)}, ["y"], constants={"w": w}, dtype=dtype)
    graph = from_onnx(model)
    assert graph["y"].type.dtype == np.dtype(dtype).name


def test_gemm_and_matmul_become_dense() -> None:
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["g"], transB=1)
    matmul = helper.make_node("MatMul", ["g", "v"], ["y"])
    constants = {"w": floats(5, 4), "b": floats(5), "v": floats(5, 3)}
    graph = from_onnx(make_model([gemm, matmul], {"x": (2, 4)}, ["y"], constants=constants))
    assert [(n.op, n.inputs) for n in graph.compute_nodes] == [
        ("dense", ("x", "w", "b")),
        ("dense", ("g", "y/weight")),
    ]
