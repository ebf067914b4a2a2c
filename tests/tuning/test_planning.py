"""What compile does with records: tuned layers, required records, lock files, policies; and the verbs that show it."""

from __future__ import annotations

import json

import pytest

from convc.cli import invoke
from convc.compiler import compile
from convc.errors import TuningError, UntunedError
from convc.explaining import explain
from convc.ir.text import parse
from convc.lock import read_lock
from convc.schedules.policy import Policy
from convc.schedules.table import algorithm_named
from convc.target import parse_target
from convc.tuning.device import log_path
from convc.tuning.log import Log
from convc.tuning.tasks import tasks_of
from tests.tuning.records import record

NET = """graph @g { %x = input : f32[1,16,6,6]  %w = constant splat(0.5) : f32[16,16,3,3]  %v = constant splat(0.5) : f32[8,16,1,1]
  %one = conv(%x, %w) {pads=[1,1,1,1]}  %two = conv(%one, %v)  return %two }"""
HOST = parse_target(cores=1)


@pytest.fixture
def log(tmp_path) -> Log:
    """Records of the first layer: direct is measured faster than what the model would take."""
    log = Log(tmp_path / "log.jsonl")
    task = tasks_of(parse(NET))[0]
    rows = []
    for name, seconds in (("direct", 1e-6), ("winograd", 1e-3)):
        knobs = dict(algorithm_named(name).knobs(task.problem, HOST))
        rows.append(record(name, seconds, HOST, workload=task.subject.key, knobs=knobs))
    log.append(rows)
    return log


def test_compile_uses_records_and_says_what_has_none(log):
    compiled = compile(parse(NET), threads=1, logs=[log.path])
    assert (compiled.plan["one"].algorithm, compiled.plan["one"].source) == ("direct", "record")
    key = tasks_of(parse(NET))[1].subject.key
    assert compiled.planned.tuning == f"1 of 2 layers tuned; two by estimate (no record for {key})"
    assert compile(parse(NET), threads=1, logs=[log.path], policy=Policy(by="heuristic")).planned.records == 0  # fmt: skip
    with pytest.raises(UntunedError, match="got none for 1 of 2") as caught:
        compile(parse(NET), threads=1, logs=[log.path], require_tuned=True)
    assert caught.value.__notes__ == [f"two: no record for {key}"]
    rows = {r.node: r for r in explain(parse(NET), threads=1, logs=[log.path])}
    chosen = next(c for c in rows["one"].candidates if c.chosen)
    assert (chosen.algorithm, chosen.estimate_seconds) == ("direct", 1e-6)


def test_a_lock_repeats_the_module_byte_for_byte(log, tmp_path):
    model = tmp_path / "net.cvc"
    model.write_text(NET)
    lock, a, b = (tmp_path / name for name in ("convc.lock", "a.so", "b.so"))
    common = ["--threads", "1", "-q", "--no-verify"]
    assert invoke(["compile", str(model), "-o", str(a), "--log", str(log.path), "--lock", str(lock), *common]) == 0  # fmt: skip
    assert read_lock(lock).layers["one"].algorithm == "direct"
    # Without the log the choice would be another one.
    assert invoke(["compile", str(model), "-o", str(b), "--locked", str(lock), *common]) == 0
    assert a.read_bytes() == b.read_bytes()
    locked = read_lock(lock)
    other = parse(NET.replace("0.5", "0.25"))
    with pytest.raises(TuningError, match="lock must be for this model"):
        compile(other, threads=1, locked=lock)
    with pytest.raises(TuningError, match="lock must be for this target"):
        compile(parse(NET), mcpu="x86-64-v2", threads=1, locked=lock)
    assert locked.versions["schedules"]
    lock.write_text("{}")
    with pytest.raises(TuningError, match="lock must be a file that --lock wrote"):
        compile(parse(NET), threads=1, locked=lock)


TRAINING = """graph @t { %x = input : f32[2,16,8,8]  %g = input : f32[2,8,8,8]
  %w = constant splat(0.5) : f32[8,16,3,3]
  %dx = conv_transpose(%g, %w) {pads=[1,1,1,1]}  %dw = conv_weight_grad(%x, %g) {kernel=[3,3], pads=[1,1,1,1]}
  return %dx, %dw }"""


def test_a_lock_holds_gradients_and_duals(tmp_path):
    """An input gradient by Winograd on its dual, and a weight gradient that was pinned to the loops."""
    graph, lock = parse(TRAINING), tmp_path / "convc.lock"
    made = compile(graph, threads=1, algo_for={"dx": "winograd", "dw": "plain"})
    made.planned.lock.write(lock)
    again = compile(graph, threads=1, locked=lock)
    assert (again.plan["dx"].algorithm, again.plan["dw"].algorithm) == ("winograd", "plain")
    a, b = (m.export(tmp_path / f"{i}.so").read_bytes() for i, m in enumerate((made, again)))
    assert a == b
    text = lock.read_text()
    lock.write_text(text.replace('"algorithm": "plain"', '"algorithm": "blocked"'))
    with pytest.raises(TuningError, match="lock's layer 'dw' must have the knobs of blocked"):
        compile(graph, threads=1, locked=lock)


def test_a_lock_holds_every_batch_size_and_cpu(tmp_path):
    graph = parse(NET.replace("input : f32[1", 'input {batch = "N"} : f32[1'))
    lock = tmp_path / "convc.lock"
    cpus = {"threads": 1, "mcpu": "x86-64-v4,x86-64-v3"}
    made = compile(graph, batch_sizes=(4, 2), algo="im2col", **cpus)
    made.planned.lock.write(lock)
    again = compile(graph, locked=lock, **cpus)
    assert again.batch_sizes == (4, 2)
    a, b = (m.export(tmp_path / f"{i}.so").read_bytes() for i, m in enumerate((made, again)))
    assert a == b
    with pytest.raises(
        TuningError,
        match="lock must be for this number of CPUs and batch sizes; got 4, and here is 2",
    ):
        compile(graph, locked=lock, batch_sizes=(4,), **cpus)


def test_verbs(log, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.cvc").write_text(NET)

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = invoke(list(arguments))
        return code, capsys.readouterr().out

    code, out = run("tune", "net.cvc", "--list-tasks", "--json", "--threads", "1", "--log", str(log.path))  # fmt: skip
    assert code == 0
    assert [t["algorithm"] for t in json.loads(out)["tasks"]] == ["direct", None]
    code, _ = run("compile", "net.cvc", "--require-tuned", "--threads", "1", "--log", str(log.path))
    assert code == 6
    # What `compile` reads is what `tune` writes to, from any folder.
    kept = tmp_path / "kept"
    Log(log_path(kept, HOST)).append(log.read().records)
    for named, known in ((kept, "direct"), (tmp_path / "none", None)):
        monkeypatch.setenv("CONVC_TUNING_LOGS", str(named))
        code, out = run("tune", "net.cvc", "--list-tasks", "--json", "--threads", "1")
        assert (code, json.loads(out)["tasks"][0]["algorithm"]) == (0, known)
    code, out = run("log", "ls", str(log.path), "--json")
    assert json.loads(out)["logs"][0]["records"] == 2
    code, out = run("log", "best", str(log.path), "--json")
    assert json.loads(out)["best"][0]["algorithm"] == "direct"
    code, out = run("log", "show", str(log.path), "--status", "crash")
    assert (code, "0 records" in out) == (0, True)
    assert run("log", "export", str(log.path), "-o", "best.csv")[0] == 0
    assert run("log", "prune", str(log.path))[0] == 0
    assert run("log", "merge", "all.jsonl", str(log.path))[0] == 0
    assert run("log", "export", str(log.path), "-o", "best.txt")[0] == 2
    assert run("tune", "net.cvc", "--runner", "elsewhere")[0] == 2
    assert run("tune", "net.cvc", "--time", "long")[0] == 2
    assert run("tune", "net.cvc", "--algos=-winogard")[0] == 2
    assert run("log", "ls", "nowhere")[0] == 2
