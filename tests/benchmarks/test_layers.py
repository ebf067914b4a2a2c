"""Single layers: the list and its classes, one layer as graph and as ONNX file, every algorithm, the summary."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import layer_choice, tune_layers
from benchmarks import layers as layers_command
from benchmarks.layer_list import CLASSES, Layer, class_of, layers
from benchmarks.layer_model import LayerModel
from benchmarks.layer_report import choices
from benchmarks.layer_runs import AlgorithmResult, LayerResult, measure_layer
from benchmarks.onnx_file import open_model
from benchmarks.peers import peers_named
from benchmarks.tune_layers import layer_tasks
from convc.errors import InputError, UnknownNameError
from convc.ir import ConvSpec
from tests.tolerance import assert_bounded, error_bound
from tests.tuning.records import LIMITS

ONNXRUNTIME = peers_named(["onnxruntime"])


def test_the_list_has_every_class_and_no_name_twice() -> None:
    rows = layers()
    assert len({layer.name for layer in rows}) == len(rows) > 150
    assert {layer.kind for layer in rows} == {name for name, _ in CLASSES}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("r50_stem", "stem"),
        ("r50_2_3x3", "3x3s1"),
        ("r50_3_3x3s2", "3x3s2"),
        ("r50_2_1x1a", "1x1"),
        ("r50_3_ds", "1x1s2"),
        ("mb2_dw96s2", "dw3"),
        ("ef_dw5_240", "dw5"),
        ("rlk31", "dw7+"),
        ("rx_128", "group"),
        ("dl_aspp36", "dilated"),
        ("in_7x1_160", "1-D"),
        ("w2v_2", "1-D"),
        ("in_5x5", "5x5"),
        ("lk31", "7x7+"),
        ("r3_stem", "3-D"),
        ("dc_2T", "transposed"),
        ("cx_ds1", "other"),
    ],
)
def test_layers_have_the_class_their_name_says(name: str, kind: str) -> None:
    (layer,) = layers(pattern=name)
    assert layer.kind == kind
    assert layer in layers([kind])


def test_unknown_classes_and_layers_are_told() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown layer class '3x3'; known: transposed, 3-D, dw3"
    ):
        layers(["3x3"])
    with pytest.raises(UnknownNameError) as caught:
        layers(["dw5"], "ef_dw5")
    assert str(caught.value) == (
        "unknown layer 'ef_dw5'; known: ef_dw5_144s2, ef_dw5_240, ef_dw5_480, ef_dw5_672, ef_dw5_672s2, ef_dw5_1152. "
        "Did you mean 'ef_dw5_672'?"
    )


SMALL = (
    ConvSpec.of((1, 8, 9), (4, 8, 3), strides=(2,), pads=(1, 1)),
    ConvSpec.of((2, 6, 7, 8), (4, 3, 3, 2), pads=(1, 0, 1, 1), dilations=(2, 1), group=2),
    ConvSpec.of((1, 3, 4, 5, 5), (4, 3, 3, 3, 3), pads=(1,) * 6),
    ConvSpec.of((1, 6, 4, 4), (6, 4, 3, 3), strides=(2, 2), transposed=True, output_padding=(1, 0)),
)


@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: spec.key)
def test_graph_and_onnx_file_are_the_same_layer(spec: ConvSpec, tmp_path: Path) -> None:
    model = LayerModel(spec)
    file = open_model(model.save_onnx(tmp_path / "layer.onnx"))
    assert class_of(spec) in dict(CLASSES)
    _, (output,) = ONNXRUNTIME[0].open(file, 1, list(model.feed.values()))
    bound = error_bound("direct", model.feed["x"], model.weight, spec, {})
    assert_bounded(output, model.reference, bound)


def test_a_layer_is_measured_with_every_algorithm() -> None:
    spec = ConvSpec.of((1, 16, 8, 8), (16, 16, 3, 3), pads=(1, 1, 1, 1))
    result = measure_layer(Layer("small", "none", spec), ONNXRUNTIME, 1, 100.0, all_algorithms=True, rounds=1)  # fmt: skip
    assert result.errors == {}
    assert [a.algorithm for a in result.algorithms if a.chosen] == [result.algorithm]
    assert {"direct", "winograd"} <= {a.algorithm for a in result.algorithms}
    assert all(a.error < 1e-5 and a.measured > 0 and a.estimate > 0 for a in result.algorithms)
    chosen = next(a for a in result.algorithms if a.chosen)
    assert result.us == 1e6 * chosen.measured
    assert result.gflops == pytest.approx(spec.flops / chosen.measured / 1e9)
    assert result.percent_of_peak == pytest.approx(result.gflops)
    assert set(result.ratio) == set(result.peer_us) == {"onnxruntime"}
    assert result.kernel_ratio is not None


def test_an_algorithm_that_fails_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmarks import layer_runs

    original = layer_runs.compile_model

    def compile_model(graph, **options):
        if options["algo_for"] == {"conv": "im2col"}:
            raise RuntimeError("TVM\nsays no")
        return original(graph, **options)

    monkeypatch.setattr(layer_runs, "compile_model", compile_model)
    spec = ConvSpec.of((1, 16, 8, 8), (16, 16, 3, 3), pads=(1, 1, 1, 1))
    result = measure_layer(Layer("small", "none", spec), (), 1, 100.0, all_algorithms=True, rounds=1)  # fmt: skip
    assert result.errors == {"im2col": "TVM says no"}
    assert "im2col" not in {a.algorithm for a in result.algorithms}
    assert result.us is not None


def layer_result(name: str, *times: tuple[str, float, bool]) -> LayerResult:
    rows = tuple(AlgorithmResult(a, chosen, 1.0, t, 0.0, {}) for a, t, chosen in times)
    return LayerResult(
        layer=name,
        kind="3x3s1",
        key="",
        threads=1,
        algorithm="",
        us=None,
        call_us=None,
        gflops=None,
        percent_of_peak=None,
        error=None,
        peer_us={},
        ratio={},
        kernel_ratio=None,
        algorithms=rows,
        errors={},
    )


def test_the_summary_counts_good_choices_and_names_bad_ones() -> None:
    summary = choices(
        [
            layer_result("best", ("a", 1.0, True), ("b", 2.0, False)),
            layer_result("nearly", ("a", 1.03, True), ("b", 1.0, False)),
            layer_result("bad", ("a", 4.0, True), ("b", 1.0, False)),
            layer_result("no choice", ("a", 1.0, True)),
        ]
    )
    loss = 100 * ((1.03 * 4) ** (1 / 3) - 1)
    assert str(summary) == (
        f"chosen is the fastest or within 3 % for 2 of 3 layers, geomean loss {loss:.1f} %\n"
        "  bad: a chosen, b is 4.00 x faster"
    )


def test_the_layers_command_prints_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "out.json"
    arguments = ["--layers", "gg_5x5a", "--algorithms", "all", "--rounds", "1", "--json", str(document)]  # fmt: skip
    assert layers_command.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "gg_5x5a" in shown
    assert "chosen is the fastest or within 3 % for " in shown
    (layer,) = json.loads(document.read_text())["layers"]
    assert (layer["layer"], layer["kind"]) == ("gg_5x5a", "5x5")
    assert layers_command.main(["--classes", "6x6"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown layer class '6x6'; known: ")


def test_the_choice_command_compares_every_algorithm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "out.json"
    arguments = ["--layers", "gg_5x5a", "--rounds", "1", "--json", str(document)]
    assert layer_choice.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "chosen is the fastest or within 3 % for " in shown
    (layer,) = json.loads(document.read_text())["layers"]
    assert (layer["layer"], layer["kind"], layer["errors"]) == ("gg_5x5a", "5x5", {})
    assert {"direct", "winograd", "fft", "im2col"} <= {a["algorithm"] for a in layer["algorithms"]}
    assert [a["algorithm"] for a in layer["algorithms"] if a["chosen"]] == ["winograd"]
    assert all(a["measured"] > 0 and a["error"] < 1e-5 for a in layer["algorithms"])


def test_the_choice_command_says_what_it_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert layer_choice.main(["--layers", "vgg1_2", "--below", "0.5"]) == 2
    assert "--below must leave a layer; got 0.5, and the smallest has " in capsys.readouterr().err
    assert layer_choice.main(["--log", str(tmp_path / "none.jsonl")]) == 2
    assert "--log must have records of this device" in capsys.readouterr().err


def test_layers_to_tune_are_distinct_and_small():
    tasks = layer_tasks((), "*", 1.0)
    keys = [task.subject.key for task in tasks]
    assert len(keys) == len(set(keys)) > 100
    assert all(task.subject.flops < 2e9 for task in tasks)
    assert sum(len(task.layers) for task in tasks) == sum(row.spec.flops < 2e9 for row in layers())
    assert {n for t in layer_tasks(["dw3"], "*", 0.003) for n in t.layers} < {row.name for row in layers(["dw3"])}  # fmt: skip
    with pytest.raises(InputError, match="must leave a layer; got 0, and the smallest of 8 has 0"):
        layer_tasks(["dw3"], "*", 0.0)
    with pytest.raises(UnknownNameError, match="no_such"):
        layer_tasks((), "no_such*", 1.0)


def test_tuning_layers_keeps_what_was_measured_when_interrupted(monkeypatch, tmp_path, capsys):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tune_layers.Session, "run", interrupted)
    monkeypatch.setattr(tune_layers, "calibration", lambda *_: LIMITS)
    log = str(tmp_path / "log.jsonl")
    assert tune_layers.main(["--layers", "r50_stem", "--log", log]) == 130
    said = capsys.readouterr().out
    assert re.search(r"0 of 1 layers done in \d+ s; trials: none", said)
    assert "the same command goes on from here" in said
    assert tune_layers.main(["--layers", "no_such", "--log", log]) == 2
