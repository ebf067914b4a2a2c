from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from convc.errors import AccuracyError, InputError, UnknownNameError
from convc.ir.passes.convert_floats import convert_floats
from convc.ir.reference import interpret
from convc.ir.text import parse
from convc.ir.types import HALVES
from convc.npz import load_npz
from convc.runtime.manifest import Tensor
from convc.verify import compare, verify, verify_areas

GRAPH = parse("graph @g { %x = input : f32[2,3]  %y = relu(%x) : f32[2,3]  return %y }")


class Fake:
    """A module that computes the graph and then `change`s the result."""

    def __init__(self, change: float = 0.0, output: str = "y") -> None:
        self.change, self.output = change, output

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (Tensor("x", (2, 3), "float32"),)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        y = interpret(GRAPH, inputs)["y"].astype(np.float32)
        y[0, 0] += self.change
        return {self.output: y}


def test_a_right_module_passes_every_run() -> None:
    report = verify(Fake(), GRAPH, n=4)
    assert report.ok
    assert (report.runs, report.reference, report.failing_inputs) == (4, "float64", None)
    assert report.outputs[0].elements == 24
    assert report.outputs[0].max_relative_error == 0.0
    report.raise_if_failed()
    assert report.save_failing("nowhere") is None


def test_progress_counts_runs_over_all_sizes() -> None:
    seen: list[tuple[str, int, int]] = []
    verify_areas({"": Fake()}, [GRAPH, GRAPH], n=2, progress=lambda *at: seen.append(at))
    assert seen == [("verify", 0, 4), ("verify", 1, 4), ("verify", 2, 4), ("verify", 3, 4)]


def test_a_wrong_module_fails_by_the_metric(tmp_path: Path) -> None:
    inputs = {"x": np.array([[1, 2, 4], [0, -1, 3]], np.float32)}
    report = verify(Fake(0.5), GRAPH, inputs=inputs, n=9)
    (row,) = report.outputs
    assert (row.max_absolute_error, row.max_relative_error) == (0.5, 0.125)
    assert (row.mismatches, row.elements, report.runs) == (1, 6, 1)
    with pytest.raises(AccuracyError) as caught:
        report.raise_if_failed()
    assert str(caught.value) == (
        "output 'y' must be within 0.0001 of float64; got 0.125 "
        "(max |error| 0.5, 1 of 6 elements, 0 NaN, 0 infinite)."
    )
    path = report.save_failing(tmp_path / "deep" / "folder")
    assert path == tmp_path / "deep" / "folder" / "inputs.npz"
    assert load_npz(path)["x"].tolist() == inputs["x"].tolist()


def test_a_nan_is_an_infinite_error() -> None:
    report = verify(Fake(float("nan")), GRAPH)
    (row,) = report.outputs
    assert not report.ok
    assert (row.max_relative_error, row.nan, row.mismatches) == (float("inf"), 1, 1)


def test_a_nan_that_the_reference_has_too_is_right() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 2.0])
    row = compare("y", x, x, 0.0)
    assert (row.max_relative_error, row.mismatches, row.nan, row.infinite) == (0.0, 0, 1, 2)
    wrong = compare("y", -x, x, 0.5)
    assert wrong.max_relative_error == float("inf")
    assert wrong.mismatches == 3


@pytest.mark.parametrize(("y", "error"), [(0.0, 0.0), (1e-30, float("inf"))])
def test_a_reference_of_zeros_must_be_met_exactly(y: float, error: float) -> None:
    assert compare("y", np.full(3, y), np.zeros(3), 1.0).max_relative_error == error


def test_small_elements_count_by_the_largest() -> None:
    row = compare("y", np.array([1000.0, 0.01]), np.array([1000.0, 0.02]), 1e-4)
    assert row.max_relative_error == pytest.approx(1e-5)
    assert row.mismatches == 0


def test_shapes_and_names_must_agree() -> None:
    with pytest.raises(AccuracyError) as caught:
        compare("y", np.ones((2, 3)), np.ones((3, 2)), 1.0)
    assert str(caught.value) == "output 'y' must have the reference's shape (3, 2); got (2, 3)."
    with pytest.raises(InputError) as caught_input:
        verify(Fake(output="z"), GRAPH)
    assert (
        str(caught_input.value) == "module and reference must name the same outputs; got z and y."
    )


def test_the_request_must_make_sense() -> None:
    with pytest.raises(UnknownNameError) as caught:
        verify(Fake(), GRAPH, reference="float46")
    assert str(caught.value) == (
        "unknown reference 'float46'; known: auto, float64, onnxruntime. Did you mean 'float64'?"
    )
    with pytest.raises(InputError) as caught_input:
        verify(Fake(), GRAPH, n=0)
    assert str(caught_input.value) == "verification must have at least 1 run; got 0."
    with pytest.raises(InputError) as caught_input:
        verify(Fake(), GRAPH, reference="onnxruntime")
    assert str(caught_input.value) == (
        "reference onnxruntime must have an .onnx model; got a graph without a file."
    )


def test_onnxruntime_is_a_second_opinion(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    text = '<ir_version: 8, opset_import: ["": 18]> g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }'
    path = tmp_path / "relu.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    report = verify(Fake(), GRAPH, reference="onnxruntime", model_path=path, n=2)
    assert (report.ok, report.reference, report.runs) == (True, "onnxruntime", 2)
    assert not verify(Fake(1.0), GRAPH, reference="onnxruntime", model_path=path).ok


def test_each_run_has_its_own_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second allows more, which does not excuse the first."""
    limits = iter((1e-6, 0.5))
    monkeypatch.setattr("convc.verify.tolerance_of", lambda *_: lambda fed, expected: next(limits))
    report = verify(Fake(1e-3), GRAPH, n=2)
    assert report.max_relative_error < report.tolerance
    assert not report.ok
    with pytest.raises(
        AccuracyError, match=r"output .y. must be within .* of float64 for these inputs; got "
    ):
        report.raise_if_failed()


def test_half_types_may_be_as_wrong_as_their_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = "%w = constant splat(0.3) : f32[8,8]"
    graph = parse(f"graph @g {{ %x = input : f32[4,8] {weights} %a = dense(%x, %w) %b = dense(%a, %w) %y = dense(%b, %w) return %y }}")  # fmt: skip
    narrow = convert_floats(graph, "bf16")

    class Rounded:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        @property
        def inputs(self) -> tuple[Tensor, ...]:
            return (Tensor("x", (4, 8), "float32"),)

        def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            y = interpret(narrow, inputs, rounded=HALVES)["y"]
            return {"y": (y * self.factor).astype(np.float32)}

    report = verify(Rounded(1.0), graph, dtype="bf16")
    assert report.ok
    assert 2**-8 < report.tolerance < 0.1
    assert not verify(Rounded(1.1), graph, dtype="bf16").ok
    # What is wrong in the conversion itself is in both, and must not excuse itself.
    monkeypatch.setattr("convc.rounding.interpret", lambda *a, **k: {"y": 3 * interpret(narrow, a[1])["y"]})  # fmt: skip
    assert verify(Rounded(1.0), graph, dtype="bf16").tolerance < 0.13
    assert not verify(Rounded(3.0), graph, dtype="bf16").ok
    # Without the type, and where a tolerance is given, it is as for float32.
    assert not verify(Rounded(1.0), graph).ok
    assert not verify(Rounded(1.0), graph, dtype="bf16", tolerance=1e-4).ok


def test_bytes_may_fall_to_the_other_step() -> None:
    graph = parse("""graph @g { %x = input : f32[4,8]  %s = constant splat(0.1) : f32[]  %z = constant splat(7.0) : f32[]
        %q = quantize(%x, %s, %z) {dtype = "uint8"}  %y = dequantize(%q, %s, %z)  return %y }""")

    class Steps:
        """A module whose greatest result is so many steps of its range off."""

        def __init__(self, count: float) -> None:
            self.count = count

        @property
        def inputs(self) -> tuple[Tensor, ...]:
            return (Tensor("x", (4, 8), "float32"),)

        def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            y = interpret(graph, inputs)["y"]
            y.flat[y.argmax()] += self.count / 255 * np.abs(y).max()
            return {"y": y.astype(np.float32)}

    assert verify(Steps(0), graph).ok
    assert verify(Steps(1), graph).ok
    # Nothing here lies so near to the middle of two steps that float32 would round it to the other one.
    assert not verify(Steps(2.1), graph).ok
    assert not verify(Steps(1), graph, tolerance=1e-4).ok
