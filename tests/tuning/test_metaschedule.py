"""Records through TVM's own JSON database and back: what they compute there, and that nothing from outside wins unmeasured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tvm
from tvm.s_tir.meta_schedule.database import JSONDatabase, TuningRecord

from convc.cli import invoke
from convc.errors import TuningError
from convc.ir import ConvSpec
from convc.ir.epilogue import Step
from convc.schedules.algorithm import SEPARATOR, Problem
from convc.schedules.backend import backend_of
from convc.schedules.policy import Policy
from convc.schedules.weight_gradient_problem import WeightGradientProblem
from convc.target import parse_target
from convc.tuning.care import best_of, merge
from convc.tuning.knowledge import knowledge
from convc.tuning.log import Log
from convc.tuning.metaschedule import IMPORTED, export_database, import_database
from convc.tuning.options import Options
from convc.tuning.record import Record
from convc.tuning.session import Session
from convc.tuning.subjects import subject_of
from convc.tuning.tasks import Task
from tests.tuning.records import LIMITS, record

HOST = parse_target(cores=1)
ONE = Problem(ConvSpec.of((1, 20, 7, 6), (24, 20, 3, 3), pads=(1, 1, 1, 0)), (Step("bias"), Step("relu")))  # fmt: skip
TWO = Problem(ConvSpec.of((1, 16, 6, 6), (16, 1, 3, 3), pads=(1, 1, 1, 1), group=16))


def best(problem: Problem, algorithm: str, seconds: float = 1e-3, **knobs: int) -> Record:
    row = backend_of(HOST).algorithm(algorithm)
    chosen = dict(row.knobs(problem, HOST)) | knobs
    return record(algorithm, seconds, HOST, workload=problem.key, knobs=chosen, final=True)


def exported(folder: Path, *records: Record) -> JSONDatabase:
    passed = export_database(best_of(records), folder)
    assert str(passed) == f"{len(records)} settings"
    return JSONDatabase(work_dir=str(folder))


def test_tvm_builds_the_kernels_of_its_records(tmp_path: Path) -> None:
    rows = [best(ONE, "direct"), best(TWO, "depthwise", 2e-4)]
    database = exported(tmp_path / "db", *rows)
    found = database.get_all_tuning_records()
    assert sorted(float(r.run_secs[0]) for r in found) == [2e-4, 1e-3]
    for entry in found:
        schedule = tvm.s_tir.Schedule(entry.workload.mod)
        entry.trace.apply_to_schedule(schedule, remove_postproc=False)
        kernel = tvm.compile(schedule.mod, target=entry.target)["main"]
        mine = min(rows, key=lambda r: abs(r.seconds - float(entry.run_secs[0])))
        case = subject_of(Problem.parse(mine.workload)).case(0)
        ready = case.ready(HOST, mine.algorithm, mine.knobs)
        arguments = [tvm.runtime.tensor(array) for array in ready.arrays]
        assert [a.as_json()[2] for a in entry.args_info] == [list(a.shape) for a in ready.arrays]
        kernel(*arguments)
        assert case.error(arguments[-1].numpy(), ready.block) < 1e-6
        # TVM's own way of asking finds it, too.
        assert database.query_schedule(entry.workload.mod, entry.target, "main") is not None


def test_what_comes_back_is_tried_first_and_chosen_never(tmp_path: Path) -> None:
    unlikely = [s for s in subject_of(ONE).settings(HOST, Policy()) if s.algorithm == "direct"][-1]
    mine = best(ONE, "direct", 1e-9, **unlikely.knobs)
    exported(tmp_path / "db", mine)
    (back,), passed = import_database(tmp_path / "db")
    assert (passed.records, passed.left_out) == (1, {})
    same = ("workload", "algorithm", "knobs", "seconds", "threads", "target", "template", "error")
    assert all(getattr(back, name) == getattr(mine, name) for name in same)
    log, warm = Log(tmp_path / "log.jsonl"), Log(tmp_path / "imported.jsonl")
    warm.append([back])
    assert back.device == IMPORTED
    assert knowledge(HOST, [warm.path]).records == {}
    session = Session([Task(ONE, ("one",))], HOST, log, LIMITS, Options(warm_start=warm.path))
    search = session.layers[0].search
    assert (search.measured, search.best) == (0, None)
    assert search.next()[0].key == back.setting == unlikely.key
    search.seeds = ()
    assert search.next()[0].key != unlikely.key


def test_records_of_others_are_counted_and_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    database = exported(folder, best(ONE, "direct"))
    (ours,) = database.get_all_tuning_records()
    plain = tvm.IRModule({"main": ours.workload.mod["main"].without_attr("convc.setting")})
    schedule = tvm.s_tir.Schedule(plain)
    schedule.parallel(schedule.get_loops(schedule.get_sblock("acc"))[1])

    def commit(mod: tvm.IRModule, trace: object, seconds: float, target: object = None) -> None:
        workload = database.commit_workload(mod)
        database.commit_tuning_record(TuningRecord(trace, workload, [seconds], target or ours.target, None))  # fmt: skip

    def saying(**changed: object) -> tvm.IRModule:
        said = json.loads(str(ours.workload.mod["main"].attrs["convc.setting"])) | changed
        return tvm.IRModule({"main": plain["main"].with_attr("convc.setting", json.dumps(said))})

    commit(plain, schedule.trace, 1e-9)
    commit(ours.workload.mod, schedule.trace, 1e-9)
    commit(saying(template=1), ours.trace, 1e-9)
    commit(saying(algorithm="guess"), ours.trace, 1e-9)
    commit(saying(workload="conv9d"), ours.trace, 1e-9)
    commit(saying(knobs={"rows": 3}), ours.trace, 1e-9)
    commit(saying(knobs="many"), ours.trace, 1e-9)
    commit(ours.workload.mod, ours.trace, 1e10)
    commit(ours.workload.mod, ours.trace, 1e-9, tvm.target.Target({"kind": "c"}))
    found, passed = import_database(folder)
    assert [r.seconds for r in found] == [1e-3]
    assert passed.left_out == {
        "of workloads that convc did not write": 2,
        "with other steps than convc's": 1,
        "of other versions of the schedules": 1,
        "of settings that convc does not have": 3,
        "without a time": 1,
        "of targets that convc does not have": 1,
    }


def test_what_tvm_cannot_hold_is_named(tmp_path: Path) -> None:
    half = Problem(ConvSpec.of((1, 16, 6, 6), (16, 16, 3, 3), dtype="float16"))
    cuda = parse_target("cuda -arch=sm_90")
    library = backend_of(cuda).algorithm("cudnn")
    chain = f"{TWO.key}{SEPARATOR}{TWO.key}"
    rows = [
        record("direct", target=HOST, workload=chain),
        best(half, "direct"),
        record("cudnn", target=cuda, workload=TWO.key, knobs=dict(library.knobs(TWO, cuda))),
        record("direct", target=cuda, workload=ONE.key, knobs=dict(backend_of(cuda).algorithm("direct").knobs(ONE, cuda))),
        record("direct", target=HOST, workload=WeightGradientProblem(ONE.spec).key),
    ]  # fmt: skip
    passed = export_database(best_of(rows), tmp_path / "db")
    assert str(passed) == (
        "1 settings; left out: 1 of several layers in one kernel, "
        "1 of half types, which our kernels widen behind the schedule, 1 of cudnn, a call of a library, "
        "1 of weight gradients"
    )
    (back,), _ = import_database(tmp_path / "db")
    assert (back.target, back.knobs) == ("cuda sm_90", rows[3].knobs)


def test_the_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Log(tmp_path / "log.jsonl").append([best(ONE, "direct")])

    def run(*words: str) -> tuple[int, str, str]:
        code = invoke(["log", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    assert run("export", "log.jsonl", "-o", "db")[:2] == (0, "db: 1 settings\n")
    code, _, err = run("export", "log.jsonl", "-o", "db", "--format", "metaschedule")
    assert (code, "must be a folder without a database; got 'db'" in err) == (2, True)
    code, out, _ = run("import", "db", "-o", "warm.jsonl", "--json")
    assert (code, json.loads(out)) == (0, {"output": "warm.jsonl", "settings": 1, "left_out": {}})
    assert run("import", "db", "-o", "warm.jsonl")[0] == 0
    assert len(Log(tmp_path / "warm.jsonl").read().records) == 1, "the same records once"
    code, _, err = run("import", "nowhere")
    assert (code, "database must be a folder with database_workload.json and" in err) == (2, True)
    for name, text in (("database_tuning_record.json", "[0, ["), ("database_workload.json", "[]")):
        (tmp_path / "db" / name).write_text(text)
        code, _, err = run("import", "db")
        assert (code, "must be one that TVM can read; got 'db'" in err) == (2, True), err
    with pytest.raises(TuningError, match="of one device"):
        merge(tmp_path / "log.jsonl", [tmp_path / "warm.jsonl"])
