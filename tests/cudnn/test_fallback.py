"""What a device's cuDNN refuses at load: convc's own kernel runs where convc chose cuDNN; it is an error where somebody insists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convc.frontend import dsl as cc
from convc.ir import Graph
from convc.ir.reference import interpret
from convc.lowering.emit import emit
from convc.planning import Wishes, plan_graph
from convc.schedules.policy import Policy
from convc.target import parse_target
from tests.cuda_emulation.emulation import worker
from tests.cudnn.double_library import build_double

TARGET = parse_target("cuda -arch=sm_90")
NOT_SUPPORTED, ALLOC_FAILED, VERSION_MISMATCH = 3000, 4003, 1002
EVERY = -1


def slow(*values: Any) -> Any:
    """A case of `parametrize` for the long run alone."""
    return pytest.param(*values, marks=pytest.mark.slow)


def net(dtype: str = "float32") -> Graph:
    """Two convolutions of one shape, the second with a residual, a pool and a softmax."""
    rng = np.random.default_rng(0)
    x = cc.input("x", (1, 8, 8, 8), dtype)

    def layer(h: cc.Tensor, name: str) -> cc.Tensor:
        w, b = rng.integers(-1, 2, (8, 8, 3, 3)), rng.integers(-2, 3, 8)
        return cc.conv2d(h, w.astype(dtype), b.astype(dtype), pads=1, name=name)

    h = cc.relu(layer(x, "first"))
    h = cc.relu(layer(h, "second") + h)
    return cc.graph({"y": cc.max_pool2d(h, 2, strides=2, name="pool")}, name="net")


IMAGE = np.random.default_rng(1).integers(-1, 2, (1, 8, 8, 8))


def load(failures: Any = (), library: str = "", graph: Graph | None = None, **options: Any) -> Any:
    graph = graph or net()
    given = {"x": IMAGE.astype(graph["x"].type.dtype)}
    options = {"target": "cuda -arch=sm_90", "cudnn": "prefer", **options}
    said = worker().call("tests.cudnn.candidate:loaded", graph, options, given, failures, library)
    if "outputs" in said:
        np.testing.assert_array_equal(said["outputs"]["y"], interpret(graph, given)["y"])
    return said


def fallen(said: Any) -> list[str]:
    return [f.layer for f in said["prepared"].fallbacks]


def test_nothing_is_refused():
    said = load()
    assert fallen(said) == said["said"] == []
    # What stands beside the calls has not run, too.
    assert said["launches"] == 0
    assert {n: a for n, (a, _) in said["ran"].items()} == dict.fromkeys(("first", "second", "pool"), "cudnn")  # fmt: skip
    assert [p.layer for p in said["prepared"].plans] == ["first", "second"]


@pytest.mark.parametrize("dtype", [slow("float32"), "float16"])
def test_one_layer_is_refused_and_the_others_stay(dtype):
    """In half precision cuDNN's layers are channels last, convc's own are not: what is copied between them is copied there alone."""
    said = load([("cudnnBackendExecute", 0, NOT_SUPPORTED)], graph=net(dtype))
    assert fallen(said) == ["first"]
    (fallback,) = said["prepared"].fallbacks
    assert "CUDNN_STATUS_NOT_SUPPORTED" in fallback.reason
    assert said["said"] == [f"module 'net': {fallback}"]
    assert str(fallback).startswith(f"layer 'first' runs convc's own '{fallback.algorithm}' in place of cuDNN: cuDNN's cudnnBackendExecute must")  # fmt: skip
    algorithm, reason = said["ran"]["first"]
    assert algorithm == fallback.algorithm != "cudnn"
    assert reason == f"in place of cuDNN: {fallback.reason}"
    assert said["ran"]["second"][0] == said["ran"]["pool"][0] == "cudnn"
    assert [p.layer for p in said["prepared"].plans] == ["second"]
    # Decided at load: no run asks for it again.
    assert said["run"].count("run ") == 2
    assert "heuristics" not in said["run"]


@pytest.mark.parametrize(
    ("failures", "words"),
    [
        ([("plan", EVERY, NOT_SUPPORTED)], "must have an engine for conv2d-"),
        slow([("cudnnBackendCreateDescriptor", EVERY, ALLOC_FAILED)], "CUDNN_STATUS_ALLOC_FAILED"),
        slow([("cudnnBackendExecute", EVERY, VERSION_MISMATCH)], "SUBLIBRARY_VERSION_MISMATCH"),
    ],
)
def test_every_convolution_is_refused(failures, words):
    said = load(failures)
    assert fallen(said) == ["first", "second"]
    assert all(words in f.reason for f in said["prepared"].fallbacks)
    assert said["prepared"].plans == ()
    assert said["launches"] > 0
    assert said["ran"]["pool"][0] == "cudnn"
    assert "run " not in said["run"]


def test_a_pool_is_refused():
    said = load([("cudnnPoolingForward", EVERY, NOT_SUPPORTED)])
    assert fallen(said) == ["pool"]
    assert said["ran"]["pool"][0] == "plain"
    assert said["ran"]["first"][0] == "cudnn"


@pytest.mark.parametrize(
    ("library", "failures", "words"),
    [
        ("/no/such.so", [], "must find cuDNN 9 (libcudnn.so.9); got: /no/such.so"),
        slow(8907, [], "must be cuDNN 9; got cuDNN 8 (version 8907)"),
        ("", [("cudnnCreate", EVERY, ALLOC_FAILED)], "cudnnCreate must succeed"),
    ],
)
def test_there_is_no_cudnn(library, failures, words):
    """Asked once, and with nothing left to ask at run time."""
    library = str(build_double(version=library)) if isinstance(library, int) else library
    said = load(failures, library)
    assert fallen(said) == ["first", "second", "pool"]
    assert all(words in f.reason for f in said["prepared"].fallbacks)
    assert said["run"] == ""


def test_what_is_pinned_or_required_is_an_error_that_names_every_layer_and_the_way_out():
    every = [("cudnnBackendExecute", EVERY, NOT_SUPPORTED)]
    text = load(every, cudnn="require")["error"]
    assert text.startswith("DeviceError: module 'net' must run on this device; got: cuDNN's cudnnBackendExecute must succeed for conv2d-")  # fmt: skip
    assert text.endswith("Compile it with --algo-for 'first=ALGORITHM', one of convc's own that `convc explain` lists for it, or with --cudnn off.")  # fmt: skip
    pinned = load(every, cudnn="prefer", algo_for={"second": "cudnn"})["error"]
    assert "--algo-for 'second=ALGORITHM', one" in pinned
    without = load(every, policy=Policy(fallback=False))["error"]
    assert without == text
    pool = load([("cudnnPoolingForward", EVERY, NOT_SUPPORTED)], cudnn="require")["error"]
    assert "--algo-for 'pool=plain', one" in pool
    missing = load((), "/no/such.so", cudnn="require")["error"]
    assert missing.startswith("ToolchainError: CONVC_CUDNN_PATH must name cuDNN 9's library")


def test_layers_that_make_the_same_call_are_all_named():
    x = cc.input("x", (1, 8, 8, 8))
    w = np.ones((8, 8, 3, 3), np.float32)
    h = cc.conv2d(cc.conv2d(x, w, pads=1, name="one"), w, pads=1, name="two")
    alike = cc.graph({"y": cc.conv2d(h, w, name="other")}, name="net")
    text = load([("cudnnBackendExecute", 0, NOT_SUPPORTED)], graph=alike, cudnn="require")["error"]
    assert "--algo-for 'one=ALGORITHM' --algo-for 'two=ALGORITHM', one" in text


def test_what_stands_beside_a_call():
    """Nothing beside what somebody insists on; else an algorithm of convc's own, with what it must copy."""
    for wishes, beside in (
        (Wishes.of(cudnn="prefer"), True),
        (Wishes.of(cudnn="require"), False),
        (Wishes.of(algo="cudnn"), False),
        (Wishes.of(cudnn="prefer", policy=Policy(fallback=False)), False),
    ):
        calls = emit(net(), plan_graph(net(), TARGET, wishes, "").plan, TARGET).calls
        assert [bool(c.otherwise) for c in calls if c.algorithm == "cudnn"] == [beside] * 3
    plan = plan_graph(net("float16"), TARGET, Wishes.of(cudnn="prefer"), "").plan
    first = next(c for c in emit(net("float16"), plan, TARGET).calls if c.node == "first" and c.otherwise)  # fmt: skip
    assert [c.op for c in first.otherwise][-2:] == ["conv", "reorder"]


def test_the_lock_has_it(tmp_path):
    planned = plan_graph(net(), TARGET, Wishes.of(cudnn="prefer"), "sha")
    planned.lock.write(tmp_path / "net.lock")
    again = plan_graph(net(), TARGET, Wishes.of(locked=tmp_path / "net.lock"), "sha").plan
    for name in ("first", "second"):
        wanted, found = planned.plan[name].otherwise, again[name].otherwise
        assert wanted is not None
        assert found is not None
        assert (found.algorithm, dict(found.knobs)) == (wanted.algorithm, dict(wanted.knobs))
    assert again["pool"].otherwise is not None
