"""The contest with MetaSchedule: what it is given, what is read of its database, and what is said of the result."""

from __future__ import annotations

from pathlib import Path

import pytest
import tvm
from tvm.s_tir.meta_schedule.database import JSONDatabase, TuningRecord

from benchmarks.layer_list import layers
from benchmarks.metaschedule import __main__ as command
from benchmarks.metaschedule.contest import Contest, Side, best_of_metaschedule
from benchmarks.metaschedule.search import DATABASE
from benchmarks.metaschedule.workload import Workload
from convc.tuning.subjects import subject_of


@pytest.mark.parametrize(
    "key",
    [
        "conv2d-f32-n1c20h6w7-k24r3s3-st2x1-pd1.0.1.1-dl1x1-g1",
        "conv2d-f32-n2c3h9w9-k16r3s3-st1x1-pd1.1.1.1-dl1x1-g1",
        "conv2d-f32-n1c24h9w9-k24r5s5-st2x2-pd2.2.2.2-dl1x1-g24",
    ],
    ids=["3x3", "first layer", "depthwise"],
)
def test_the_best_records_of_a_database_are_built_and_checked(key: str, tmp_path: Path) -> None:
    workload = Workload.of(key, 1)
    paths = [str(tmp_path / name) for name in DATABASE]
    database = JSONDatabase(*paths)
    mod = tvm.IRModule({"main": workload.function().with_attr("global_symbol", "main")})
    entry = database.commit_workload(mod)
    for seconds in (3e-3, 1e10, 1e-3):
        schedule = tvm.s_tir.Schedule(mod)
        schedule.parallel(schedule.get_loops(schedule.get_sblock("acc"))[1])
        record = TuningRecord(schedule.trace, entry, [seconds], workload.target.tvm(), None)
        database.commit_tuning_record(record)
    with Path(paths[1]).open("a") as file:
        file.write('[0, [[["GetSBl')
    kernels, why = best_of_metaschedule(subject_of(workload.problem).case(0), workload, tmp_path)
    assert why == ""
    assert [k.name for k in kernels] == ["metaschedule"] * 2, "one had failed"
    assert all(0 < k.error < 1e-6 for k in kernels)


def test_nothing_in_the_database_is_an_answer(tmp_path: Path) -> None:
    workload = Workload.of("conv2d-f32-n1c4h5w5-k4r1s1-st1x1-pd0.0.0.0-dl1x1-g1", 1)
    nothing = ([], "nothing was measured in its time")
    assert best_of_metaschedule(subject_of(workload.problem).case(0), workload, tmp_path) == nothing
    JSONDatabase(*(str(tmp_path / name) for name in DATABASE))
    assert best_of_metaschedule(subject_of(workload.problem).case(0), workload, tmp_path) == nothing


def side(seconds: float | None, tuning: float) -> Side:
    return Side(seconds=seconds, tuning_seconds=tuning, trials=9, failed=0, algorithm="direct", error=0.0)  # fmt: skip


def test_the_summary_counts_who_is_faster_and_who_took_longer() -> None:
    rows = [
        Contest(layer=name, kind="1x1", key="", convc=side(1e-4, 10.0), metaschedule=side(theirs, spent))
        for name, theirs, spent in (("a", 4e-4, 400.0), ("b", 0.5e-4, 250.0), ("c", None, 300.0))
    ]  # fmt: skip
    assert command.summary(rows, 0.05) == (
        "convc is faster on 1 of 3 layers, 1.41 x in the geometric mean of 2; "
        "its tuning took at most 1/25 of MetaSchedule's time (asked: 1/20)"
    )


def test_the_sample_exists_and_bad_numbers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {layer.kind for n in command.SAMPLE.split(",") for layer in layers(pattern=n)}
    assert {"1x1", "3x3s1", "3x3s2", "1x1s2", "dw3", "dw5", "5x5", "stem"} <= kinds
    assert command.main(["--time", "0"]) == 2
    assert "--time and --batch must be positive and --share from 0 to 1" in capsys.readouterr().err
    assert command.main(["--layers", "nowhere"]) == 2
