"""Several runs over one log: a layer that is done stays done, one that has not begun learns from its neighbours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from convc.schedules.algorithm import Problem
from convc.schedules.policy import Policy
from convc.tuning.layer import Layer
from convc.tuning.log import Log
from convc.tuning.options import Options
from convc.tuning.record import Record
from convc.tuning.search import Trial
from convc.tuning.session import Session
from convc.tuning.setting import Setting
from convc.tuning.tasks import Task
from tests.tuning.records import AVX512, LIMITS, PROBLEM, record

# Alike enough to share settings: a map of six rows has a knob of its own.
FIRST = Problem(replace(PROBLEM.spec, data=(1, 16, 14, 14)))
NEAR = Problem(replace(PROBLEM.spec, data=(1, 16, 12, 12)))
OPTIONS = Options(seconds=None, policy=Policy(include=("direct", "im2col")))


def layers(log: Log) -> list[Layer]:
    tasks = [Task(p, (p.key,)) for p in (FIRST, NEAR)]
    return Session(tasks, AVX512, log, LIMITS, OPTIONS).layers


def tried(layer: Layer, setting: Setting, seconds: float, *, final: bool = False) -> Record:
    key, knobs = layer.task.subject.key, dict(setting.knobs)
    return record(setting.algorithm, seconds, workload=key, knobs=knobs, final=final)


def test_a_layer_that_is_done_stays_done_whatever_its_neighbours_find(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    first, second = layers(log)
    search = first.search
    while settings := search.next() or search.rivals():
        final = not search.next()
        for setting in settings:
            search.known[setting.key] = Trial(setting.seconds, 1e-7, final=final)
            log.append([tried(first, setting, setting.seconds, final=final)])
    # The neighbour's best is a setting that the model thinks little of.
    shared = {s.key for s in search.settings}
    odd = next(s for s in reversed(second.search.settings) if s.key in shared)
    log.append([tried(second, odd, 1e-9)])
    again, begun = layers(log)
    assert (again.done, again.search.next(), again.search.seeds) == (True, [], [])
    assert not begun.done
    log.replace(r for r in log.read().records if r.workload == NEAR.key)
    fresh, _ = layers(log)
    assert fresh.search.next()[0].key == odd.key
