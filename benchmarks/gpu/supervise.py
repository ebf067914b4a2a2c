"""Run all jobs of a folder, each in a process that may die, hang or be cut off: the parent has no device and outlives them.

Ordinary jobs share a process until one of them takes the device away; then the next process goes on behind it. A network by torch.compile
has a process of its own with a limit, since it compiles for minutes: torch's caches are in the folder, so what one call did not finish
the next goes on with.

A child ends with its parent, however that ends: a shell in its group waits for the end of a pipe that the parent alone can write to, and
kills the group then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec

from benchmarks.gpu.job import Job, jobs_in
from benchmarks.gpu.run import STARTED, keep, waiting
from benchmarks.gpu.share import WHOLE, Share
from convc.errors import ToolchainError

__all__ = ["LOST", "Limits", "Unfinished", "supervise", "unfinished"]

# A child's exit code: its last job failed on the device, which it therefore no longer uses.
LOST: Final = 75

# How often a parent looks at its child, in seconds.
_LOOK: Final = 0.2
_LAST_WORDS: Final = 2000
_UNFINISHED: Final = ".unfinished.json"
# Where torch keeps what it has compiled and measured.
_CACHES: Final = {
    "TORCHINDUCTOR_CACHE_DIR": "torch_cache/inductor",
    "TRITON_CACHE_DIR": "torch_cache/triton",
}
# A child's group: the command in the shell's own place, so that number and exit code are the command's, and who holds the leash.
_LEASH: Final = """\
exec 3<&0 </dev/null
{ read -r never <&3; kill -s KILL -- -$$; } >/dev/null 2>&1 &
exec "$@" 3<&-
"""
# Below so many seconds torch is not imported for a compilation.
_LEAST: Final = 20.0
# A job during which the whole check was cut off is tried once more, since that may not have been its fault; this file says so.
_CUT: Final = ".cut"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds of everything, of an ordinary job, of one that compiles, and for which no job may begin or end."""

    total: float = 450.0
    job: float = 120.0
    compiled: float = 240.0
    idle: float = 120.0


class Unfinished(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was cut off by its limit: how often, and after how many seconds in all."""

    job: Job
    tries: int = 0
    seconds: float = 0.0


def unfinished(results: Path) -> tuple[Unfinished, ...]:
    """Return what has been cut off and not been finished since."""
    files = sorted(results.glob(f"*{_UNFINISHED}"))
    return tuple(msgspec.json.decode(f.read_bytes(), type=Unfinished) for f in files)


def supervise(
    command: Sequence[str],
    folder: Path,
    limits: Limits,
    say: Callable[[str], None],
    *,
    peer: bool = True,
    share: Share = WHOLE,
) -> int:
    """Run the jobs without a result until the time is over; return how many are left.

    Args:
        command: of a child; behind it the seconds for which it may begin jobs, and the one job that it is for, if it is.
        folder: of the jobs; results are in its folder `results`.
        limits: of time.
        say: is told of what the children cannot tell.
        peer: whether there is torch; without it networks by torch.compile stay as they are and are not counted.
        share: of the jobs; others are another run's.

    Raises:
        ToolchainError: if a child ends, or hangs, before it has begun a job.
    """
    book = _Book(folder, share, say)
    book.close_left_over()
    try:
        return _run(command, book, limits, peer)
    except KeyboardInterrupt:
        # The job that ran has neither failed nor been cut off.
        book.unmark()
        raise


def _run(command: Sequence[str], book: _Book, limits: Limits, peer: bool) -> int:
    until = time.monotonic() + limits.total
    tried: set[str] = set()
    while True:
        left = [j for j in book.waiting() if peer or j.part != "compiled"]
        seconds = until - time.monotonic()
        ordinary = any(j.part != "compiled" for j in left)
        if ordinary and seconds > 0:
            _ordinary([*command, f"{seconds:.1f}"], book, limits)
            continue
        compiled = [j for j in left if j.part == "compiled" and j.name not in tried]
        # What has been cut off most often comes last: it may never finish.
        compiled.sort(key=lambda job: book.before(job).tries)
        if ordinary or not compiled or seconds < _LEAST:
            return len(left)
        job, limit = compiled[0], min(limits.compiled, seconds)
        tried.add(job.name)
        _compiled([*command, f"{seconds:.1f}", job.name], book, job, limit)


def _ordinary(command: Sequence[str], book: _Book, limits: Limits) -> None:
    """Run jobs until the child ends, or neither begins nor ends one for too long; what it did not finish has failed."""
    late: set[str] = set()
    before, seen, since = len(book.waiting()), book.signs(), time.monotonic()

    def too_long() -> bool:
        nonlocal seen, since
        late.update(name for name, age in book.ages().items() if age > limits.job)
        if (now := book.signs()) != seen:
            seen, since = now, time.monotonic()
        return bool(late) or time.monotonic() - since > limits.idle

    with _child(command, book.folder) as child:
        ended = child.wait(too_long)
        words = "" if ended is None else child.epitaph(ended)
    running = book.started()
    if ended is None:
        # A job that began while the child was being stopped for another's sake is not to blame.
        running = [j for j in running if j.name in late]
        words = f"no job began or ended for {limits.idle:g} s"
        if late:
            words = f"it took more than {limits.job:g} s"
    for job in running:
        book.fail(job, f"the process ended while this job ran: {words}")
    book.unmark()
    if running or ended in (0, LOST):
        return
    if ended is None and len(book.waiting()) < before:
        book.say(f"a process was stopped between its jobs: {words}; the next goes on")
        return
    # No job's fault: it would be the same the next time.
    raise ToolchainError(f"a process of gpu_check must run its jobs; got: {words}")


def _compiled(command: Sequence[str], book: _Book, job: Job, limit: float) -> None:
    began = time.monotonic()
    with _child(command, book.folder) as child:
        ended = child.wait(lambda: time.monotonic() - began > limit)
        words = "" if ended is None else child.epitaph(ended)
    note = book.results / f"{job.name}{_UNFINISHED}"
    if ended is None:
        (book.results / f"{job.name}{STARTED}").unlink(missing_ok=True)
        before = book.before(job)
        seconds = before.seconds + time.monotonic() - began
        after = Unfinished(job=job, tries=before.tries + 1, seconds=round(seconds, 1))
        note.write_bytes(msgspec.json.encode(after))
        book.say(f"{job.name}: not finished after {seconds:.0f} s; the next call goes on with what torch keeps")  # fmt: skip
        return
    if any(j.name == job.name for j in book.waiting()):
        book.fail(job, f"the process ended while this job ran: {words}")
    note.unlink(missing_ok=True)


class _Book:
    """A share's jobs and what has become of them, kept as files beside those of other shares."""

    def __init__(self, folder: Path, share: Share, say: Callable[[str], None]) -> None:
        self.folder, self.results, self.say, self._share = folder, folder / "results", say, share
        self.results.mkdir(parents=True, exist_ok=True)
        self._names = {j.name for j in share.jobs(list(jobs_in(folder)))}

    def waiting(self) -> list[Job]:
        """Return the jobs without a result, in their turn."""
        return waiting(self.folder, self.results, self._share)

    def signs(self) -> frozenset[tuple[str, int]]:
        """Return what is there and how old it is, which changes as a job begins, waits for the device, or ends."""
        found = set()
        for file in self.results.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if file.name.partition(".")[0] in self._names:
                    found.add((file.name, file.stat().st_mtime_ns))
        return frozenset(found)

    def ages(self) -> dict[str, float]:
        """Return for how many seconds each job runs that has begun."""
        ages = {}
        for mark in self._marks():
            with contextlib.suppress(FileNotFoundError):
                ages[mark.name.removesuffix(STARTED)] = time.time() - mark.stat().st_mtime
        return ages

    def started(self) -> list[Job]:
        names = {m.name.removesuffix(STARTED) for m in self._marks()}
        return [j for j in self.waiting() if j.name in names]

    def before(self, job: Job) -> Unfinished:
        """Return what is noted of a job that was cut off by its limit."""
        note = self.results / f"{job.name}{_UNFINISHED}"
        if not note.is_file():
            return Unfinished(job=job)
        return msgspec.json.decode(note.read_bytes(), type=Unfinished)

    def fail(self, job: Job, words: str) -> None:
        keep(self.results, job, {"failed": words})
        (self.results / f"{job.name}{STARTED}").unlink(missing_ok=True)
        self.say(f"{job.name}: FAILED {words}")

    def close_left_over(self) -> None:
        """See to jobs during which an earlier check ended as a whole: by its machine's limit, for instance."""
        for job in self.started():
            cut = self.results / f"{job.name}{_CUT}"
            if cut.is_file():
                self.fail(job, "twice the check ended while this job ran")
            elif job.part != "compiled":
                cut.touch()
        self.unmark()

    def unmark(self) -> None:
        for mark in self._marks():
            mark.unlink(missing_ok=True)

    def _marks(self) -> list[Path]:
        found = self.results.glob(f"*{STARTED}")
        return [m for m in found if m.name.removesuffix(STARTED) in self._names]


class _Child:
    """A process with a group of its own, whose last words are kept."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process, self._errors = process, errors

    def wait(self, stop: Callable[[], bool]) -> int | None:
        """Return its exit code when it ends, None if it had to be stopped."""
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(_LOOK)
            if stop():
                return None

    def epitaph(self, code: int) -> str:
        """Return how it ended, with its last words."""
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip()[-_LAST_WORDS:]
        return f"{how}{': ' if words else ''}{words}"

    def end(self) -> None:
        """Kill it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


@contextlib.contextmanager
def _child(command: Sequence[str], folder: Path) -> Iterator[_Child]:
    environment = {k: str(folder.resolve() / v) for k, v in _CACHES.items()}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            ["sh", "-c", _LEASH, "sh", *command], stdin=subprocess.PIPE, stderr=errors, start_new_session=True, env={**environment, **os.environ}
        )  # fmt: skip
        child = _Child(process, errors)
        try:
            yield child
        finally:
            child.end()
