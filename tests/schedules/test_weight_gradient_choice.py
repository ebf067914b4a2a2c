"""Weight gradients by record: the choice, its reasons, and what bounds it. Nothing is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from convc.errors import ShapeError
from convc.ir import ConvSpec
from convc.ir.text import parse
from convc.lock import lock_of, read_lock
from convc.runtime.libraries.cudnn import POLICIES
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.cuda import cudnn_weight_gradient
from convc.schedules.plan import Choice
from convc.schedules.policy import Policy
from convc.schedules.select import select
from convc.schedules.tuned import Measurement, geometries
from convc.schedules.weight_gradient_choice import choose_weight_gradient
from convc.schedules.weight_gradient_problem import WEIGHT_GRADIENT, WeightGradientProblem
from convc.schedules.weight_gradients import gradient_space, weight_gradient_named
from convc.target import Target, parse_target

AVX512 = Target("llvm", "x86_64-linux-gnu", "x86-64-v4", (), 16, 32)
H200 = parse_target("cuda -arch=sm_90")
DENSE = ConvSpec.of((8, 64, 28, 28), (64, 64, 3, 3), pads=(1, 1, 1, 1))
PROBLEM = WeightGradientProblem(DENSE)


def measured(
    target: Target, rows: Mapping[str, tuple[float, Mapping[str, int]]], error: float = 1e-7
):
    """Return records of `PROBLEM`: row -> seconds, and what is changed in its analytic choice."""
    found = []
    for name, (seconds, changed) in rows.items():
        own = {} if name == "plain" else weight_gradient_named(name, target).knobs(DENSE, target)
        found.append(Measurement(name, {**own, **changed}, seconds, error))
    return {PROBLEM.key: tuple(sorted(found, key=lambda m: m.seconds))}


def chosen(target: Target, records, spec: ConvSpec = DENSE, **options) -> Choice:
    return choose_weight_gradient(spec, target, records=records, **options)


def test_a_problem_has_a_name_of_its_own_and_is_found_by_it():
    for problem in (PROBLEM, WeightGradientProblem(replace(DENSE, dtype="float16"), "float16")):
        assert WeightGradientProblem.parse(problem.key) == problem
        records = {problem.geometry.key: (), problem.key: ()}
        # No record of a convolution is taken for one of its gradient, nor the other way round.
        assert geometries(records) == [(problem.geometry.key, problem.geometry)]
        assert geometries(records, WEIGHT_GRADIENT) == [(problem.key, problem.geometry)]
    with pytest.raises(ShapeError, match="must begin with 'weight_gradient:'; got 'conv2d-f32"):
        WeightGradientProblem.parse(Problem(DENSE).key)


def test_the_fastest_record_is_taken_whatever_is_estimated():
    usual = choose_weight_gradient(DENSE, AVX512)
    assert (usual.algorithm, usual.source, usual.because) == ("blocked", "estimate", "")
    records = measured(
        AVX512, {"blocked": (4e-3, {"points": 4, "vectors": 1}), "plain": (2e-3, {})}
    )
    found = chosen(AVX512, records)
    assert (found.algorithm, found.source, dict(found.knobs)) == ("plain", "record", {})
    assert found.reason == "measured 2.00 x faster than blocked"
    rows = {c.algorithm: c for c in found.candidates}
    assert (rows["blocked"].reason, rows["blocked"].seconds) == ("tuned record", 4e-3)
    assert {**rows["blocked"].knobs}.items() >= {"points": 4, "vectors": 1}.items()
    # A pin takes its row's best record, too.
    pinned = chosen(AVX512, records, pinned="blocked", by="--algo-for dw")
    assert (pinned.source, pinned.knobs["points"]) == ("record", 4)
    assert chosen(AVX512, records, policy=Policy(by="heuristic")) == usual
    alone = chosen(AVX512, measured(AVX512, {"blocked": (4e-3, {"points": 4})}))
    assert (alone.algorithm, alone.reason) == ("blocked", "measured; the others have no records")


def test_a_record_must_fit_the_policy_and_the_rows_knobs():
    """Too inexact, over the limit, of knobs that the row does not have: as if there were none, and said."""
    fast = {"blocked": (1e-9, {"points": 4})}
    inexact = chosen(AVX512, measured(AVX512, fast, error=2e-5))
    assert (inexact.source, inexact.because) == ("estimate", f"no record for {PROBLEM.key}")
    foreign = chosen(AVX512, measured(AVX512, {"blocked": (1e-9, {"turns": 2})}))
    assert foreign.source == "estimate"
    assert "turns" not in foreign.knobs
    bounded = chosen(AVX512, measured(AVX512, fast), policy=Policy(workspace_limit=0))
    assert (bounded.algorithm, bounded.source) == ("plain", "estimate")
    without = chosen(AVX512, measured(AVX512, fast), policy=Policy(exclude=("blocked",)))
    assert without.algorithm == "plain"
    sums = chosen(AVX512, measured(AVX512, fast), accumulate="float64")
    assert (sums.algorithm, sums.source) == ("plain", "estimate")
    # On a device fewer parts of the sum keep to a limit that a record's do not.
    row = weight_gradient_named("direct", H200)
    many, one = (next(k for k in gradient_space(row, DENSE, H200) if k["split"] == n) for n in (8, 1))  # fmt: skip
    records = measured(H200, {"direct": (1e-9, many), "plain": (1e-3, {})})
    assert chosen(H200, records).knobs == many
    records = {PROBLEM.key: (*records[PROBLEM.key], Measurement("direct", one, 2e-9, 1e-7))}
    least = chosen(H200, records, policy=Policy(workspace_limit=row.properties(DENSE, one).workspace))  # fmt: skip
    assert (least.knobs, least.source) == (one, "record")


def test_a_like_gradients_record_corrects_the_estimate():
    wider = replace(DENSE, data=(8, 64, 56, 28))
    records = measured(
        AVX512, {"blocked": (1e-9, {"points": 4, "vectors": 1}), "plain": (5e-2, {})}
    )
    near = chosen(AVX512, records, wider)
    assert (near.algorithm, near.source) == ("blocked", "neighbour")
    assert (near.knobs["points"], near.knobs["vectors"]) == (4, 1)
    assert near.reason.startswith("by a like gradient ")
    assert near.because == f"no record for {WeightGradientProblem(wider).key}"
    assert chosen(AVX512, records, wider, policy=Policy(when="per_shape")).source == "estimate"
    # A convolution's record is no gradient's.
    records = {PROBLEM.geometry.key: records[PROBLEM.key]}
    assert chosen(AVX512, records, wider).source == "estimate"


def test_cudnn_by_record_with_convcs_own_beside_it():
    usual = choose_weight_gradient(DENSE, H200)
    engine = {"policy": POLICIES.index("time"), "engine": 28, "setting_17": 8}
    records = measured(H200, {"cudnn": (1e-6, engine), "direct": (3e-6, {}), "tensor_core": (2e-6, {})})  # fmt: skip
    found = chosen(H200, records)
    assert (found.algorithm, found.source) == ("cudnn", "record")
    assert found.reason == "measured 2.00 x faster than tensor_core"
    assert {**found.knobs}.items() >= engine.items()
    assert found.otherwise is not None
    assert (found.otherwise.algorithm, found.otherwise.source) == ("tensor_core", "record")
    assert found.otherwise.reason == "for devices whose cudnn refuses it; tuned record"
    assert chosen(H200, records, policy=Policy(fallback=False)).otherwise is None
    assert chosen(H200, records, policy=Policy(exclude=("cudnn",))).algorithm == "tensor_core"
    # What adds up in any order is not what a policy that says so wants.
    steady = chosen(H200, records, policy=Policy(deterministic=True))
    assert steady.algorithm == "tensor_core"
    # A pin in a way of its own takes nothing of a record's engine.
    way = chosen(H200, records, pinned="cudnn:small", by="--algo-for dw")
    assert (way.knobs["engine"], way.knobs["policy"]) == (-1, POLICIES.index("small"))
    assert "setting_17" not in way.knobs
    # A record from before there was a choice of engines.
    old = {n: v for n, v in cudnn_weight_gradient.knobs(DENSE, H200).items() if n not in cudnn_weight_gradient.before}  # fmt: skip
    records = {PROBLEM.key: (Measurement("cudnn", old, 1e-6, 1e-7),)}
    assert chosen(H200, records).knobs == cudnn_weight_gradient.knobs(DENSE, H200)
    assert usual.algorithm != "cudnn"


STEP = """graph @g { %x = input : f32[8,64,28,28]  %g = input : f32[8,64,28,28]
  %dw = conv_weight_grad(%x, %g) {kernel = [3, 3], pads = [1, 1, 1, 1]}  return %dw }"""


@pytest.mark.parametrize(
    ("target", "name", "changed"),
    [
        (AVX512, "blocked", {"points": 4}),
        (H200, "cudnn", {"engine": 28, "setting_17": 8}),
    ],
    ids=["llvm", "cuda"],
)
def test_a_plan_counts_it_as_tuned_and_a_lock_has_it(target, name, changed, tmp_path):
    graph = parse(STEP)
    assert [n for n, _ in select(graph, target).untuned] == ["dw"]
    plan = select(graph, target, records=measured(target, {name: (1e-9, changed)}))
    assert plan.untuned == ()
    assert (plan["dw"].algorithm, plan["dw"].source) == (name, "record")
    lock_of(graph, plan, target, "sha", {}).write(tmp_path / "convc.lock")
    again = read_lock(tmp_path / "convc.lock").plan(graph, target, "sha")["dw"]
    assert (again.algorithm, again.source, dict(again.knobs)) == (name, "lock", dict(plan["dw"].knobs))  # fmt: skip
    assert (again.otherwise is None) == (plan["dw"].otherwise is None)


HALF = """graph @g {{ %x = input : f16[8,64,28,28]  %w = constant splat(0.5) : f16[64,64,3,3]  %v = constant splat(0.5) : f16[64,64,3,3]
  %h = conv(%x, %w) {{pads = [1, 1, 1, 1]}}  %y = conv(%h, %v) {{pads = [1, 1, 1, 1]}}
  %dh = conv_transpose(%y, %v) {{pads = [1, 1, 1, 1]}}
  %dw = conv_weight_grad(%{data}, %{gradient}) {{kernel = [3, 3], pads = [1, 1, 1, 1]}}  return %dh, %dw }}"""


@pytest.mark.parametrize(
    ("algo", "data", "copies"),
    [
        ("tensor_core_blocked", "h", {"tensor_core_blocked": 0, "tensor_core": 2, "plain": 2}),
        ("tensor_core_blocked", "x", {"tensor_core_blocked": 0, "tensor_core": 1, "plain": 1}),
        ("tensor_core", "h", {"tensor_core_blocked": 2, "tensor_core": 0, "plain": 0}),
    ],
)
def test_on_a_device_copies_of_operands_in_another_order_are_added(algo, data, copies):
    """By what the convolutions that write and read them have chosen: what one of them reads is in its order for others, too."""
    graph = parse(HALF.format(data=data, gradient="y"))
    found = {c.algorithm: c.seconds for c in select(graph, H200, algo=algo)["dw"].candidates}
    alone = {c.algorithm: c.seconds for c in choose_weight_gradient(replace(DENSE, dtype="float16"), H200).candidates}  # fmt: skip
    copy = backend_of(H200).copy_seconds(graph["x"].type, H200)
    added = {name: (found[name] - alone[name]) / copy for name in copies}
    assert added == pytest.approx(copies)
