"""Weights that are known only at run time through cuDNN: as they are, or channels last by a kernel of convc's; training steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from convc.frontend import dsl as cc
from convc.ir import ConvSpec, Graph, GraphBuilder, TensorType
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype
from convc.lowering.emit import emit
from convc.planning import Wishes, plan_graph
from convc.schedules import packing
from convc.schedules.algorithm import Problem
from convc.schedules.cuda.cudnn import ALGORITHM
from convc.schedules.offers import estimated_seconds
from convc.target import parse_target
from tests.conv_grid import CONV_GRID
from tests.cuda_emulation.emulation import worker
from tests.schedules.conv_module import conv_node

TARGET = parse_target("cuda -arch=sm_90")

# Channels in eights, which half precision has last: dense, in groups, of one and three dimensions, a gradient of the data.
LAST = (
    ConvSpec.of((2, 8, 5, 6), (16, 8, 3, 3), pads=(1, 1, 1, 1)),
    ConvSpec.of((1, 16, 6, 5), (16, 8, 2, 3), group=2, strides=(2, 1), dilations=(1, 2)),
    ConvSpec.of((2, 8, 9), (8, 8, 3), pads=(1, 1)),
    ConvSpec.of((1, 8, 3, 4, 3), (8, 8, 2, 3, 2), pads=(0, 1, 1, 0, 1, 1)),
    ConvSpec.of((1, 16, 5, 4), (16, 8, 3, 3), strides=(2, 2), pads=(1, 1, 1, 1), transposed=True),
    ConvSpec.of((1, 8, 7), (8, 8, 3), transposed=True),
)


def sampled(count: int) -> list[ConvSpec]:
    """Return small convolutions of the grid that cuDNN takes, every kind among them, in an order that is always the same."""
    small = [
        row.spec
        for row in CONV_GRID
        if np.prod(row.spec.output) * np.prod(row.spec.weight[1:]) < 4e4
        and ALGORITHM.supports(Problem(row.spec), TARGET) is None
    ]
    order = [small[i] for i in np.random.default_rng(0).permutation(len(small))]
    kinds: dict[tuple[int, bool, bool], ConvSpec] = {}
    for spec in order:
        kinds.setdefault((spec.rank, spec.transposed, spec.group > 1), spec)
    return list(dict.fromkeys([*kinds.values(), *order]))[:count]


def convolutions(specs: list[ConvSpec]) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return them as one graph whose weights are inputs, and inputs so small that sums of half types are whole numbers, too."""
    b, outputs, given = GraphBuilder("run_time"), {}, {}
    rng = np.random.default_rng(1)
    for i, spec in enumerate(specs):
        names = [b.input(f"{n}{i}", TensorType(s, spec.dtype)) for n, s in (("x", spec.data), ("w", spec.weight))]  # fmt: skip
        for name, shape in zip(names, (spec.data, spec.weight), strict=True):
            given[name] = rng.integers(-1, 2, shape).astype(numpy_dtype(spec.dtype))
        outputs[f"y{i}"] = conv_node(b, *names, spec, name=f"layer{i}")
    return b.finish(outputs), given


def run(graph: Graph, given: dict[str, np.ndarray]) -> str:
    options = {"target": "cuda -arch=sm_90", "cudnn": "require"}
    outputs, choices, story = worker().call("tests.cudnn.candidate:compile_and_run", graph, options, given)  # fmt: skip
    assert {algorithm for algorithm, _ in choices.values()} == {"cudnn"}
    for name, wanted in interpret(graph, given).items():
        np.testing.assert_array_equal(outputs[name], wanted, err_msg=str(graph[name.replace("y", "layer")]))  # fmt: skip
    return story


def test_only_what_is_packed_is_charged_for():
    problem = Problem(LAST[0], constant_weight=False)
    usual = ALGORITHM.knobs(problem, TARGET)
    first, last = ({**usual, "channels_last": order} for order in (0, 1))
    assert packing.compute("cudnn", problem, TARGET, first) is None
    assert packing.cycles("cudnn", problem, TARGET, first) == 0
    constant = replace(problem, constant_weight=True)
    charged = [
        estimated_seconds(ALGORITHM, problem, TARGET, knobs)
        - estimated_seconds(ALGORITHM, constant, TARGET, knobs)
        for knobs in (first, last)
    ]
    assert charged[0] == 0
    assert charged[1] > 0


def test_a_sample_of_the_grid():
    """Channels first the call takes the weights as they are: nothing else runs."""
    graph, given = convolutions(sampled(24))
    planned = plan_graph(graph, TARGET, Wishes.of(cudnn="require"), "").plan
    assert {call.op for call in emit(graph, planned, TARGET).calls} == {"conv", "conv_transpose"}
    assert run(graph, given).count("run ") == 24


@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_channels_last_a_kernel_brings_the_weights_there(dtype):
    graph, given = convolutions([replace(spec, dtype=dtype) for spec in LAST])
    planned = plan_graph(graph, TARGET, Wishes.of(cudnn="require"), "").plan
    calls = emit(graph, planned, TARGET).calls
    packed = {c.node: c.arguments[1].view.shape for c in calls if c.op == "pack"}
    assert packed == {
        "layer0": (16, 3, 3, 8),
        "layer1": (16, 2, 3, 8),
        "layer2": (8, 1, 3, 8),
        "layer3": (8, 2, 3, 2, 8),
        "layer4": (16, 3, 3, 8),
        "layer5": (8, 1, 3, 8),
    }
    assert run(graph, given).count("run ") == len(LAST)


def step(dtype: str) -> Graph:
    """Two layers, the second strided, the gradients of weights and of the data; the second's weights are computed."""
    x = cc.input("x", (2, 8, 7, 6), dtype)
    w, v, mask = (cc.input(n, (8, 8, 3, 3), dtype) for n in ("w", "v", "mask"))
    h = cc.relu(cc.conv2d(x, w, pads=1, name="first"))
    y = cc.conv2d(h, v * mask, strides=2, pads=1, name="second")
    dx, dw, dv = cc.grad(cc.sum(y), [x, w, v])
    return cc.graph({"y": y, "dx": dx, "dw": dw, "dv": dv}, name="step")


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float16"])
def test_a_training_step(dtype):
    """Forward, the data's gradient and the weights' by cuDNN; where the device refuses one or all convc's own, to the same numbers."""
    graph = step(dtype)
    rng = np.random.default_rng(0)
    given = {n.name: rng.integers(-1, 2, n.type.shape).astype(dtype) for n in graph.inputs}
    expected = interpret(graph, given)
    options = {"target": "cuda -arch=sm_90", "cudnn": "prefer"}
    layers = {n.name for n in graph.nodes if n.op in ("conv", "conv_transpose", "conv_weight_grad")}
    assert {graph[n].op for n in layers} == {"conv", "conv_transpose", "conv_weight_grad"}
    assert len(layers) == 6
    for failures, refused in (
        ([("cudnnBackendExecute", 0, 3000)], {"first"}),
        ([("cudnnBackendExecute", -1, 3000)], layers),
    ):
        said: Any = worker().call("tests.cudnn.candidate:loaded", graph, options, given, failures)
        for name, wanted in expected.items():
            np.testing.assert_array_equal(said["outputs"][name], wanted, err_msg=name)
        assert {f.layer for f in said["prepared"].fallbacks} == refused
        assert {n for n in layers if said["ran"][n][0] == "cudnn"} == layers - refused
