"""The parent of gpu_check's processes, with children that do as they are told: they die, hang, are cut off, and compile for too long."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.job import Job
from benchmarks.gpu.report import collect, table
from benchmarks.gpu.run import RESULT, STARTED
from benchmarks.gpu.supervise import Limits, supervise, unfinished
from convc.errors import ToolchainError

# A child that has no device and imports nothing of ours: each job's file says in Python what happens while it "runs".
CHILD = """
import json, os, signal, sys, time
from pathlib import Path
from typing import Any
folder = Path(sys.argv[1]); results = folder / "results"
seconds, *only = sys.argv[2:]
for file in sorted(folder.glob("*.job.json")):
    job = json.loads(file.read_text())
    name, result = job["name"], results / (job["name"] + RESULT)
    if not result.exists() and (name in only if only else job["part"] != "compiled"):
        (results / (name + STARTED)).touch()
        exec((folder / name).read_text())
        result.write_text(json.dumps({"job": job, **({"compiled": 0.001} if only else {})}))
        (results / (name + STARTED)).unlink()
""".replace("RESULT", repr(RESULT)).replace("STARTED", repr(STARTED))


def check(folder: Path, said: list[str], **limits: float) -> int:
    command = [sys.executable, "-c", CHILD, str(folder)]
    every = {"total": 1e4, "job": 1e4, "compiled": 1e4, **limits}
    return supervise(command, folder, Limits(**every), said.append)


def put(folder: Path, what: str, name: str, **fields: Any) -> None:
    (folder / name).write_text(what)
    Job(name=name, **{"part": "grid", **fields}).write(folder)


def failures(folder: Path) -> dict[str, str]:
    return {r["job"]["name"]: r.get("failed", "") for r in collect(folder / "results")}


def test_jobs_that_die_or_hang_have_failed_and_the_others_go_on(tmp_path):
    put(tmp_path, "os.write(2, b'illegal access'); os.kill(os.getpid(), signal.SIGABRT)", "a")
    put(tmp_path, "", "b")
    said: list[str] = []
    assert check(tmp_path, said) == 0
    put(tmp_path, "time.sleep(1e6)", "c")
    assert check(tmp_path, said, job=0.5) == 0
    put(tmp_path, "", "d")
    assert check(tmp_path, said) == 0
    assert failures(tmp_path) == {
        "a": "the process ended while this job ran: SIGABRT: illegal access",
        "b": "",
        "c": "the process ended while this job ran: it took more than 0.5 s",
        "d": "",
    }
    assert [line.split(":")[0] for line in said] == ["a", "c"]


def test_a_child_that_cannot_begin_is_an_error_and_nobody_tries_for_ever(tmp_path):
    put(tmp_path, "", "a")
    command = [sys.executable, "-c", "raise SystemExit('no torch')"]
    with pytest.raises(ToolchainError, match="must run its jobs; got: exit code 1: no torch"):
        supervise(command, tmp_path, Limits(), print)


def test_a_job_during_which_the_whole_check_was_cut_off_has_one_more_try(tmp_path):
    put(tmp_path, "", "a")
    results = tmp_path / "results"
    results.mkdir()
    mark = results / f"a{STARTED}"
    # As a machine leaves it that is taken away.
    mark.touch()
    assert check(tmp_path, [], total=0) == 1
    assert failures(tmp_path) == {}
    assert not mark.exists()
    mark.touch()
    assert check(tmp_path, [], total=0) == 0
    assert failures(tmp_path) == {"a": "twice the check ended while this job ran"}


def test_what_compiles_for_too_long_goes_on_in_the_next_call(tmp_path):
    """Each has a process of its own, and torch's caches are in the folder."""
    cache = "assert os.environ['TORCHINDUCTOR_CACHE_DIR'] == str(folder / 'torch_cache/inductor')"
    put(tmp_path, f"{cache}\ntime.sleep(1e6)", "compiled-a", part="compiled", model="a")
    said: list[str] = []
    assert check(tmp_path, said, compiled=0.5) == 1
    assert said[0].startswith("compiled-a: not finished after ")
    results = tmp_path / "results"
    (cut_off,) = unfinished(results)
    assert (cut_off.job.name, cut_off.tries) == ("compiled-a", 1)
    assert "- compiled-a: " in table([], {}, 1, [cut_off])
    put(tmp_path, f"{cache}\nassert (results / 'compiled-b.result.json').exists()", "compiled-a", part="compiled", model="a")  # fmt: skip
    put(tmp_path, "", "compiled-b", part="compiled", model="b", library="tf32")
    put(tmp_path, "os.abort()", "compiled-c", part="compiled", model="c")
    # What was cut off most often comes last.
    assert check(tmp_path, said) == 0
    assert failures(tmp_path) == {
        "compiled-a": "",
        "compiled-b": "",
        "compiled-c": "the process ended while this job ran: SIGABRT",
    }
    assert unfinished(results) == ()
    text = table(collect(results), {}, 0)
    assert "| b, 1, tf32 |  |  |  |  | 1.000 |" in text
    assert "Not finished" not in text
