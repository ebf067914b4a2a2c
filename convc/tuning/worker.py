"""The child process in which candidates are built, checked and timed: whatever one does, only this process suffers.

Started as `python -c "from convc.tuning.worker import main; main(FD)"` by `pool`, which kills it when a job takes too long. It ends by
itself when its pipe closes, and with its parent, however that dies.
"""

from __future__ import annotations

import ctypes
import importlib
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from convc.schedules.algorithm import Problem
from convc.tuning.case import Case
from convc.tuning.jobs import Answer, Build, Forget, Setup, Time
from convc.tuning.kernel import Place, TimedKernel
from convc.tuning.rpc import connect

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> None:
    """Serve jobs from the pipe at a file descriptor until it closes."""
    # The parent alone answers Ctrl-C. And a kernel that hangs must not outlive a parent that was killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    connection = Connection(descriptor)
    setup: Setup = connection.recv()
    if setup.initializer:
        module, _, function = setup.initializer.partition(":")
        getattr(importlib.import_module(module), function)()
    _limit_memory(setup.memory_bytes)
    with TemporaryDirectory(prefix="convc-tune-") as folder:
        worker = _Worker(setup, Path(folder))
        connection.send(Answer("ok"))
        while True:
            try:
                job = connection.recv()
            except EOFError:
                return
            connection.send(worker.answer(job))


def _limit_memory(nbytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + nbytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class _Worker:
    def __init__(self, setup: Setup, folder: Path) -> None:
        self.setup, self.folder = setup, folder
        self.place = Place(connect(setup.remote) if setup.remote else None)
        self.cases: dict[tuple[Problem, int], Case] = {}
        self.kernels: dict[int, TimedKernel] = {}

    def answer(self, job: object) -> Answer:
        """Return what became of a job; any failure of a candidate is an answer, too."""
        try:
            if isinstance(job, Build):
                return self._build(job)
            if isinstance(job, Time):
                samples = self.kernels[job.handle].time(job.rounds, job.seconds, job.mode)
                return Answer("ok", samples=samples)
            assert isinstance(job, Forget)
            self.kernels.clear()
            self.cases.clear()
            return Answer("ok")
        except MemoryError:
            return Answer("memory", f"more than {self.setup.memory_bytes >> 20} MiB")
        except Exception as error:
            if self.place.remote is not None and _is_lost(error):
                # The session is gone, with everything in it: the parent starts another worker, and that a new session.
                sys.exit(f"{type(error).__name__}: {_first_line(str(error))}")
            # TVM raises almost every class there is for a kernel that it cannot build.
            kind = "build_error" if isinstance(job, Build) else "run_error"
            status = "memory" if "bad_alloc" in str(error) else kind
            return Answer(status, f"{type(error).__name__}: {_first_line(str(error))}")

    def _build(self, job: Build) -> Answer:
        key = (job.problem, job.seed)
        if key not in self.cases:
            self.cases = {key: Case(*key)}
        kernel = TimedKernel(
            self.cases[key], job.target, job.algorithm, job.knobs, self.place, self.folder
        )
        try:
            error = kernel.check()
        except (RuntimeError, ValueError, TypeError) as failure:
            if self.place.remote is not None and _is_lost(failure):
                raise
            message = f"{type(failure).__name__}: {_first_line(str(failure))}"
            return Answer("run_error", message, seconds=kernel.build_seconds)
        self.kernels[job.handle] = kernel
        return Answer("ok", error=error, seconds=kernel.build_seconds)


def _is_lost(error: Exception) -> bool:
    """Whether a remote session ended: its server died, or the session's time is over."""
    text = f"{type(error).__name__} {error}"
    return any(word in text for word in ("RPCSession", "SockChannel", "Socket", "Connection"))


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "")[:300]
