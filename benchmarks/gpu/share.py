"""Several runs over one folder: each has a share of the jobs, and the device is one's at a time.

A job's float64 reference, random operands and comparisons are the processor's work, its kernels and their times the device's. One run
leaves the device idle most of the time; three share it without disturbing each other's times.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from benchmarks.gpu.job import Job
from convc.errors import InputError

__all__ = ["WHOLE", "Share", "device_turn", "share_of"]

_LOCK: Final = "device.lock"

# How often who waits says so, in seconds.
_LOOK: Final = 1.0


@dataclass(frozen=True, slots=True)
class Share:
    """The `number`-th of `of` shares, from 1."""

    number: int = 1
    of: int = 1

    def jobs(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the share's, dealt by turns. Networks by torch.compile take the device for minutes: they are of no share but the whole."""
        if self.of == 1:
            return list(jobs)
        return [j for j in jobs if j.part != "compiled"][self.number - 1 :: self.of]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


WHOLE: Final = Share()


def share_of(text: str) -> Share:
    """Return what "2/3" says.

    Raises:
        InputError: if it does not name one of one or more shares.

    Example:
        >>> share_of("2/3")
        Share(number=2, of=3)
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise InputError(f"a share must be a number of a number, from 1/1 on; got '{text}'. The second of three is 2/3.")  # fmt: skip
    return Share(int(number), int(of))


@contextlib.contextmanager
def device_turn(folder: Path, job: Job | None = None) -> Iterator[None]:
    """Wait for the device and keep it: who else uses this folder waits. The system gives it back when a process ends.

    While `job` waits its mark stays young: what another one does to the device, or hangs in, does not count towards its limit.
    """
    lock = FileLock(folder / _LOCK)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_LOOK)
        except Timeout:
            if job is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.utime(job.mark(folder))
    try:
        yield
    finally:
        lock.release()
