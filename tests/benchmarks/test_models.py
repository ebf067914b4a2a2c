"""Whole models: who runs is timed, who fails or is wrong is told; no time is asserted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import models as models_command
from benchmarks.model_report import models_table, notes
from benchmarks.model_runs import ModelResult, compare, largest_error, ratios
from benchmarks.onnx_file import open_model
from benchmarks.peers import Infer, Peer, peers_named

ONNXRUNTIME = peers_named(["onnxruntime"])


def fake(name: str, infer: Infer, packages: tuple[str, ...] = ()) -> Peer:
    return Peer(name, packages, lambda model, threads: infer)


def wrong(inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    return [np.zeros((1, 8, 6, 6), np.float32)]


def broken(inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    raise Exception("cannot\n  run it")  # MNN raises just this


def test_a_comparison_times_who_runs_and_tells_who_does_not(tiny: Path) -> None:
    rows = (
        *ONNXRUNTIME,
        fake("liar", wrong),
        fake("broken", broken),
        fake("absent", wrong, ("no-such-package", "nor-this")),
    )
    result = compare(open_model(tiny), rows, 1, rounds=2)
    assert set(result.ms) == {"convc", "onnxruntime", "liar"}
    assert result.calls == {"convc": 6, "onnxruntime": 6, "liar": 6}
    assert result.ratio == {"onnxruntime": result.ms["convc"] / result.ms["onnxruntime"]}
    assert (result.best_peer, result.ratio_to_best) == ("onnxruntime", result.ratio["onnxruntime"])
    assert result.max_error is not None
    assert result.max_error < 1e-6
    assert result.errors == {
        "liar": "liar must agree with onnxruntime within 0.01 of the output's maximum; got 1. Its time is shown but not compared.",
        "broken": "broken must run the model; got Exception: cannot run it",
        "absent": "absent must have the packages no-such-package, nor-this; got no such package. Run: pip install 'convc[compare]'",
    }  # fmt: skip


def test_an_engine_that_is_wrong_is_not_the_best() -> None:
    ms = {"convc": 6.0, "mnn": 8.0, "ncnn": 5.0}
    assert ratios(ms, {"ncnn"}) == ({"mnn": 0.75}, "mnn", 0.75)
    assert ratios(ms, {"convc"}) == ({}, "ncnn", None)
    assert ratios({"convc": 6.0}) == ({}, None, None)


def test_without_peers_convc_is_still_compared_with_onnxruntime(tiny: Path) -> None:
    result = compare(open_model(tiny), (), 1, rounds=1)
    assert set(result.ms) == {"convc"}
    assert result.max_error is not None
    assert (result.best_peer, result.ratio_to_best, result.errors) == (None, None, {})


@pytest.mark.parametrize(
    ("outputs", "reference", "error"),
    [
        ([[2.0, -4.0]], [[2.0, -4.0]], 0.0),
        ([[2.5, -4.0]], [[2.0, -4.0]], 0.125),
        ([[0.0], [1.0]], [[0.0], [2.0]], 0.5),
        ([[0.5]], [[0.0]], 0.5),
        ([[1.0, 2.0]], [[1.0]], float("inf")),
        ([[1.0]], [[1.0], [2.0]], float("inf")),
        ([[float("nan")]], [[1.0]], float("inf")),
        ([[float("inf")]], [[float("inf")]], float("inf")),
    ],
)
def test_errors_are_relative_to_the_maximum(
    outputs: list[list[float]], reference: list[list[float]], error: float
) -> None:
    assert largest_error(list(map(np.array, outputs)), list(map(np.array, reference))) == error


def test_an_engine_without_a_batch_axis_may_return_another_shape() -> None:
    assert largest_error([np.arange(6.0)], [np.arange(6.0).reshape(1, 2, 3)]) == 0


def test_the_models_command_prints_a_table_and_writes_one_document(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "out.json"
    arguments = ["--vs", "onnxruntime", "--threads", "1", "--rounds", "1", "--model", str(tiny), "--json", str(document)]  # fmt: skip
    assert models_command.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "tiny" in shown
    assert "float32 peak 100.0 before and 100.0 after GFLOP/s a core" in shown
    read = json.loads(document.read_text())
    (model,) = read["models"]
    assert (model["model"], model["threads"]) == ("tiny", 1)
    assert set(model["ms"]) == {"convc", "onnxruntime"}
    assert model["ratio_to_best"] == model["ms"]["convc"] / model["ms"]["onnxruntime"]
    assert {"max_error", "errors"} <= set(model)
    assert (read["peak_gflops_per_core"], read["peak_before"], read["peak_after"]) == (100, 100, 100)  # fmt: skip
    assert {"convc", "apache-tvm", "onnxruntime", "python"} <= set(read["versions"])
    assert {"date", "cpu", "cores"} <= set(read)


def test_a_model_that_convc_cannot_compile_is_told_and_fails_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "det.onnx"
    text = '<ir_version: 8, opset_import: ["": 18]> g (float[1, 3, 3] x) => (float[1] y) { y = Det(x) }'
    onnx.save(onnx.parser.parse_model(text), path)
    arguments = ["--vs", "onnxruntime", "--threads", "1", "--rounds", "1", "--model", str(path)]
    assert models_command.main(arguments) == 1
    shown = capsys.readouterr().out
    assert "error: det, 1 thread: " in shown
    assert "Det" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--rounds", "0"], 2, "error: --rounds must be at least 1; got 0.\n"),
        (["--threads", "one"], 2, "error: --threads must be numbers joined by commas, as in 1,2; got 'one'.\n"),
        (["--vs", "onxruntime"], 2, "error: unknown peer 'onxruntime'; known: onnxruntime, openvino, mnn, ncnn. Did you mean 'onnxruntime'?\n"),
        (["--model", "gone.onnx"], 3, "error: model must be a file; got 'gone.onnx', which does not exist.\n"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_told(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models_command.main(["--threads", "1", *arguments]) == code
    assert capsys.readouterr().err == message


def test_the_table_and_the_notes_say_who_failed() -> None:
    result = ModelResult(
        model="net",
        threads=2,
        ms={"convc": 6.0, "openvino": 7.0, "mnn": 8.0},
        fastest_ms={},
        spread={},
        calls={},
        ratio={"mnn": 0.75},
        best_peer="mnn",
        ratio_to_best=0.75,
        max_error=2e-6,
        max_errors={},
        errors={"openvino": "openvino is wrong.", "ncnn": "ncnn must run."},
        warnings=("mnn varies.",),
    )
    made = models_table([result], peers_named(["openvino", "mnn", "ncnn"]))
    cells = [str(next(iter(column.cells))) for column in made.columns]
    assert cells == [
        "net",
        "2",
        "6.00",
        "7.00 wrong",
        "8.00 (0.75)",
        "failed",
        "0.75 mnn",
        "2.0e-06",
    ]
    assert notes([result])[1:] == ["error: net, 2 threads: openvino is wrong.", "error: net, 2 threads: ncnn must run.", "warning: net, 2 threads: mnn varies."]  # fmt: skip
