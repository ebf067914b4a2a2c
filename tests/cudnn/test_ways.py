"""Ways in which cuDNN chooses, by Theano's names and its own: pinned, asked for by the model, and what runs where a device has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convc.errors import ScheduleError, UnknownNameError
from convc.frontend import dsl as cc
from convc.frontend import nnet
from convc.ir import Graph
from convc.ir.reference import interpret
from convc.planning import Wishes, plan_graph
from convc.runtime.libraries.cudnn import POLICIES
from convc.schedules.cuda.cudnn import ALGORITHM
from convc.schedules.offers import estimated_seconds
from convc.schedules.plan import Choice
from convc.schedules.select import problem_of, select
from convc.schedules.tuned import Measurement
from convc.target import parse_target
from tests.cuda_emulation.emulation import worker

TARGET = parse_target("cuda -arch=sm_90")
RNG = np.random.default_rng(0)
FILTERS = RNG.integers(-1, 2, (8, 4, 3, 3)).astype(np.float32)
IMAGE = RNG.integers(-2, 3, (1, 4, 7, 6)).astype(np.float32)


def net() -> Graph:
    x = cc.input("x", IMAGE.shape)
    h = cc.conv2d(x, FILTERS, pads=1, name="layer")
    return cc.graph({"y": cc.max_pool2d(h, 2, name="pool")}, name="net")


def asking(algo: str | None) -> Graph:
    """A layer as Theano's users write it."""
    x = cc.input("x", IMAGE.shape)
    return cc.graph({"y": nnet.dnn_conv(x, FILTERS, "half", algo=algo, name="layer")}, name="asking")  # fmt: skip


def chosen(graph: Graph, target: Any = TARGET, **wishes: Any) -> dict[str, Choice]:
    plan = plan_graph(graph, target, Wishes.of(**wishes), "").plan
    return {**plan.choices, **plan.gradients, **plan.operations}


@pytest.mark.parametrize("way", POLICIES)
def test_every_way_by_name(way):
    pinned = chosen(net(), algo_for={"layer": f"cudnn:{way}"})["layer"]
    assert (pinned.algorithm, pinned.knobs["policy"]) == ("cudnn", POLICIES.index(way))
    assert (pinned.reason, pinned.otherwise) == ("pinned by --algo-for layer", None)


def test_a_way_takes_nothing_from_a_record_but_order_and_limits():
    graph = net()
    problem = problem_of(graph, graph["layer"])
    usual = ALGORITHM.knobs(problem, TARGET)
    tuned = {
        **usual,
        "policy": POLICIES.index("time"),
        "engine": 45,
        "rank": 2,
        "setting_2": 5,
        "transforms": 1,
        "compiles": 1,
    }
    tuned |= {"channels_last": 1, "workspace_mib": 8, "deterministic": 1}
    records = {problem.key: (Measurement("cudnn", tuned, 1e-9, 1e-7),)}
    plan = select(graph, TARGET, algo_for={"layer": "cudnn:heuristic"}, records=records)
    choice = plan.choices["layer"]
    assert choice.knobs == {**usual, "channels_last": 1, "workspace_mib": 8, "deterministic": 1}
    (seconds,) = (row.seconds for row in choice.candidates if row.algorithm == "cudnn")
    assert seconds == estimated_seconds(ALGORITHM, problem, TARGET, choice.knobs) > 1e-9
    assert (
        select(graph, TARGET, algo_for={"layer": "cudnn"}, records=records)["layer"].knobs == tuned
    )


def test_a_record_from_before_a_knob_counts():
    graph = net()
    problem = problem_of(graph, graph["layer"])
    usual = ALGORITHM.knobs(problem, TARGET)
    older = {
        name: value for name, value in usual.items() if name not in ("compiles", "channels_last")
    }
    records = {problem.key: (Measurement("cudnn", older, 1e-9, 1e-7),)}
    choice = select(graph, TARGET, records=records)["layer"]
    assert (choice.algorithm, choice.source, choice.knobs) == ("cudnn", "record", usual)


def test_a_way_where_there_is_none():
    with pytest.raises(
        ScheduleError,
        match=r"'pool' must be named without a way, .*; got 'cudnn:winograd'. Pin 'cudnn'\.",
    ):
        chosen(net(), algo_for={"pool": "cudnn:winograd"})
    on_cpu = parse_target("llvm", "x86-64-v3")
    with pytest.raises(UnknownNameError, match="unknown way of cudnn 'bogus'"):
        chosen(net(), on_cpu, algo="cudnn:bogus")
    assert chosen(net(), on_cpu, algo="cudnn:small")["layer"].algorithm != "cudnn"


def test_for_all_layers_and_what_is_no_way():
    """Ops take the library; how it ranks engines of convolutions is nothing to them."""
    every = chosen(net(), algo="cudnn:small")
    assert every["layer"].knobs["policy"] == POLICIES.index("small")
    assert (every["pool"].algorithm, every["pool"].reason) == ("cudnn", "asked for by --algo cudnn:small")  # fmt: skip
    with pytest.raises(
        UnknownNameError,
        match=r"unknown way of cudnn 'smal'; known: heuristic, .*Did you mean 'small'",
    ):
        chosen(net(), algo="cudnn:smal")
    with pytest.raises(UnknownNameError, match="unknown algorithm 'direct:small'"):
        chosen(net(), algo_for={"layer": "direct:small"})


def test_a_weight_gradient_in_a_way():
    x, w = cc.input("x", IMAGE.shape), cc.input("w", FILTERS.shape)
    graph = cc.graph({"dw": cc.grad(cc.sum(cc.conv2d(x, w, pads=1)), w)})
    (name,) = (n.name for n in graph.nodes if n.op == "conv_weight_grad")
    for wishes in ({"algo_for": {name: "cudnn:deterministic"}}, {"algo": "cudnn:deterministic"}):
        choice = chosen(graph, **wishes)[name]
        assert (choice.algorithm, choice.knobs["policy"]) == ("cudnn", POLICIES.index("deterministic"))  # fmt: skip
    with pytest.raises(UnknownNameError, match="unknown way of cudnn 'best'"):
        chosen(graph, algo_for={name: "cudnn:best"})


def test_what_a_dnn_layer_asks_for():
    small = chosen(asking("small"))["layer"]
    # im2col is no algorithm of this target: nothing stands beside the call.
    assert (small.algorithm, small.knobs["policy"], small.otherwise) == ("cudnn", POLICIES.index("small"), None)  # fmt: skip
    fast = chosen(asking("winograd"))["layer"]
    assert fast.knobs["policy"] == POLICIES.index("winograd")
    assert fast.otherwise is not None
    assert fast.otherwise.algorithm == "winograd"
    assert fast.otherwise.reason == "for devices whose cudnn refuses the layer; asked for by the model behind it"  # fmt: skip
    assert chosen(asking("time_once"))["layer"].knobs["policy"] == POLICIES.index("time")
    assert chosen(asking(None))["layer"].knobs["policy"] == 0
    on_cpu = chosen(asking("small"), parse_target("llvm", "x86-64-v3"))["layer"]
    assert on_cpu.algorithm == "im2col"
    assert on_cpu.reason == "asked for by the model; cudnn asked for, but this target has no such algorithm"  # fmt: skip


def test_its_gradients_are_cudnn_s_too():
    x, w = cc.input("x", IMAGE.shape), cc.input("w", FILTERS.shape)
    y = nnet.dnn_conv(x, w, "half", algo="winograd")
    dx, dw = cc.grad(cc.sum(y * y), [x, w])
    graph = cc.graph({"dx": dx, "dw": dw})
    found = {graph[name].op: choice for name, choice in chosen(graph).items()}
    assert {op: (c.algorithm, c.knobs["policy"] == 0) for op, c in found.items()} == {
        "conv": ("cudnn", False),
        "conv_transpose": ("cudnn", True),
        "conv_weight_grad": ("cudnn", True),
    }


def test_a_way_runs():
    """The double's engine 25 is not deterministic, 28 is: named in the plan, chosen on the device."""
    options = {"target": "cuda -arch=sm_90", "algo_for": {"layer": "cudnn:deterministic"}}
    outputs, _, story = worker().call("tests.cudnn.candidate:compile_and_run", net(), options, {"x": IMAGE})  # fmt: skip
    np.testing.assert_array_equal(outputs["y"], interpret(net(), {"x": IMAGE})["y"])
    assert "run 28 on" in story
    assert "run 25 on" not in story


def test_a_device_without_winograd_runs_convc_s():
    """An H200's cuDNN has none: what the model asks for next runs in its place, and the module says so."""
    options = {"target": "cuda -arch=sm_90"}
    graph = asking("winograd")
    said = worker().call("tests.cudnn.candidate:loaded", graph, options, {"x": IMAGE})
    np.testing.assert_allclose(said["outputs"]["y"], interpret(graph, {"x": IMAGE})["y"], atol=1e-4)
    (fallback,) = said["prepared"].fallbacks
    assert (fallback.layer, fallback.algorithm) == ("layer", "winograd")
    assert "with policy 'winograd'; got none: the policy excludes every engine" in fallback.reason
    assert said["ran"]["layer"][0] == "winograd"
    pinned = worker().call("tests.cudnn.candidate:loaded", graph, {**options, "algo": "cudnn:winograd"}, {"x": IMAGE})  # fmt: skip
    assert "convc has a Winograd algorithm of its own: --algo winograd" in pinned["error"]
