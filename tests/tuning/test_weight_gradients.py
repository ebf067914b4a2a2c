"""Weight gradients as subjects of the tuner: what is tried, on this CPU and on the emulated device, and what is written down."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from convc.cli import invoke
from convc.compiler import compile
from convc.errors import UnknownNameError, UnsupportedConvError
from convc.explaining import explain
from convc.ir import ConvSpec, GraphBuilder, TensorType
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes
from convc.ir.reference import interpret
from convc.ir.text import parse
from convc.runtime.libraries.cudnn import POLICIES
from convc.runtime.libraries.cudnn.find import VARIABLE
from convc.schedules.backend import backend_of
from convc.schedules.cuda import compiler
from convc.schedules.policy import Policy
from convc.schedules.weight_gradient_problem import WeightGradientProblem
from convc.schedules.weight_gradients import gradient_properties, gradient_space
from convc.target import parse_target
from convc.tuning.calibration import calibration
from convc.tuning.jobs import Build, Setup, Time
from convc.tuning.knowledge import knowledge
from convc.tuning.log import Log
from convc.tuning.options import Options
from convc.tuning.pool import Limits, Pool
from convc.tuning.session import Session
from convc.tuning.subjects import subject_of
from convc.tuning.tasks import Task, tasks_of
from tests.cuda_emulation.emulation import Case, run_cases
from tests.cudnn.double_library import build_double
from tests.lowering.test_weight_gradient import SPECS
from tests.tolerance import assert_exact
from tests.tuning.records import AVX512, LIMITS, record

HOST = parse_target(cores=1)
H200 = parse_target("cuda -arch=sm_90")
DENSE = ConvSpec.of((2, 16, 6, 7), (32, 16, 3, 3), pads=(1, 1, 1, 1))
DEPTHWISE = ConvSpec.of((2, 16, 6, 7), (16, 1, 3, 3), pads=(1, 1, 1, 1), group=16)
# Of 401 408 terms a sum.
LONG = ConvSpec.of((32, 64, 112, 112), (64, 64, 3, 3), pads=(1, 1, 1, 1))

STEP = """graph @step { %x = input : f32[2,16,6,7]  %g = input : f32[2,32,6,7]  %v = input : f32[2,32,6,7]
  %w = input : f32[32,16,3,3]  %y = conv(%x, %w) {pads = [1, 1, 1, 1]}
  %one = conv_weight_grad(%x, %g) {kernel = [3, 3], pads = [1, 1, 1, 1]}
  %two = conv_weight_grad(%x, %v) {kernel = [3, 3], pads = [1, 1, 1, 1], accumulate = "float32"}
  return %y, %one, %two }"""


def settings(spec: ConvSpec, target=AVX512, **policy):
    return subject_of(WeightGradientProblem(spec)).settings(target, Policy(**policy))


def test_a_training_steps_gradients_are_tasks_beside_its_convolutions():
    tasks = tasks_of(parse(STEP))
    # Both gradients are one: the usual sums are what is said by name, too.
    assert [t.layers for t in tasks] == [("y",), ("one", "two")]
    assert tasks[1].problem == WeightGradientProblem(DENSE)
    assert [t.layers for t in tasks_of(parse(STEP), "tw*")] == [("two",)]
    with pytest.raises(UnknownNameError, match="unknown layer 'three'"):
        tasks_of(parse(STEP), "three")


def test_settings_keep_the_policy():
    for spec, name in ((DENSE, "blocked"), (DEPTHWISE, "grouped")):
        rows = settings(spec)
        assert {s.algorithm for s in rows} == {name, "plain"}
        assert len({s.key for s in rows}) == len(rows) > 10
        assert [s.seconds for s in rows] == sorted(s.seconds for s in rows)
        # Plain loops are always left; a list of what to include that names no row is about convolutions.
        assert {s.algorithm for s in settings(spec, exclude=(name,))} == {"plain"}
        assert {s.algorithm for s in settings(spec, workspace_limit=0)} == {"plain"}
        assert settings(spec, include=("winograd",)) == rows
    on_device = settings(LONG, H200)
    assert {s.algorithm for s in on_device} == {"tensor_core", "direct", "cudnn", "plain"}
    assert {s.algorithm for s in settings(LONG, H200, include=("direct",))} == {"direct", "plain"}
    # Of one part each sum is one chain, too long for a record to be chosen; a library's own search is measured anyway.
    assert min(s.knobs["split"] for s in on_device if s.algorithm == "direct") > 1
    assert {s.knobs["policy"] for s in on_device if s.algorithm == "cudnn"} == {POLICIES.index("time")}  # fmt: skip
    assert all(s.always == (s.algorithm == "cudnn") for s in on_device)
    bound = {"deterministic": True, "workspace_limit": 8 << 20}
    kept = settings(replace(LONG, data=(1, 64, 28, 28)), H200, **bound)
    assert {s.algorithm for s in kept} == {"tensor_core", "direct", "cudnn", "plain"}
    assert all(s.knobs["deterministic"] for s in kept if s.algorithm == "cudnn")
    needed = [gradient_properties(s.algorithm, replace(LONG, data=(1, 64, 28, 28)), s.knobs, H200).workspace for s in kept]  # fmt: skip
    assert 0 < max(needed) <= 8 << 20


def test_any_setting_of_the_space_computes_the_gradient(tmp_path):
    """Chosen by records of one random setting each, not the analytic one; bit-exact on whole numbers."""
    rng, pick = np.random.default_rng(0), random.Random(0)
    b, outputs, inputs, rows = GraphBuilder("gradients"), {}, {}, []
    for i, spec in enumerate(SPECS[1::2]):
        names = [b.input(f"{n}{i}", TensorType(s)) for n, s in (("x", spec.data), ("dy", spec.output))]  # fmt: skip
        for name, shape in zip(names, (spec.data, spec.output), strict=True):
            inputs[name] = rng.integers(-4, 5, shape).astype(np.float32)
        attributes = ConvWeightGradAttributes(spec.kernel, spec.strides, spec.pads, spec.dilations, spec.group)  # fmt: skip
        outputs[f"dw{i}"] = b.add("conv_weight_grad", names, attributes)
        row = next(r for r in backend_of(HOST).weight_gradients if r.supports(spec, HOST) is None)
        usual, *others = gradient_space(row, spec, HOST)
        knobs = dict(pick.choice(others or [usual]))
        rows.append(record(row.NAME, 1e-9, HOST, workload=WeightGradientProblem(spec).key, knobs=knobs))  # fmt: skip
    graph, log = b.finish(outputs), Log(tmp_path / "log.jsonl")
    log.append(rows)
    model = compile(graph, threads=1, logs=[log.path], require_tuned=True)
    assert [dict(c.knobs) for c in model.plan.gradients.values()] == [r.knobs for r in rows]
    found, expected = model.run(inputs), interpret(graph, inputs)
    for name in outputs:
        assert_exact(found[name], expected[name])


def test_every_row_is_built_checked_and_timed_in_a_worker():
    """Of several float types, where blocks are padded and where they are whole; a row that refuses is an answer, too."""
    line = ConvSpec.of((3, 5, 9), (6, 5, 3), strides=(2,), pads=(1, 2), dtype="float64")
    jobs = []
    for spec in (replace(DENSE, dtype="bfloat16"), DEPTHWISE, line):
        problem = WeightGradientProblem(spec)
        fastest = subject_of(problem).settings(HOST, Policy())
        names = dict.fromkeys(s.algorithm for s in fastest)
        for name in names:
            setting = next(s for s in fastest if s.algorithm == name)
            jobs.append(Build(len(jobs), problem, HOST, name, setting.knobs))
    odd = WeightGradientProblem(DENSE, "float64")
    jobs.append(Build(len(jobs), odd, HOST, "plain", {}))
    jobs.append(Build(len(jobs), odd, HOST, "blocked", {}))
    with Pool(Setup(HOST, 2 << 30), 1, Limits(build=60, time=60)) as pool:
        answers = pool.build(jobs, lambda: False)
        *good, refusal = answers.values()
        assert [a.status for a in good] == ["ok"] * len(good)
        assert max(a.error for a in good) < 1e-6
        assert refusal.status == "build_error"
        assert "accumulate must be float32; got float64" in refusal.message
        timed = pool.time(Time(jobs[0].handle, 2, 1e-3))
        assert (timed.status, len(timed.samples)) == ("ok", 2)
    with pytest.raises(UnsupportedConvError, match="'grouped' must take weight_gradient:conv2d"):
        subject_of(WeightGradientProblem(DENSE)).case(0).ready(HOST, "grouped", {})


def test_a_gradients_search_begins_at_a_like_ones_best(tmp_path):
    log, wide = Log(tmp_path / "log.jsonl"), replace(DENSE, data=(2, 16, 12, 7))
    row = backend_of(AVX512).weight_gradients[0]
    knobs = dict(gradient_space(row, wide, AVX512)[-1])
    log.append([record("blocked", 1e-6, AVX512, workload=WeightGradientProblem(wide).key, knobs=knobs)])  # fmt: skip
    session = Session([Task(WeightGradientProblem(DENSE), ("dw",))], AVX512, log, LIMITS, Options())
    assert session.layers[0].search.seeds == [("blocked", tuple(sorted(knobs.items())))]


def test_a_step_is_tuned_explained_and_locked_by_the_verbs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convc.tuning.calibration.calibration", lambda *_: LIMITS)
    (tmp_path / "step.cvc").write_text(STEP)

    def run(*arguments: str) -> dict:
        capsys.readouterr()
        assert invoke([*arguments, "--threads", "1", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    tune = ("tune", "step.cvc", "--layers", "one", "--log", "log.jsonl")
    (task,) = run(*tune, "--list-tasks")["tasks"]
    assert (task["workload"], task["layers"]) == (WeightGradientProblem(DENSE).key, ["one"])
    done = run(*tune, "--trials-per-layer", "2", "--time", "none", "--algos", "blocked", "--jobs", "1")  # fmt: skip
    assert (set(done["trials"]), done["done"]) == ({"ok"}, True)
    layers = {r["node"]: r for r in run("explain", "step.cvc", "--log", "log.jsonl")["layers"]}
    row = next(c for c in layers["two"]["candidates"] if c["chosen"])
    assert row["algorithm"] == "blocked"
    assert row["reason"] == "measured; the others have no records"
    assert row["estimate_seconds"] == knowledge(HOST, [tmp_path / "log.jsonl"]).records[task["workload"]][0].seconds  # fmt: skip
    (report,) = (r for r in explain(tmp_path / "step.cvc", threads=1, logs=[]) if r.node == "one")
    assert next(c for c in report.candidates if c.chosen).reason.startswith("estimated ")


def test_the_devices_rows_are_checked_with_the_cases_data():
    """Of each row the fastest setting, of channels that fill no block; in half precision sums are of float32."""
    odd = replace(DENSE, data=(2, 12, 6, 7), weight=(20, 12, 3, 3))
    cases, kinds = [], []
    for name, dtype in (
        ("direct", "float32"),
        ("tensor_core", "bfloat16"),
        ("tensor_core_blocked", "float16"),
    ):
        subject = subject_of(WeightGradientProblem(replace(odd, dtype=dtype)))
        case, rows = subject.case(0), subject.settings(H200, Policy())
        ready = case.ready(H200, name, next(s.knobs for s in rows if s.algorithm == name))
        assert ready.weights == (0,)
        cases.append(Case(ready.kernel.make(), tuple(ready.arrays[:-1])))
        kinds.append(case)
    for case, outcome in zip(kinds, run_cases(cases, config=compiler.OPTIONS), strict=True):
        assert not outcome.error
        assert case.error(outcome.outputs[0]) < 1e-6


def test_it_is_tuned_on_a_device_with_cudnn_beside(tmp_path, monkeypatch):
    """Convc's own and cuDNN's own search, whose engine is then known by name."""
    monkeypatch.setenv(VARIABLE, str(build_double()))
    small = WeightGradientProblem(ConvSpec.of((1, 4, 5, 5), (4, 1, 3, 3), group=4))
    log = Log(tmp_path / "log.jsonl")
    options = Options(
        seconds=None,
        trials_per_layer=1,
        policy=Policy(include=("cudnn",)),
        initializer="tests.tuning.emulated_device:emulate_with_cudnn",
    )
    Session([Task(small, ("dw",))], H200, log, calibration(H200), options).run()
    records = log.read().records
    assert {r.status for r in records} == {"ok"}, records
    searched = {(r.knobs["compiles"], r.knobs["transforms"]) for r in records if r.algorithm == "cudnn"}  # fmt: skip
    assert searched == {(0, 0), (1, 0), (1, 1)}
    # One more, as asked: the model's.
    assert {r.algorithm for r in records} == {"plain", "cudnn"}
    named = [r for r in records if r.algorithm == "cudnn" and r.knobs["engine"] >= 0]
    assert all(r.final and any(n.startswith("setting_") for n in r.knobs) for r in named)
    best = knowledge(H200, [log.path]).records[small.key][0]
    assert best.seconds == min({r.setting: r.seconds for r in records if r.final}.values())


def test_without_cudnn_it_is_not_tried_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr("convc.schedules.cuda.cudnn.find_cudnn", lambda: None)
    tasks = [Task(WeightGradientProblem(DENSE), ("dw",))]
    session = Session(tasks, H200, Log(tmp_path / "log.jsonl"), calibration(H200), Options())
    assert "cudnn" not in {s.algorithm for s in session.layers[0].search.settings}
    assert any(note.startswith("cudnn is not tried: cuDNN 9 must be found") for note in session.notes)  # fmt: skip
