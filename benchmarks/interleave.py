"""Time several engines in one process so that all of them see the same machine.

    round    every contestant has a block of a few calls; the order is shuffled anew each round
    block    first wait until the process is idle, then one call that does not count, then calls that do

Engines are used as they are delivered, and many keep their threads spinning after a call: for microseconds (TVM, MNN) up to tens
of milliseconds (ONNX Runtime, OpenMP runtimes). On a machine with as many cores as threads such a pool would slow the next engine
down. No fixed pause is right for all of them and none is switched off, since within a block spinning is what makes the next call
start fast. So the wait ends when the process has stopped using CPU time. The first call of a block wakes the sleeping pool and
brings weights back into the caches.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Contestant", "Timing", "interleave", "wait_until_idle"]

_WAIT_SECONDS: Final = 0.005
_IDLE_SHARE: Final = 0.05
# OpenMP runtimes of the Intel line spin for 0.2 s by default, the longest of all.
_WAIT_LIMIT_SECONDS: Final = 1.0
_BLOCK_SECONDS: Final = 0.1
_FEWEST_CALLS, _MOST_CALLS = 3, 50


@dataclass(frozen=True, slots=True)
class Contestant:
    """A name and the call that is timed."""

    name: str
    call: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """One contestant's calls.

    Units:
        seconds
    """

    name: str
    samples: tuple[float, ...]
    always_idle: bool = True

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, relative to the median."""
        if len(self.samples) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def wait_until_idle(limit_seconds: float = _WAIT_LIMIT_SECONDS) -> bool:
    """Return True once this process' threads use less than 5 % of a core for 5 ms; False if they still do at the limit."""
    deadline = time.perf_counter() + limit_seconds
    while True:
        used, began = time.process_time(), time.perf_counter()
        time.sleep(_WAIT_SECONDS)
        now = time.perf_counter()
        if time.process_time() - used < _IDLE_SHARE * (now - began):
            return True
        if now > deadline:
            return False


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def interleave(
    contestants: Sequence[Contestant],
    rounds: int,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Timing]:
    """Return every contestant's timing over `rounds` rounds.

    Args:
        contestants: already warm: each has run once.
        rounds: at least 1.
        seed: of the order within the rounds.
        progress: called with (round, rounds) before each round.
    """
    order = list(contestants)
    shuffle = random.Random(seed).shuffle
    samples: dict[str, list[float]] = {c.name: [] for c in contestants}
    restless: set[str] = set()
    for number in range(rounds):
        if progress is not None:
            progress(number, rounds)
        shuffle(order)
        for contestant in order:
            if not wait_until_idle():
                restless.add(contestant.name)
            warm = _seconds(contestant.call)
            count = min(_MOST_CALLS, max(_FEWEST_CALLS, round(_BLOCK_SECONDS / warm)))
            samples[contestant.name] += [_seconds(contestant.call) for _ in range(count)]
    return {
        name: Timing(name, tuple(seconds), name not in restless)
        for name, seconds in samples.items()
    }
