"""What a worker process does with its jobs: build, check, time."""

from __future__ import annotations

import sys
from pathlib import Path

from convc.tuning.jobs import Answer, Build, Forget, Setup, Time
from convc.tuning.kernel import TimedKernel
from convc.tuning.place import place_of
from convc.tuning.rpc import connect
from convc.tuning.subjects import Case, Tunable, subject_of

__all__ = ["Bench"]


class Bench:
    """Answers jobs, one after the other; holds what it has built until it is told to forget."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self.setup, self.folder = setup, folder
        remote = connect(setup.remote) if setup.remote else None
        self.place = place_of(setup.target, remote, setup.reference)
        self.cases: dict[tuple[Tunable, int], Case] = {}
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
            if self.place.is_lost(error):
                # The parent starts another worker, and that a new session or context.
                sys.exit(f"{type(error).__name__}: {_first_line(str(error))}")
            # TVM raises almost every class there is for a kernel that it cannot build.
            kind = "build_error" if isinstance(job, Build) else "run_error"
            status = "memory" if "bad_alloc" in str(error) else kind
            return Answer(status, f"{type(error).__name__}: {_first_line(str(error))}")

    def _build(self, job: Build) -> Answer:
        key = (job.problem, job.seed)
        if key not in self.cases:
            self.cases = {key: subject_of(job.problem).case(job.seed)}
        kernel = TimedKernel(
            self.cases[key], job.target, job.algorithm, job.knobs, self.place, self.folder
        )
        try:
            error = kernel.check()
        except (RuntimeError, ValueError, TypeError) as failure:
            if self.place.is_lost(failure):
                raise
            message = f"{type(failure).__name__}: {_first_line(str(failure))}"
            return Answer("run_error", message, seconds=kernel.build_seconds)
        self.kernels[job.handle] = kernel
        return Answer("ok", error=error, seconds=kernel.build_seconds, settled=kernel.settled())


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "")[:300]
