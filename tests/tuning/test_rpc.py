"""A tracker and two servers on loopback, as a user starts them: a server that dies in the middle costs its trial only."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from convc.ir import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.table import algorithm_named
from convc.target import parse_target
from convc.tuning.jobs import Build, Setup, Time
from convc.tuning.pool import Pool
from convc.tuning.rpc import servers

pytestmark = pytest.mark.slow

HOST = parse_target(cores=1)
TINY = Problem(ConvSpec.of((1, 4, 6, 6), (4, 4, 3, 3), pads=(1, 1, 1, 1)))
Start = Callable[..., tuple[subprocess.Popen[str], int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a verb in a process group of its own; gives its process and its port. All end with the test."""
    begun: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-m", "convc", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        begun.append(process)
        assert process.stdout is not None
        said = process.stdout.readline()
        port = re.search(r" at 127\.0\.0\.1:(\d+);", said)
        assert port, said
        return process, int(port[1])

    yield start
    for process in begun:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Kill it with all that it started: TVM's server is a parent of the process that serves."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def wait_for_servers(runner: str, count: int) -> None:
    # As long as it takes: a server that never registers is for the suite's own time-out to end.
    while servers(runner) != count:
        time.sleep(0.1)


def test_a_server_that_dies_costs_its_trial_only(start: Start) -> None:
    _, port = start("rpc-tracker", "--port", "9190")
    runner = f"127.0.0.1:{port}/tiny"
    join = ("--key", "tiny", "--tracker", f"127.0.0.1:{port}")
    first, _ = start("rpc-server", *join, "--port", "9090")
    wait_for_servers(runner, 1)
    row = algorithm_named("direct")
    jobs = [Build(n, TINY, HOST, row.name, dict(row.knobs(TINY, HOST))) for n in range(2)]
    with Pool(Setup(HOST, 4 << 30, remote=runner), 1) as pool:
        (built,) = pool.build(jobs[:1]).values()
        assert (built.status, built.error < 1e-5) == ("ok", True), built
        assert pool.time(Time(0, 2, 1e-4)).status == "ok"

        start("rpc-server", *join, "--port", "9290")
        wait_for_servers(runner, 2)
        end(first)
        lost = pool.time(Time(0, 2, 1e-4))
        assert lost.status == "crash", lost

        (again,) = pool.build(jobs[1:]).values()
        assert (again.status, again.error < 1e-5) == ("ok", True), again
        timed = pool.time(Time(1, 2, 1e-4))
        assert timed.status == "ok"
        assert timed.samples
