"""The parent's side of the worker processes: start, ask, give up on, replace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Final

import psutil

from convc.errors import TuningError
from convc.tuning.jobs import Answer, Build, Forget, Job, Setup, Time

__all__ = ["Limits", "Pool", "Worker"]

# Importing TVM takes 2 to 7 s on a busy machine, reaching a remote server its own time-out.
_START_SECONDS: Final = 90.0
_CODE: Final = "import sys; from convc.tuning.worker import main; main(int(sys.argv[1]))"


class Worker:
    """One child process; started when first asked, and again after it was lost."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def _start(self) -> None:
        ours, theirs = Pipe()
        # A process group of its own: the terminal's Ctrl-C goes to the parent alone.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )
        theirs.close()
        self._connection = ours
        ours.send(self.setup)
        answer = self.receive(_START_SECONDS + self.setup.timeout)
        if answer.status != "ok":
            raise TuningError(
                f"a tuning worker must start; got {answer.status}: {answer.message or 'no message'}."
            )

    def send(self, job: Job) -> None:
        """Give the worker a job; its answer comes by `receive`."""
        if self._connection is None:
            self._start()
        assert self._connection is not None
        self._connection.send(job)

    def receive(self, timeout: float) -> Answer:
        """Return the answer; a worker that dies or takes longer is lost, and that is the answer."""
        assert self._connection is not None
        try:
            if self._connection.poll(timeout):
                return self._connection.recv()
            failure = Answer("timeout", f"took more than {timeout:g} s")
        except (EOFError, ConnectionError):
            failure = None
        code, text = self._end()
        return failure or Answer("crash", _death(code, text))

    @property
    def connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    def _end(self) -> tuple[int, str]:
        """Kill the process and what it started; return its exit code and the end of what it said."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        assert process is not None
        try:
            # A worker that has just died by itself keeps its exit code.
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            for child in _family(process.pid):
                child.kill()
        code = process.wait()
        text = ""
        if process.stderr is not None:
            text = process.stderr.read().decode(errors="replace").strip()
            process.stderr.close()
        if connection is not None:
            connection.close()
        return code, text

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            for child in _family(self._process.pid):
                child.kill()
            self._end()


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return []


def _death(code: int, text: str) -> str:
    last = text.splitlines()[-1][:300] if text else ""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"{name}: {last}" if last else name
    return f"exit code {code}: {last}" if last else f"exit code {code}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a job may take, in seconds: building with its check, and timing beyond the time that it measures."""

    build: float = 60.0
    time: float = 10.0


class Pool:
    """Some workers: builds go to all of them at once, measurements to one at a time with the others idle."""

    def __init__(self, setup: Setup, jobs: int, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.workers = [Worker(setup) for _ in range(jobs)]
        # handle -> the worker that holds it; a worker that is lost takes its kernels with it.
        self._holders: dict[int, Worker] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self.workers:
            worker.close()

    def build(
        self, jobs: Sequence[Build], until: Callable[[], bool] = lambda: False
    ) -> dict[int, Answer]:
        """Return the answers by handle, of as many as were begun before `until` said to stop."""
        waiting, answers = list(reversed(jobs)), {}
        busy: dict[Worker, tuple[Build, float]] = {}
        while waiting or busy:
            for worker in self.workers:
                if worker not in busy and waiting and not until():
                    job = waiting.pop()
                    worker.send(job)
                    busy[worker] = (job, time.monotonic() + self._build_limit(job))
            if not busy:
                break
            nearest = min(deadline for _, deadline in busy.values()) - time.monotonic()
            ready = wait([w.connection for w in busy], max(0.0, nearest))
            for worker in [w for w in busy if w.connection in ready]:
                job, _ = busy.pop(worker)
                answers[job.handle] = self._received(worker, job)
            for worker, (job, deadline) in list(busy.items()):
                if time.monotonic() >= deadline:
                    del busy[worker]
                    answer = worker.receive(0.0)
                    if answer.status == "timeout":
                        answer = Answer(
                            "timeout", f"took more than {self._build_limit(job):g} s to build"
                        )
                    self._lost(worker)
                    answers[job.handle] = answer
        return answers

    def _build_limit(self, job: Build) -> float:
        return max(self.limits.build, job.seconds)

    def _received(self, worker: Worker, job: Build) -> Answer:
        answer = worker.receive(self.limits.build)
        if not worker.running:
            self._lost(worker)
        elif answer.status == "ok":
            self._holders[job.handle] = worker
        return answer

    def _lost(self, worker: Worker) -> None:
        self._holders = {h: w for h, w in self._holders.items() if w is not worker}

    def holds(self, handle: int) -> bool:
        """Whether a built kernel is still there."""
        return handle in self._holders

    def time(self, job: Time) -> Answer:
        """Return one kernel's timing, measured alone."""
        worker = self._holders.get(job.handle)
        if worker is None:
            return Answer("crash", "the process that had built it was lost")
        worker.send(job)
        answer = worker.receive(self.limits.time + 4 * job.rounds * job.seconds)
        if not worker.running:
            self._lost(worker)
        return answer

    def forget(self) -> None:
        """Drop all built kernels."""
        self._holders.clear()
        for worker in self.workers:
            if worker.running:
                worker.send(Forget())
                worker.receive(self.limits.time)
