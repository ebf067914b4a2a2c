"""Real workers on tiny convolutions: whatever a candidate does is a record, and the run goes on."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from convc.ir import ConvSpec, Step
from convc.ir.ops.pool import MaxPoolAttributes
from convc.schedules import bottleneck_model
from convc.schedules.algorithm import Problem
from convc.schedules.chains import chain_problem
from convc.schedules.dual import posed, solved
from convc.schedules.llvm import backend
from convc.schedules.plan import Unsupported
from convc.schedules.policy import Policy
from convc.schedules.pooled import Pooled
from convc.schedules.table import ALGORITHMS
from convc.target import parse_target
from convc.tuning.jobs import Build, Setup, Time
from convc.tuning.log import Log
from convc.tuning.options import Options, default_jobs
from convc.tuning.pool import Limits, Pool
from convc.tuning.session import Session
from convc.tuning.subjects import subject_of
from convc.tuning.tasks import Task
from tests.tuning import bad_rows
from tests.tuning.bad_rows import SCHEDULES
from tests.tuning.records import LIMITS

HOST = parse_target(cores=1)
TINY = Problem(ConvSpec.of((1, 5, 6, 7), (6, 5, 3, 3), pads=(1, 1, 1, 1)), (Step("bias"), Step("add"), Step("relu")))  # fmt: skip
CHAIN = chain_problem(
    [
        Problem(ConvSpec.of((1, 16, 8, 9), (32, 16, 1, 1)), (Step("bias"), Step("relu"))),
        Problem(
            ConvSpec.of((1, 32, 8, 9), (32, 1, 3, 3), pads=(1,) * 4, group=32), (Step("relu"),)
        ),
        Problem(ConvSpec.of((1, 32, 8, 9), (24, 32, 1, 1)), (Step("bias"), Step("add"))),
    ]
)
SETUP = Setup(HOST, 2 << 30, "tests.tuning.bad_rows:install")


@pytest.fixture
def bad(monkeypatch):
    """The rows in this process, too: the parent proposes what the workers build."""
    before, schedules = backend.BACKEND.algorithms, dict(SCHEDULES)
    bad_rows.install()
    yield
    object.__setattr__(backend.BACKEND, "algorithms", before)
    SCHEDULES.clear()
    SCHEDULES.update(schedules)


def build(handle: int, name: str, problem: Problem = TINY) -> Build:
    row = next(r for r in backend.BACKEND.algorithms if r.name == name)
    return Build(handle, problem, HOST, name, dict(row.knobs(solved(problem, row, HOST), HOST)))


def test_every_algorithm_is_built_checked_and_timed_in_a_worker():
    line = Problem(ConvSpec.of((1, 16, 9), (20, 16, 3), pads=(1, 1)), (Step("bias"),))
    up = Problem(ConvSpec.of((1, 5, 3, 4), (5, 6, 2, 2), strides=(2, 2), transposed=True), (Step("add"),))  # fmt: skip
    dynamic = Problem(TINY.spec, TINY.epilogue, constant_weight=False)
    # A gradient with respect to data: the convolution that it equals is a candidate.
    back = Problem(ConvSpec.of((1, 6, 6, 7), (6, 5, 3, 3), pads=(1, 1, 0, 1), transposed=True))
    jobs = [
        build(i, row.name, problem)
        for i, (row, problem) in enumerate(
            (row, problem)
            for problem in (TINY, line, up, dynamic, back)
            for row in ALGORITHMS
            if not isinstance(posed(problem, row, HOST), Unsupported) and row.name != "fft"
        )
    ]
    assert {j.algorithm for j in jobs if j.problem == back} >= {"direct", "winograd", "im2col"}
    assert {s.algorithm for s in subject_of(back).settings(HOST, Policy())} >= {
        "direct",
        "winograd",
    }
    # Three layers as one kernel, with its second best strip and tiles.
    knobs = bottleneck_model.space(CHAIN, HOST)[1]
    jobs.append(Build(len(jobs), CHAIN, HOST, "bottleneck", knobs))
    # A pool behind a layer, in strips of rows and behind all of it.
    pooled = Pooled(TINY, MaxPoolAttributes((2, 3), (2, 1), (0, 1, 1, 1), (1, 1)))
    for strip in (2, 0):
        knobs = {**build(0, "direct").knobs, "strip": strip}
        jobs.append(Build(len(jobs), pooled, HOST, "direct", knobs))
    with Pool(Setup(HOST, 2 << 30), 1) as pool:
        answers = pool.build(jobs)
        assert {jobs[h].algorithm: a.message for h, a in answers.items() if a.status != "ok"} == {}
        assert all(0 <= a.error < 1e-5 for a in answers.values())
        for handle, mode in ((0, "cold"), (0, "warm"), (len(jobs) - 1, "cold")):
            timed = pool.time(Time(handle, 2, 0.0002, mode))
            assert timed.status == "ok"
            assert len(timed.samples) == 2
            # How long a busy machine held it up is not ours to say.
            assert all(0 < s < 10 for s in timed.samples)
        pool.forget()
        assert not pool.holds(0)
        # The worker ends when its parent does, also without being told.
        pid = pool.workers[0]._process.pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


@pytest.mark.usefixtures("bad")
def test_misbehaviour_is_an_answer_and_the_others_are_built():
    names = ("refuses", "hungry", "wrong", "generic", "aborts", "aborts_in_build")
    jobs = [build(i, name) for i, name in enumerate(names)]
    with Pool(SETUP, 1, Limits(build=30, time=2)) as pool:
        answers = {jobs[h].algorithm: a for h, a in pool.build(jobs).items()}
        assert {n: a.status for n, a in answers.items()} == {
            "refuses": "build_error",
            "hungry": "memory",
            "wrong": "ok",
            "generic": "ok",
            "aborts": "crash",
            "aborts_in_build": "crash",
        }
        assert answers["refuses"].message == "ValueError: cannot be built"
        assert answers["wrong"].error > 1e-4
        assert answers["aborts"].message.startswith("SIGABRT")
        # What the crash took with it is known to be gone.
        assert not pool.holds(3)


@pytest.mark.usefixtures("bad")
def test_what_hangs_is_given_up_on(tmp_path, monkeypatch):
    names = ("hangs", "hangs_in_build", "wrong")
    policy = Policy(include=(*names, "generic"))
    log = Log(tmp_path / "log.jsonl")
    options = Options(
        seconds=None, trials_per_layer=8, policy=policy, timeout=4.0, initializer=SETUP.initializer
    )
    session = Session([Task(TINY, ("layer",))], HOST, log, LIMITS, options)
    changes = []
    session.run(lambda: changes.append(session.trials))
    rows = {r.algorithm: r for r in log.read().records if not r.final}
    assert {n: rows[n].status for n in names} == {
        "hangs": "timeout",
        "hangs_in_build": "timeout",
        "wrong": "wrong",
    }
    assert rows["generic"].status == "ok"
    assert session.layers[0].search.best[0].algorithm == "generic"
    assert session.layers[0].done
    assert changes == sorted(changes)
    # A second run has nothing to do and starts no worker.
    again = Session([Task(TINY, ("layer",))], HOST, log, LIMITS, options)
    monkeypatch.setattr("convc.tuning.session.Pool", None)
    again.run()
    assert (again.trials, again.layers[0].done) == (0, True)
    fresh = Session([Task(TINY, ("layer",))], HOST, log, LIMITS, Options(fresh=True, policy=policy))
    assert not fresh.layers[0].done


def test_an_interrupt_keeps_what_was_found_and_leaves_no_process(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    policy = Policy(include=("direct", "generic"))
    # No time limit: a machine that stands still for a minute would end the run before the interrupt.
    options = Options(seconds=None, policy=policy, trials=6)
    session = Session([Task(TINY, ("layer",))], HOST, log, LIMITS, options)

    def changed() -> None:
        if session.trials == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt):
        session.run(changed)
    assert len(log.read().records) == 2
    assert [p for p in psutil.Process().children(recursive=True) if "convc.tuning.worker" in " ".join(p.cmdline())] == []  # fmt: skip
    # The next one goes on, with as many trials as it may.
    after = Session([Task(TINY, ("layer",))], HOST, log, LIMITS, options)
    assert after.layers[0].search.measured == 2
    assert default_jobs() >= 1
