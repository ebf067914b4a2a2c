"""Time several engines in one process so that all of them see the same machine.

    round    every contestant has a block of a few calls; the order is shuffled anew each round
    block    first wait until the process is idle, then one call that does not count, then calls that do

Engines are used as they are delivered, and many keep their threads spinning after a call: for microseconds (TVM, MNN) up to tens
of milliseconds (ONNX Runtime, OpenMP runtimes). On a machine with as many cores as threads such a pool would slow the next engine
down. No fixed pause is right for all of them and none is switched off, since within a block spinning is what makes the next call
start fast. So the wait ends when the process has stopped using CPU time. The first call of a block wakes the sleeping pool and
brings weights back into the caches.

On a shared machine a core is at times nearly twice as slow, for tenths of a second to seconds. With a `reference`, a call whose time
depends on the machine alone, a block counts only if the reference took about its best before it and behind it. One limit holds for all:
where a contestant has too few such blocks, slower ones count for everybody.
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
# Of the reference's best: undisturbed it repeats within 3 %, a neighbour on the same core costs 40 to 80 %.
_CALM: Final = 1.1
# Blocks that do not count are repeated in further rounds, up to so many times as many as were asked for.
_MOST_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Contestant:
    """A name and the call that is timed."""

    name: str
    call: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """One contestant's calls.

    Attributes:
        samples: seconds of the calls that count.
        calls: which of all its calls those are, the first being 0.
        always_idle: whether the process was idle before each of its blocks.
        pace: how many times as long as at its best the reference took beside the blocks that count, at most.
    """

    name: str
    samples: tuple[float, ...]
    calls: tuple[int, ...] = ()
    always_idle: bool = True
    pace: float = 1.0

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


@dataclass(frozen=True, slots=True)
class _Block:
    """A block's calls that may count, the number of the first of them, and the reference's seconds, the longer of before and behind."""

    first: int
    samples: tuple[float, ...]
    reference: float


class _Blocks:
    """One contestant's blocks."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.always_idle = True
        self._blocks: list[_Block] = []
        self._calls = 0

    def run(self, reference: Callable[[], float], before: float) -> float:
        """Run a block; return what the reference took behind it."""
        self.always_idle &= wait_until_idle()
        call = self.contestant.call
        warm = _seconds(call)
        count = min(_MOST_CALLS, max(_FEWEST_CALLS, round(_BLOCK_SECONDS / warm)))
        samples = tuple(_seconds(call) for _ in range(count))
        wait_until_idle()
        behind = reference()
        self._blocks.append(_Block(self._calls + 1, samples, max(before, behind)))
        self._calls += 1 + count
        return behind

    def reference_of(self, count: int) -> float:
        """Return what the reference took at most beside so many of the blocks, the calmest; infinity if there are fewer."""
        taken = sorted(b.reference for b in self._blocks)
        return taken[count - 1] if len(taken) >= count else float("inf")

    def timing(self, limit: float, best: float) -> Timing:
        """Return the calls of the blocks beside which the reference took at most `limit`."""
        blocks = [b for b in self._blocks if b.reference <= limit]
        return Timing(
            self.contestant.name,
            tuple(s for b in blocks for s in b.samples),
            tuple(b.first + i for b in blocks for i in range(len(b.samples))),
            self.always_idle,
            max(b.reference for b in blocks) / best if best else 1.0,
        )


def interleave(
    contestants: Sequence[Contestant],
    rounds: int,
    *,
    seed: int = 0,
    reference: Callable[[], float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Timing]:
    """Return every contestant's timing over `rounds` rounds.

    Args:
        contestants: already warm: each has run once.
        rounds: at least 1.
        seed: of the order within the rounds.
        reference: runs something that always takes equally long on an undisturbed machine, and returns its seconds. Where a contestant
            has fewer than `rounds` undisturbed blocks there are further rounds, up to three times as many; then the fastest half as many
            blocks of each decide what else counts. None: every block counts.
        progress: called with (round, rounds) before each round.
    """
    measure = reference or (lambda: 0.0)
    order = [_Blocks(c) for c in contestants]
    shuffle = random.Random(seed).shuffle
    wait_until_idle()
    now = best = measure()
    number = 0
    while number < rounds or (
        number < _MOST_ROUNDS * rounds and max(b.reference_of(rounds) for b in order) > _CALM * best
    ):
        if progress is not None:
            progress(number, max(rounds, number + 1))
        shuffle(order)
        for blocks in order:
            now = blocks.run(measure, now)
            best = min(best, now)
        number += 1
    limit = max(_CALM * best, *(b.reference_of(-(-rounds // 2)) for b in order))
    made = {b.contestant.name: b.timing(limit, best) for b in order}
    return {c.name: made[c.name] for c in contestants}
