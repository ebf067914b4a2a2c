"""A compiler that takes minutes ends whole and at once, and its temporary files lie where they are cleared away."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from convc.schedules.cuda.compiler_run import run

# As nvcc does: the driver waits, a child works; its number is told once it runs.
DRIVER = "sleep 300 & echo $! > part; mv part child; wait"


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_end(pid: int) -> None:
    """A killed process closes its files before it is gone."""
    for _ in range(3000):
        if not is_running(pid):
            return
        threading.Event().wait(0.1)
    raise AssertionError(f"process {pid} runs on")


def child(folder: Path, ended: Callable[[], bool]) -> int:
    """Return the number of the driver's child once it runs, however long that takes a loaded machine, unless all has ended before."""
    number = folder / "child"
    for _ in range(3000):
        if number.is_file():
            return int(number.read_text())
        assert not ended(), "it ended and no driver had started its child"
        threading.Event().wait(0.1)
    raise AssertionError("the driver did not start its child within five minutes")


def test_what_it_says_and_where_its_files_lie(tmp_path):
    done = run(["sh", "-c", "mktemp; echo problem >&2; exit 3"], tmp_path)
    assert done.returncode == 3
    assert done.stderr == "problem\n"
    assert Path(done.stdout.strip()).parent == tmp_path


def test_stop_ends_the_driver_and_its_children(tmp_path):
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, ["sh", "-c", DRIVER], tmp_path, stop)
        pid = child(tmp_path, running.done)
        assert is_running(pid)
        stop.set()
        with pytest.raises(CancelledError):
            running.result()
    wait_for_end(pid)


# A process of its own that runs the driver in the folder it is told.
PARENT = """
import sys
from pathlib import Path
from convc.schedules.cuda.compiler_run import run
run(["sh", "-c", sys.argv[1]], Path(sys.argv[2]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_process_that_is_killed(tmp_path, how):
    command = [sys.executable, "-c", PARENT, DRIVER, str(tmp_path)]
    with subprocess.Popen(command) as parent:
        pid = child(tmp_path, lambda: parent.poll() is not None)
        group = os.getpgid(pid)
        parent.send_signal(how)
    assert parent.returncode == -how
    wait_for_end(pid)
    # Nor does what watched.
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group:
                wait_for_end(process.pid)


def test_how_it_ended(tmp_path):
    assert run(["sh", "-c", "kill -s SEGV $$"], tmp_path).returncode == 128 + signal.SIGSEGV
    done = run(["no-such-compiler"], tmp_path)
    assert done.returncode == 127
    assert "no-such-compiler" in done.stderr
    # The command has nothing of what is between us and the shell: it could keep the pipe open, or wait for it.
    assert run(["sh", "-c", "cat; ls /proc/self/fd | wc -l"], tmp_path).stdout == "4\n"
