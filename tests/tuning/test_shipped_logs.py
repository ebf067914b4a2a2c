"""The logs that are shipped can still be used: a knob more or less, and choosing passes a record over without a word."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from convc.schedules import bottleneck_model
from convc.schedules.algorithm import KIND, SEPARATOR, Problem
from convc.schedules.backend import backend_of
from convc.schedules.chains import chain_problem
from convc.schedules.table import TEMPLATE
from convc.schedules.weight_gradient_problem import WeightGradientProblem
from convc.schedules.weight_gradients import PLAIN_LOOPS, weight_gradient_named
from convc.target import Target, parse_target
from convc.tuning.log import Log

LOGS = Path(__file__).parents[2] / "tuning_logs"
SAMPLE = 150
POOL = "_pool-"
# The instruction set of each log's records.
CPUS = {"intel-xeon-6-207": "emeraldrapids", "amd-epyc-25-17": "znver4"}


@pytest.mark.parametrize("path", sorted(LOGS.glob("llvm/*.jsonl")), ids=lambda path: path.stem)
def test_records_have_their_algorithms_knobs(path):
    records, mcpu = Log(path).read().records, CPUS[path.stem]
    assert {record.template for record in records} == {TEMPLATE}
    rows = {
        (record.workload, record.threads, record.algorithm, frozenset(record.knobs)): record
        for record in records
        if record.status == "ok" and record.target.startswith(f"llvm x86_64-linux-gnu {mcpu} ")
    }
    chained = {key[2] for key in rows if SEPARATOR in key[0] and POOL not in key[0]}
    assert chained == {"bottleneck"}
    for key in random.Random(0).sample(sorted(rows, key=str), min(SAMPLE, len(rows))):
        record = rows[key]
        target = parse_target(mcpu=mcpu, cores=record.threads)
        if KIND in record.workload:
            assert set(record.knobs) == _knobs_of_gradient(record.workload, record.algorithm, target)  # fmt: skip
            continue
        if POOL in record.workload:
            layer = Problem.parse(record.workload.split(SEPARATOR)[0])
            known = backend_of(target).algorithm(record.algorithm).knobs(layer, target)
            assert set(record.knobs) == {*known, "strip"}, record.workload
            continue
        problems = [Problem.parse(part) for part in record.workload.split(SEPARATOR)]
        if len(problems) > 1:
            known = bottleneck_model.knobs(chain_problem(problems), target)
        else:
            known = backend_of(target).algorithm(record.algorithm).knobs(problems[0], target)
        assert set(record.knobs) == set(known), (record.workload, record.algorithm)


def _knobs_of_gradient(workload: str, name: str, target: Target) -> set[str]:
    spec = WeightGradientProblem.parse(workload).spec
    return set() if name == PLAIN_LOOPS else set(weight_gradient_named(name, target).knobs(spec, target))  # fmt: skip
