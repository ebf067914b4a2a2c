"""Plan the arena: one block of memory in which every intermediate value has its place, reused when a value is dead.

Greedy by size: place the largest buffer first, at the lowest offset where no buffer alive at the same time lies. Source: Pisarchyk
and Lee, arXiv:2001.03288 (on networks within a few percent of the lower bound).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Lifetime", "plan_arena"]

# What kernels assume of every buffer: one cache line, one AVX-512 register.
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A buffer's size in bytes, and the first and last call that touches it."""

    nbytes: int
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both are alive at some call."""
        return self.first <= other.last and other.first <= self.last


def plan_arena(buffers: Mapping[str, Lifetime]) -> tuple[dict[str, int], int]:
    """Return each buffer's offset and the arena's size, both in bytes.

    Example:
        >>> plan_arena({"a": Lifetime(100, 0, 1), "b": Lifetime(60, 1, 2), "c": Lifetime(128, 2, 3)})
        ({'c': 0, 'a': 0, 'b': 128}, 192)
    """
    offsets: dict[str, int] = {}
    order = sorted(buffers, key=lambda name: (-buffers[name].nbytes, buffers[name].first, name))
    for name in order:
        taken = [
            (offsets[other], offsets[other] + buffers[other].nbytes)
            for other in offsets
            if buffers[other].overlaps(buffers[name])
        ]
        offsets[name] = _lowest_gap(sorted(taken), buffers[name].nbytes)
    size = max((offsets[n] + buffers[n].nbytes for n in offsets), default=0)
    return offsets, _aligned(size)


def _lowest_gap(taken: Sequence[tuple[int, int]], nbytes: int) -> int:
    start = 0
    for begin, end in taken:
        if begin >= start + nbytes:
            break
        start = max(start, _aligned(end))
    return start


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
