"""Tensor cores: which precision is whose, and the fragments' order against the instruction's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.cuda.backend import BACKEND
from convc.schedules.error_bound import EPS
from convc.schedules.offers import admissible, offers_of
from convc.schedules.plan import Unsupported
from convc.schedules.policy import Policy
from convc.schedules.tuned import Measurement
from convc.target import parse_target
from tests.cuda_emulation.emulation import Case, run_cases
from tests.schedules.cuda.cuda_convolutions import TARGET, Trial, scheduled

LAYER = ConvSpec.of((8, 64, 14, 14), (64, 64, 3, 3), pads=(1, 1, 1, 1))
GROUPS = ConvSpec.of((8, 64, 14, 14), (32, 16, 3, 3), pads=(1, 1, 1, 1), group=4)


def allowed(policy: Policy, records=()) -> set[str]:
    known = {Problem(LAYER).key: tuple(records)} if records else {}
    return {o.algorithm for o in admissible(offers_of(Problem(LAYER), TARGET, policy, known), policy)}  # fmt: skip


def test_tf32_is_only_for_those_who_name_it():
    knobs = BACKEND.algorithm("tf32").knobs(Problem(LAYER), TARGET)
    record = Measurement("tf32", knobs, 1e-9, 1e-7)
    assert "tf32" not in allowed(Policy())
    assert "tf32" not in allowed(Policy(), [record])
    assert "tf32" in allowed(Policy(require=("tf32",)))
    assert "tf32" not in allowed(Policy(prefer=("tf32",), max_error=1e-5))


def test_float32_is_multiplied_three_times():
    for name, math in (("tensor_core", 3), ("tf32", 1)):
        settings = BACKEND.algorithm(name).space(Problem(LAYER), TARGET)
        assert {s["math"] for s in settings} == {math}


@pytest.mark.parametrize(
    ("problem", "arch", "reason"),
    [
        (Problem(LAYER), "75", "sm must be at least 80 for tensor cores; got 75"),
        (
            Problem(replace(LAYER, dtype="float64")),
            "90",
            "element type must be float32, float16, bfloat16; got float64",
        ),
        (
            Problem(GROUPS),
            "90",
            "output channels of a group or phase must be a multiple of 16; got 8",
        ),
        (Problem(LAYER, accumulate="float64"), "90", "sums must be of float32; got float64"),
    ],
)
def test_what_it_does_not_take_has_a_reason(problem, arch, reason):
    answer = BACKEND.algorithm("tensor_core").supports(problem, parse_target(f"cuda -arch={arch}"))
    assert isinstance(answer, Unsupported)
    assert answer.reason.startswith(reason)


def test_three_products_are_as_exact_as_float32_where_one_is_not():
    """Data and weights of one sign and a long sum: what is cut off adds up, and sums in the tensor core alone would show it."""
    spec = ConvSpec.of((1, 512, 4, 4), (32, 512, 3, 3), pads=(1, 1, 1, 1))
    rng = np.random.default_rng(7)
    x, w = (rng.random(shape, dtype=np.float32) for shape in (spec.data, spec.weight))
    expected = np.zeros(spec.output)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for r in range(3):
        for s in range(3):
            expected += np.einsum("nchw,kc->nkhw", padded[:, :, r : r + 4, s : s + 4], w[:, :, r, s].astype(np.float64))  # fmt: skip
    errors = {}
    trials = [Trial(name, spec) for name in ("tensor_core", "direct", "tf32")]
    packed = [BACKEND.algorithm(t.algorithm).pack(w, t.problem, t.setting) for t in trials]
    outcomes = run_cases([Case(scheduled(t), (x, p)) for t, p in zip(trials, packed, strict=True)])
    for trial, outcome in zip(trials, outcomes, strict=True):
        assert not outcome.error
        errors[trial.algorithm] = float(np.max(np.abs(outcome.outputs[0] - expected) / expected))
    assert errors["tensor_core"] <= 4 * EPS
    assert errors["tensor_core"] <= errors["direct"]
    assert errors["tf32"] > 16 * errors["tensor_core"]
