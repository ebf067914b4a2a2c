"""What both benchmarks stand on: model files, the cache, converters, interleaving, the zoo."""

from __future__ import annotations

import doctest
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from benchmarks import arguments, layer_list, model_runs, peers, run_facts, zoo
from benchmarks.cache import cache_folder, made_once
from benchmarks.interleave import Contestant, Timing, interleave, wait_until_idle
from benchmarks.model_runs import largest_error
from benchmarks.onnx_file import OnnxFile, open_model
from benchmarks.peers import PEERS, Peer, PeerError, peers_named
from benchmarks.peers.peer import run_tool
from convc.errors import InvalidModelError, ToolchainError, UnknownNameError
from tests.benchmarks.tiny_model import save_tiny

ONNXRUNTIME = peers_named(["onnxruntime"])


@pytest.mark.parametrize("module", [arguments, layer_list, model_runs, peers, run_facts])
def test_the_examples_are_true(module: ModuleType) -> None:
    attempted_and_failed = doctest.testmod(module)
    assert attempted_and_failed.attempted > 0
    assert attempted_and_failed.failed == 0


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


def test_blocks_on_a_slow_machine_do_not_count_and_are_repeated() -> None:
    made: list[int] = []
    paces = iter([1.0, 1.0, 1.5, 1.0, 1.0, *[0.99] * 20])
    timing = interleave(
        [Contestant("a", lambda: made.append(0))], 2, reference=lambda: next(paces)
    )["a"]
    assert timing.pace == 1.0, "slow before or behind two of four blocks"
    assert timing.calls == (1, 2, 3, 13, 14, 15)
    assert len(timing.samples) == 6
    assert len(made) == 16


def test_one_limit_holds_for_all_contestants() -> None:
    # "a" and "b" take turns in an order that the seed shuffles; whoever is fast, the machine is slow beside every block but one.
    paces = iter([1.0, 1.0, *[1.5] * 20])
    timings = interleave([Contestant(n, lambda: None) for n in "ab"], 2, reference=lambda: next(paces))  # fmt: skip
    assert {round(t.pace, 2) for t in timings.values()} == {1.5}, (
        "the one calm block is not compared with slow ones"
    )
    assert {len(t.samples) for t in timings.values()} == {18}, (
        "three times the rounds, then the end"
    )


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
