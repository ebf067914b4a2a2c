"""What is asked of a worker process and what it answers: plain values over a pipe between two processes of one user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from convc.schedules.plan import Knobs
from convc.target import Target
from convc.tuning.record import Status

if TYPE_CHECKING:
    # Not before a worker's initializer has run, see `worker`: this imports TVM.
    from convc.tuning.subjects import Tunable

__all__ = ["Answer", "Build", "Forget", "Job", "Setup", "Time"]


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message: how the worker runs.

    Attributes:
        target: what everything is built for.
        memory_bytes: of address space beyond what the process has when it starts; no limit where a device computes.
        initializer: "module:function" to call first, for algorithms that are registered at run time; or "".
        remote: "HOST:PORT/KEY" of a tracker on whose servers kernels run; "" for this machine.
        timeout: seconds that one remote call may take.
        reference: seconds of `Pace`'s reference on this machine undisturbed; 0: times are as they are.
    """

    target: Target
    memory_bytes: int
    initializer: str = ""
    remote: str = ""
    timeout: float = 10.0
    reference: float = 0.0


@dataclass(frozen=True, slots=True)
class Build:
    """Build one setting, run it once and compare the result.

    Attributes:
        seconds: that it may take at least, whatever the limit for others is.
    """

    handle: int
    problem: Tunable
    target: Target
    algorithm: str
    knobs: Knobs
    seed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Time:
    """Time a setting that was built: `rounds` times, each over `seconds` or at least three calls."""

    handle: int
    rounds: int
    seconds: float
    mode: Literal["cold", "warm"] = "cold"


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop everything that was built."""


Job = Build | Time | Forget


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a job.

    Attributes:
        status: "ok" or how it failed.
        message: why it failed, one line.
        error: of a build: greatest |error| / greatest |result|.
        seconds: what building took.
        samples: of a timing, in seconds: see `Place.time`.
        settled: of a build: the knobs that also say what a library decided, where it decided something.
    """

    status: Status
    message: str = ""
    error: float = -1.0
    seconds: float = 0.0
    samples: tuple[float, ...] = ()
    settled: Knobs | None = None
