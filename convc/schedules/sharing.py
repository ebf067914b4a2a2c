"""How threads share out a kernel's work: whole blocks where there are enough of them, else the parts of every block, one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from convc.target import Target

__all__ = ["LAUNCH", "PARALLEL", "launches", "shared_out", "shares", "to_share", "turns"]

# Seconds of a launch on several threads, measured with two on an Intel Xeon.
LAUNCH: Final = 3e-6

# Cycles of a kernel up to which one thread does it: 3.3 us, beside launches of 3 with two threads, since half of what it reads the other
# one has written. MobileNetV2 in bytes on two threads of a Zen 4: 0.975 of the time with 30,000, in float32 0.991.
PARALLEL: Final = 12_000

# So many times as long as evenly shared work is not worth loops that are shorter, and indices that are divided out of one.
_UNEVEN: Final = 1.06


def turns(units: int, target: Target) -> float:
    """Return how many times as long as evenly shared work threads take for so many equal units of it.

    Example:
        >>> from convc.target import parse_target
        >>> [turns(n, parse_target("llvm", "x86-64-v3", 2)) for n in (1, 2, 3, 7)]
        [2.0, 1.0, 1.3333333333333333, 1.1428571428571428]
    """
    return -(-units // target.cores) * target.cores / units if units else 1.0


def shared_out(units: int, target: Target) -> bool:
    """Whether so many equal units are worth sharing out among the threads: evenly, or enough that the last turn does not matter."""
    return units >= 2 * target.cores or (units > 1 and units % target.cores == 0)


def to_share(extents: Sequence[int], target: Target) -> int:
    """Return how many of the outermost loops, of these extents, threads share out: the fewest that give all nearly the same work.

    Example:
        >>> from convc.target import parse_target
        >>> [to_share((8, 7, 7), parse_target("llvm", "x86-64-v3", n)) for n in (4, 8, 16)]
        [1, 1, 3]
    """
    for count in range(1, len(extents)):
        if turns(math.prod(extents[:count]), target) < _UNEVEN:
            return count
    return len(extents)


def shares(extents: Sequence[int], target: Target) -> float:
    """Return `turns` of the loops that `to_share` finds."""
    return turns(math.prod(extents[: to_share(extents, target)]), target)


def launches(count: int, target: Target) -> float:
    """Return the cycles, of all threads together, that so many more launches take."""
    return count * LAUNCH * target.core.hertz * target.cores if target.cores > 1 else 0.0
