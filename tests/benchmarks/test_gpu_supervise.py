"""The parent of gpu_check's processes, with children that do as they are told: they die, hang, are cut off, and compile for too long."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from benchmarks.gpu import supervise as parent
from benchmarks.gpu.job import Job
from benchmarks.gpu.report import collect, table
from benchmarks.gpu.run import RESULT, STARTED
from benchmarks.gpu.share import WHOLE, Share, device_turn, share_of
from benchmarks.gpu.supervise import Limits, supervise, unfinished
from convc.errors import InputError, ToolchainError

# A child that has no device and imports nothing of ours: each job's file says in Python what happens while it "runs".
CHILD = """
import json, os, signal, sys, time
from pathlib import Path
from typing import Any
folder = Path(sys.argv[1]); results = folder / "results"
seconds, *only = sys.argv[3:]
number, of = map(int, sys.argv[2].split("/"))
jobs = [json.loads(file.read_text()) for file in sorted(folder.glob("*.job.json"))]
ordinary = [job for job in jobs if job["part"] != "compiled"][number - 1 :: of]
for job in [job for job in jobs if job["part"] == "compiled"] if only else ordinary:
    name, result = job["name"], results / (job["name"] + RESULT)
    if not result.exists() and (name in only if only else job["part"] != "compiled"):
        (results / (name + STARTED)).touch()
        exec((folder / name).read_text())
        part = result.with_suffix(".part")  # whole or not at all: the parent reads meanwhile
        part.write_text(json.dumps({"job": job, **({"compiled": 0.001} if only else {})}))
        part.replace(result)
        (results / (name + STARTED)).unlink()
""".replace("RESULT", repr(RESULT)).replace("STARTED", repr(STARTED))

# A process that waits for the device.
WAITER = """
import sys
from pathlib import Path
from benchmarks.gpu.job import Job
from benchmarks.gpu.share import device_turn
folder = Path(sys.argv[1])
print("asks", flush=True)
with device_turn(folder, Job(name="a", part="grid")):
    print((folder / "mine").read_text())
"""


def check(folder: Path, said: list[str], share: Share = WHOLE, **limits: float) -> int:
    command = [sys.executable, "-c", CHILD, str(folder), str(share)]
    every = {"total": 1e4, "job": 1e4, "compiled": 1e4, "idle": 1e4, **limits}
    return supervise(command, folder, Limits(**every), said.append, share=share)


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


def test_shares_run_each_job_once_whatever_becomes_of_the_others_marks(tmp_path):
    for name in "abcde":
        put(tmp_path, f"(folder / 'ran').open('a').write({name!r})", name)
    put(tmp_path, "", "f", part="compiled", model="resnet18")
    results = tmp_path / "results"
    results.mkdir()
    # The other share is at work on it.
    (results / f"b{STARTED}").touch()
    said: list[str] = []
    assert check(tmp_path, said, share=Share(1, 2)) == 0
    assert (tmp_path / "ran").read_text() == "ace"
    assert sorted(failures(tmp_path)) == ["a", "c", "e"]
    assert (results / f"b{STARTED}").exists()
    assert check(tmp_path, said, share=Share(2, 2)) == 0
    assert (tmp_path / "ran").read_text() == "acebd"
    # torch.compile has the device for minutes: it is of no share.
    assert sorted(failures(tmp_path)) == ["a", "b", "c", "d", "e"]
    assert check(tmp_path, said) == 0
    assert sorted(failures(tmp_path)) == ["a", "b", "c", "d", "e", "f"]
    assert said == []


def test_a_share_is_a_number_of_a_number():
    assert share_of("2/3") == Share(2, 3)
    for wrong in ("3/2", "0/2", "2", "a/b", ""):
        with pytest.raises(InputError, match="must be a number of a number, from 1/1 on; got"):
            share_of(wrong)


def test_the_device_is_one_process_s_at_a_time(tmp_path):
    mark = Job(name="a", part="grid").mark(tmp_path)
    mark.parent.mkdir()
    mark.touch()
    os.utime(mark, (0, 0))
    command = [sys.executable, "-c", WAITER, str(tmp_path)]
    waiter = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert waiter.stdout is not None
    with device_turn(tmp_path):
        assert waiter.stdout.readline() == "asks\n"
        # What waits is not late, however long another job takes.
        while not mark.stat().st_mtime:
            time.sleep(0.05)
        (tmp_path / "mine").write_text("written by whom it waited for")
    assert waiter.communicate()[0] == "written by whom it waited for\n"


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
    assert "| b, 1, tf32 |  |  |  |  |  |  | 1.000 |" in text
    assert "Not finished" not in text


def test_a_process_that_hangs_outside_its_jobs_is_stopped(tmp_path, monkeypatch):
    """Behind a job the next process goes on; before any it would hang again. The clock stands still until that job is done."""
    put(tmp_path, "", "a")
    ticks = itertools.count(0, 3)
    clock = SimpleNamespace(monotonic=lambda: next(ticks) if failures(tmp_path) else 0, time=time.time)  # fmt: skip
    monkeypatch.setattr(parent, "time", clock)
    said: list[str] = []
    command = [sys.executable, "-c", f"{CHILD}\ntime.sleep(1e6)", str(tmp_path), "1/1"]
    assert supervise(command, tmp_path, Limits(1e4, 1e4, idle=2), said.append) == 0
    words = (
        "a process was stopped between its jobs: no job began or ended for 2 s; the next goes on"
    )
    assert said == [words]
    monkeypatch.undo()
    put(tmp_path, "", "b")
    command = [sys.executable, "-c", "import time; time.sleep(1e6)"]
    with pytest.raises(ToolchainError, match=r"got: no job began or ended for 0\.5 s"):
        supervise(command, tmp_path, Limits(1e4, idle=0.5), print)


def test_a_job_that_began_while_another_was_stopped_is_not_to_blame(tmp_path):
    mark = "(results / 'b.started').touch(); os.utime(results / 'b.started', (4e9, 4e9))"
    put(tmp_path, f"{mark}; time.sleep(1e6)", "a")
    put(tmp_path, "", "b")
    assert check(tmp_path, [], job=0.5) == 0
    assert failures(tmp_path) == {
        "a": "the process ended while this job ran: it took more than 0.5 s",
        "b": "",
    }


def test_without_torch_what_torch_compiles_is_left_out(tmp_path):
    put(tmp_path, "", "a")
    put(tmp_path, "os.abort()", "compiled-a", part="compiled", model="a")
    command = [sys.executable, "-c", CHILD, str(tmp_path), "1/1"]
    assert supervise(command, tmp_path, Limits(1e4, 1e4, idle=1e4), print, peer=False) == 0
    assert failures(tmp_path) == {"a": ""}


PARENT = """
import signal, sys
from pathlib import Path
from benchmarks.gpu.supervise import Limits, supervise
from benchmarks.gpu_check import end_as_by_ctrl_c
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, tests would hand on that it is ignored
end_as_by_ctrl_c()
folder = Path(sys.argv[2])
supervise([sys.executable, "-c", sys.argv[1], str(folder), "1/1"], folder, Limits(1e4, 1e4, 1e4, 1e4), print)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_the_child_ends_with_its_parent(tmp_path, number):
    """A signal that can be caught leaves no mark on the job that ran."""
    put(tmp_path, "(folder / 'pid.part').write_text(str(os.getpid())); (folder / 'pid.part').rename(folder / 'pid'); time.sleep(1e6)", "a")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(tmp_path)], stderr=subprocess.DEVNULL)  # fmt: skip
    wait_until(lambda: (tmp_path / "pid").is_file() or process.poll() is not None)
    child = psutil.Process(int((tmp_path / "pid").read_text()))
    assert child.is_running()
    process.send_signal(number)
    process.wait()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert (tmp_path / "results" / f"a{STARTED}").exists() == (number == signal.SIGKILL)


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        threading.Event().wait(0.1)
    raise AssertionError("it did not come true within five minutes")
