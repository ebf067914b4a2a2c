"""The benchmarks package on tiny models; no time is asserted, only that what is measured is right, and what fails is told."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import layers as layers_command
from benchmarks import models as models_command
from benchmarks import run_facts, zoo
from benchmarks.cache import cache_folder, made_once
from benchmarks.interleave import Contestant, Timing, interleave, wait_until_idle
from benchmarks.layer_list import CLASSES, Layer, class_of, layers
from benchmarks.layer_model import LayerModel
from benchmarks.layer_report import choices
from benchmarks.layer_runs import AlgorithmResult, LayerResult, measure_layer
from benchmarks.model_report import models_table, notes
from benchmarks.model_runs import ModelResult, compare, largest_error
from benchmarks.onnx_file import OnnxFile, open_model
from benchmarks.peers import PEERS, Infer, Peer, PeerError, peers_named
from benchmarks.peers.peer import run_tool
from convc.errors import InvalidModelError, ToolchainError, UnknownNameError
from convc.ir import ConvSpec
from tests.tolerance import assert_bounded, error_bound

TINY = """
<ir_version: 8, opset_import: ["": 18]>
tiny (float[{batch}, 8, 6, 6] x) => (float[{batch}, 8, 6, 6] y) <float[8, 8, 1, 1] w = {{{weights}}}> {{
  h = Conv(x, w)
  y = Relu(h)
}}
"""
ONNXRUNTIME = peers_named(["onnxruntime"])


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(run_facts, "_peak", lambda threads: 100.0)
    monkeypatch.setattr("benchmarks.interleave._BLOCK_SECONDS", 0.0)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny.onnx")


def save_tiny(path: Path, batch: str = "1") -> Path:
    weights = ", ".join(str((7 * i) % 11 - 5) for i in range(64))
    onnx.save(onnx.parser.parse_model(TINY.format(batch=batch, weights=weights)), path)
    return path


def fake(name: str, infer: Infer, packages: tuple[str, ...] = ()) -> Peer:
    return Peer(name, packages, lambda model, threads: infer)


# ---- models: running ---------------------------------------------------------------------------------------------


def wrong(inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    return [np.zeros((1, 8, 6, 6), np.float32)]


def broken(inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    raise Exception("cannot\n  run it")  # noqa: TRY002 - MNN raises just this


def test_a_comparison_times_who_runs_and_tells_who_does_not(tiny: Path) -> None:
    peers = (
        *ONNXRUNTIME,
        fake("liar", wrong),
        fake("broken", broken),
        fake("absent", wrong, ("no-such-package", "nor-this")),
    )
    result = compare(open_model(tiny), peers, 1, rounds=2)
    assert set(result.ms) == {"convc", "onnxruntime"}
    assert result.calls == {"convc": 6, "onnxruntime": 6}
    assert result.ratio == {"onnxruntime": result.ms["convc"] / result.ms["onnxruntime"]}
    assert (result.best_peer, result.ratio_to_best) == ("onnxruntime", result.ratio["onnxruntime"])
    assert result.max_error is not None
    assert result.max_error < 1e-6
    assert result.errors == {
        "liar": "liar must agree with onnxruntime within 0.01 of the output's maximum; got 1. Its time would mean nothing.",
        "broken": "broken must run the model; got Exception: cannot run it",
        "absent": "absent must have the packages no-such-package, nor-this; got no such package. Run: pip install 'convc[compare]'",
    }  # fmt: skip


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


# ---- models: the command -----------------------------------------------------------------------------------------


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
    assert "failed: det, 1 thread: " in shown
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
        ms={"convc": 6.0, "mnn": 8.0},
        fastest_ms={"convc": 6.0, "mnn": 8.0},
        spread={},
        calls={},
        ratio={"mnn": 0.75},
        best_peer="mnn",
        ratio_to_best=0.75,
        max_error=2e-6,
        max_errors={},
        errors={"ncnn": "ncnn must run."},
        warnings=("mnn varies.",),
    )
    made = models_table([result], peers_named(["mnn", "ncnn"]))
    cells = [str(next(iter(column.cells))) for column in made.columns]
    assert cells == ["net", "2", "6.00", "8.00 (0.75)", "failed", "0.75 mnn", "2.0e-06"]
    assert notes([result])[1:] == ["failed: net, 2 threads: ncnn must run.", "warning: net, 2 threads: mnn varies."]  # fmt: skip


# ---- model files -------------------------------------------------------------------------------------------------


def test_a_static_model_is_used_as_it_is(tiny: Path) -> None:
    opened = open_model(tiny)
    assert opened.path == tiny
    assert [(t.name, t.shape, t.dtype) for t in opened.inputs] == [("x", (1, 8, 6, 6), "float32")]
    assert (opened.name, opened.outputs) == ("tiny", ("y",))


@pytest.mark.parametrize(
    ("shapes", "batch"), [(None, 1), ({"x": (3, 8, 6, 6)}, 3)], ids=["batch of one", "given"]
)
def test_an_open_batch_is_filled_in_for_all(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]] | None, batch: int
) -> None:
    opened = open_model(save_tiny(tmp_path / "open.onnx", "N"), shapes)
    assert opened.path.is_relative_to(cache_folder())
    assert opened.name == "open"
    again = open_model(opened.path)
    assert again.path == opened.path
    assert again.inputs[0].shape == opened.inputs[0].shape == (batch, 8, 6, 6)


def test_weights_that_are_inputs_become_constants(tmp_path: Path) -> None:
    model = onnx.load(save_tiny(tmp_path / "old.onnx"))
    model.ir_version = 3
    weight = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (8, 8, 1, 1))
    model.graph.input.append(weight)
    onnx.save(model, tmp_path / "old.onnx")
    opened = open_model(tmp_path / "old.onnx")
    assert [t.name for t in opened.inputs] == ["x"]
    assert [v.name for v in onnx.load(opened.path).graph.input] == ["x"]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(
        InvalidModelError, match=r"broken\.onnx' must be an ONNX protobuf file; it does not parse"
    ):
        open_model(path)
    with pytest.raises(InvalidModelError) as caught:
        open_model(save_tiny(tmp_path / "tiny.bin"))
    assert str(caught.value) == f"model must be an .onnx file, which every peer takes; got '{tmp_path / 'tiny.bin'}'."  # fmt: skip


def test_what_is_made_once_is_whole_or_not_there(tmp_path: Path) -> None:
    folder, made = tmp_path / "a" / "b", []

    def fails(scratch: Path) -> None:
        (scratch / "half").touch()
        raise PeerError("no")

    with pytest.raises(PeerError):
        made_once(folder, fails)
    assert list(folder.parent.iterdir()) == []
    for _ in range(2):
        made_once(folder, lambda scratch: made.append((scratch / "whole").touch()))
    assert len(made) == 1
    assert [file.name for file in folder.iterdir()] == ["whole"]


def test_the_cache_follows_the_xdg_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache" / "convc-benchmarks"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == Path.home() / ".cache" / "convc-benchmarks"


def test_a_converter_that_fails_is_quoted(tmp_path: Path) -> None:
    script = "print('one'); print('two'); print('three'); print('four'); raise SystemExit(3)"
    with pytest.raises(PeerError) as caught:
        run_tool((sys.executable, "-c", script), tmp_path, "out")
    name = Path(sys.executable).name
    assert str(caught.value) == f"{name} must convert the model; got exit code 3: two; three; four"
    with pytest.raises(PeerError, match="got exit code 0: no output"):
        run_tool((sys.executable, "-c", ""), tmp_path, "out")
    run_tool((sys.executable, "-c", "open('out', 'w')"), tmp_path, "out")
    assert (tmp_path / "out").is_file()


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_that_is_installed_agrees(peer: Peer, tiny: Path) -> None:
    if len(peer.versions()) < len(peer.packages):
        pytest.skip(f"{peer.name} is not installed")
    model = open_model(tiny)
    x = np.random.default_rng(0).standard_normal((1, 8, 6, 6)).astype(np.float32)
    reference = np.maximum(np.einsum("kc,nchw->nkhw", onnx_weight(model), x), 0)
    _, outputs = peer.open(model, 1, [x])
    assert largest_error(outputs, [reference]) < 1e-6


def onnx_weight(model: OnnxFile) -> np.ndarray:
    (tensor,) = onnx.load(model.path).graph.initializer
    return onnx.numpy_helper.to_array(tensor)[:, :, 0, 0]


# ---- interleaving ------------------------------------------------------------------------------------------------


def test_every_round_has_every_contestant_and_its_first_call_does_not_count() -> None:
    order: list[str] = []
    progress: list[tuple[int, int]] = []
    contestants = [Contestant(name, lambda name=name: order.append(name)) for name in "abc"]
    timings = interleave(contestants, 5, progress=lambda *step: progress.append(step))
    blocks = ["".join(order[i : i + 4]) for i in range(0, len(order), 4)]
    assert set(blocks) == {"aaaa", "bbbb", "cccc"}, "one call that does not count, three that do"
    rounds = ["".join(block[0] for block in blocks[i : i + 3]) for i in range(0, 15, 3)]
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds)) > 1, "the order changes"
    assert {name: len(t.samples) for name, t in timings.items()} == {"a": 15, "b": 15, "c": 15}
    assert progress == [(i, 5) for i in range(5)]


def test_the_wait_ends_when_no_thread_works() -> None:
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        assert not wait_until_idle(0.02)
    finally:
        stop.set()
        thread.join()
    assert wait_until_idle()


def test_a_spinning_pool_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.interleave.wait_until_idle", lambda: False)
    timings = interleave([Contestant("a", lambda: time.sleep(0))], 1)
    assert not timings["a"].always_idle


def test_the_spread_is_half_the_quartiles_distance() -> None:
    timing = Timing("a", (1.0, 2.0, 3.0, 4.0, 5.0))
    assert (timing.median, timing.spread) == (3.0, pytest.approx(1 / 3))
    assert Timing("a", (1.0,)).spread == 0


# ---- layers ------------------------------------------------------------------------------------------------------


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
    with pytest.raises(
        UnknownNameError, match="unknown layer 'rlk1'; known: .*rlk31.* Did you mean 'rlk13'"
    ):
        layers(["dw7+"], "rlk1")


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

    def compile_model(graph, **options):  # noqa: ANN001, ANN003, ANN202 - stands in for convc.compile
        if options["algo_for"] == {"conv": "direct"}:
            raise RuntimeError("TVM\nsays no")
        return original(graph, **options)

    monkeypatch.setattr(layer_runs, "compile_model", compile_model)
    spec = ConvSpec.of((1, 16, 8, 8), (16, 16, 3, 3), pads=(1, 1, 1, 1))
    result = measure_layer(Layer("small", "none", spec), (), 1, 100.0, all_algorithms=True, rounds=1)  # fmt: skip
    assert result.errors == {"direct": "TVM says no"}
    assert "direct" not in {a.algorithm for a in result.algorithms}
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


# ---- the zoo -----------------------------------------------------------------------------------------------------


def test_an_exported_model_needs_no_torch(tmp_path: Path) -> None:
    path = save_tiny(tmp_path / "resnet18.onnx")
    assert zoo.exported("resnet18", tmp_path) == path


def test_exporting_without_torch_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ToolchainError) as caught:
        zoo.exported("resnet18", tmp_path)
    assert str(caught.value) == (
        "exporting 'resnet18' must have the package 'torch'; got no module 'torch'. "
        "Run: pip install torch  (or give files with --model, or a folder of exported ones with --zoo)"
    )
    with pytest.raises(
        UnknownNameError, match=r"unknown zoo model 'resnet'; known: resnet18, resnet50"
    ):
        zoo.exported("resnet", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "unet"])
def test_an_exported_model_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model = open_model(zoo.exported(name, tmp_path))
    x = np.random.default_rng(0).standard_normal(model.inputs[0].shape).astype(np.float32)
    _, (output,) = ONNXRUNTIME[0].open(model, 1, [x])
    assert np.isfinite(output).all()
    assert output.std() > 0.1, "the data keeps its size through the layers"
