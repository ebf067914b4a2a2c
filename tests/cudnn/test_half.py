"""Layers in half precision through cuDNN: whatever their bias is in, with and without a residual, channels last and first."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from convc.errors import DTypeError
from convc.frontend import dsl as cc
from convc.ir import ConvSpec, Graph, Step
from convc.ir.passes import PIPELINE, run_passes
from convc.ir.passes.convert_floats import convert_floats
from convc.ir.reference import interpret
from convc.lowering.emit import emit
from convc.planning import Wishes, plan_graph
from convc.schedules.algorithm import Problem
from convc.schedules.cuda.cudnn import ALGORITHM
from convc.target import parse_target
from tests.cuda_emulation.emulation import worker
from tests.schedules.conv_module import Case

TARGET = parse_target("cuda -arch=sm_90")
EPILOGUES = ("bias",), ("bias", "relu"), ("bias", "add", "relu"), ("bias", "clip(0.0, 6.0)")


@pytest.mark.parametrize("epilogues", [EPILOGUES[2:], pytest.param(EPILOGUES[:2], marks=pytest.mark.slow)])  # fmt: skip
def test_a_bias_in_either_type_inside_the_call(epilogues):
    """The bias of a layer in half precision is float32 with `--dtype fp16`, half in a model that is so itself."""
    cases = []
    for dtype, wide, last in itertools.product(("float16", "bfloat16"), (False, True), (0, 1)):
        spec = ConvSpec.of((1, 8, 5, 5), (8, 8, 3, 3), pads=(1, 1, 1, 1), dtype=dtype)
        knobs = {**ALGORITHM.knobs(Problem(spec), TARGET), "channels_last": last}
        for names in epilogues:
            steps = tuple(map(Step.parse, names))
            cases.append(Case("cudnn", spec, steps, tuple(knobs.items()), wide))
    found, story = worker().call("tests.cudnn.candidate:conv_results", cases, TARGET, True)
    for result in found:
        # Sums of 72 products of whole numbers are exact in float32 and rounded once.
        np.testing.assert_array_equal(result.actual, result.expected, err_msg=str(result.case))
    assert story.count("run ") == 2 * len(cases)


def net(bias: float) -> Graph:
    x = cc.input("x", (1, 8, 6, 6))
    rng = np.random.default_rng(0)
    w = rng.integers(-1, 2, (8, 8, 3, 3)).astype(np.float32)
    b = np.full(8, bias, np.float32)
    h = cc.relu(cc.conv2d(x, w, b, pads=1, name="first"))
    return cc.graph({"y": cc.relu(cc.conv2d(h, w, b, pads=1, name="second") + h)}, name="net")


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_model_in_half_precision(dtype):
    """Biases, a residual, activations: all of it in two calls of cuDNN."""
    image = np.random.default_rng(1).integers(-1, 2, (1, 8, 6, 6)).astype(np.float32)
    options = {"target": "cuda -arch=sm_90", "cudnn": "require", "dtype": dtype}
    outputs, choices, story = worker().call(
        "tests.cudnn.candidate:compile_and_run", net(1.0), options, {"x": image}
    )
    expected = interpret(net(1.0), {"x": image})["y"]
    # The first layer's results are whole numbers below 64, exact in both types; the second's are rounded once.
    steps = 2.0**-8 if dtype == "bf16" else 2.0**-11
    np.testing.assert_allclose(outputs["y"], expected, rtol=steps)
    assert {algorithm for algorithm, _ in choices.values()} == {"cudnn"}
    assert story.count("run ") == 2


def halved(bias: np.ndarray | cc.Tensor) -> Graph:
    """One 1x1 layer that hands on what it reads, plus a bias, as `--dtype fp16` makes it: its bias stays float32."""
    x = cc.input("x", (1, 8, 1, 1))
    w = np.eye(8, dtype=np.float32)[:, :, None, None]
    graph = cc.graph({"y": cc.conv2d(x, w, bias, name="only")}, name="net")
    return convert_floats(run_passes(graph, PIPELINE), "fp16")


def test_a_float32_bias_is_rounded_and_the_step_says_so():
    """cuDNN has no engine that is compiled beforehand for a float32 bias in half precision."""
    b = np.full(8, 1 + 2.0**-13, np.float32)
    given = {"x": np.full((1, 8, 1, 1), -1.0, np.float32)}
    for bias in (b, cc.input("b", (8,))):
        graph = halved(bias)
        plan = plan_graph(graph, TARGET, Wishes.of(cudnn="require"), "").plan
        (call,) = (c for c in emit(graph, plan, TARGET).calls if c.algorithm == "cudnn")
        assert call.reason.endswith("; bias rounded to float16: cuDNN's engines take no other")
        assert [a.view.dtype for a in call.arguments] == ["float16"] * 4
    # The second one's bias comes at run time.
    options = {"target": "cuda -arch=sm_90", "cudnn": "require"}
    outputs, _, _ = worker().call(
        "tests.cudnn.candidate:compile_and_run", graph, options, {**given, "b": b}
    )
    np.testing.assert_array_equal(outputs["y"], np.zeros((1, 8, 1, 1), np.float32))


def test_a_bias_that_is_too_large_for_the_type_is_an_error():
    graph = halved(np.full(8, 1e5, np.float32))
    plan = plan_graph(graph, TARGET, Wishes.of(cudnn="require"), "").plan
    with pytest.raises(DTypeError, match="must be at most 65504 to be float16; got 100000"):
        emit(graph, plan, TARGET)
