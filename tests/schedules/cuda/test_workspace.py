"""What a plan says that a layer needs beside its tensors, and what its kernels really hand each other on the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm

from convc.explaining import CandidateReport, explain
from convc.ir import ConvSpec, GraphBuilder, TensorType
from convc.lowering.emit import emit
from convc.planning import Wishes, plan_graph
from convc.schedules.algorithm import Problem, knob_space
from convc.schedules.cuda import compiler
from convc.schedules.cuda.backend import BACKEND
from convc.schedules.findings import collect
from convc.schedules.policy import Policy
from convc.schedules.properties import properties_of
from tests.schedules.conv_module import conv_node
from tests.schedules.cuda.cuda_convolutions import TARGET, Trial, scheduled

# Few points, long sums, of channels that fill no tile; of stride 1, too.
LONG = ConvSpec.of((1, 200, 5, 7), (72, 200, 3, 3), pads=(1, 1, 1, 1))


def split(name: str, dtype: str = "float32") -> Trial:
    problem = Problem(replace(LONG, dtype=dtype))
    knobs = next(k for k in knob_space(BACKEND.algorithm(name), problem, TARGET) if k["split"] > 1)
    return Trial(name, problem.spec, knobs=knobs)


def taken(trial: Trial) -> int:
    """Return the bytes that the kernels of a layer hand each other."""
    with collect() as found:
        func = scheduled(trial).with_attr("global_symbol", "layer")
        compiler.build(tvm.IRModule({"layer": func}), TARGET)
    return found.workspace_bytes


FIRST = ConvSpec.of((2, 3, 15, 13), (24, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3), dtype="float16")  # fmt: skip
FEW = (
    split("direct"),
    split("tensor_core_blocked", "bfloat16"),
    Trial("fft", LONG),
    Trial("tensor_core_folded", FIRST),
)
MORE = (
    split("direct", "float64"), split("tensor_core"), split("tensor_core", "float16"), split("tf32"), Trial("winograd", LONG),
    Trial("direct", replace(LONG, data=(8, 200, 32, 32))),
)  # fmt: skip


@pytest.mark.parametrize(
    "trial", [*FEW, *(pytest.param(t, marks=pytest.mark.slow) for t in MORE)], ids=str
)
def test_kernels_take_what_the_plan_says(trial):
    facts = properties_of(BACKEND.algorithm(trial.algorithm), trial.problem, TARGET, trial.setting)
    weights = 0
    if trial.algorithm in ("winograd", "fft"):
        # All of U, which lies among the weights.
        packed = BACKEND.algorithm(trial.algorithm).pack(np.ones(LONG.weight, np.float32), trial.problem, trial.setting)  # fmt: skip
        weights = packed.nbytes
    elif trial.setting.get("split", 1) > 1 or trial.algorithm == "tensor_core_folded":
        assert facts.workspace > 0
    # Each piece begins at a multiple of 64 bytes.
    assert 0 <= taken(trial) - (facts.workspace - weights) < 128


def layer(constant: bool):
    b = GraphBuilder("g")
    x = b.input("x", TensorType(LONG.data))
    if constant:
        w = b.constant(np.ones(LONG.weight, np.float32))
    else:
        w = b.input("w", TensorType(LONG.weight))
    return b.finish({"y": conv_node(b, x, w, LONG, name="layer")})


def rows(constant: bool, policy: Policy) -> dict[str, CandidateReport]:
    (report,) = explain(layer(constant), target="cuda -arch=sm_90", policy=policy, logs=())
    return {c.algorithm: c for c in report.candidates}


def row(algorithm: str, constant: bool, policy: Policy) -> CandidateReport:
    return rows(constant, policy)[algorithm]


def needed(report: CandidateReport) -> int:
    assert report.workspace_bytes is not None
    return report.workspace_bytes


@pytest.mark.parametrize(
    "algorithm", ["direct", pytest.param("tensor_core", marks=pytest.mark.slow)]
)
def test_explain_and_a_limit_count_split_sums(algorithm):
    only = Policy(require=(algorithm,))
    free = row(algorithm, True, only)
    assert free.chosen
    assert needed(free) > 0
    bounded = row(algorithm, True, replace(only, workspace_limit=needed(free) - 1))
    assert bounded.chosen
    assert 0 <= needed(bounded) < needed(free)
    assert needed(row(algorithm, True, replace(only, workspace_limit=0))) == 0


def test_explain_and_a_limit_count_weights_packed_at_run_time():
    free = Policy(require=("direct",))
    planned = plan_graph(layer(False), TARGET, Wishes(policy=free, logs=()), "").plan
    (packing,) = (c for c in emit(layer(False), planned, TARGET).calls if c.op == "pack")
    nbytes = 4 * int(np.prod(packing.arguments[1].view.shape))
    late, constant = (needed(row("direct", c, free)) for c in (False, True))
    assert late >= nbytes > 0
    assert constant < nbytes
    none = rows(False, Policy(workspace_limit=0))
    assert none["direct"].reason.startswith("workspace must be at most 0 bytes; got ")
    assert none["generic"].chosen
