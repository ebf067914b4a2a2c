"""The logs that are shipped can still be used: a knob more or less, and choosing passes a record over without a word."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from convc.schedules.algorithm import SEPARATOR, Problem
from convc.schedules.backend import backend_of
from convc.schedules.table import TEMPLATE
from convc.target import parse_target
from convc.tuning.log import Log

LOGS = Path(__file__).parents[2] / "tuning_logs"
SAMPLE = 150


@pytest.mark.parametrize("path", sorted(LOGS.glob("llvm/*.jsonl")), ids=lambda path: path.stem)
def test_records_have_their_algorithms_knobs(path):
    records = Log(path).read().records
    assert {record.template for record in records} == {TEMPLATE}
    rows = {
        (record.workload, record.threads, record.algorithm, frozenset(record.knobs)): record
        for record in records
        if record.status == "ok" and SEPARATOR not in record.workload
    }
    for key in random.Random(0).sample(sorted(rows, key=str), SAMPLE):
        record = rows[key]
        assert record.target.startswith("llvm x86_64-linux-gnu emeraldrapids ")
        target = parse_target(mcpu="emeraldrapids", cores=record.threads)
        algorithm = backend_of(target).algorithm(record.algorithm)
        known = algorithm.knobs(Problem.parse(record.workload), target)
        assert set(record.knobs) == set(known), (record.workload, record.algorithm)
