"""A setting: an algorithm with knobs, and what the cost model expects of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from convc.schedules.plan import Knobs

__all__ = ["Key", "Setting"]

Key: TypeAlias = tuple[str, tuple[tuple[str, int], ...]]


@dataclass(frozen=True)
class Setting:
    """An algorithm with knobs, and what the cost model expects.

    Attributes:
        algorithm, knobs: what is built.
        seconds: the model's time.
        flops: the floating point operations that it really does; 0 is unknown.
        error: to expect for normal data, of the greatest result.
        always: whether it is measured whatever the model says, see `Settles.searches`.
    """

    algorithm: str
    knobs: Knobs
    seconds: float
    flops: float = 0.0
    error: float = 0.0
    always: bool = False

    @cached_property
    def key(self) -> Key:
        """Algorithm and knobs, hashable; as `Record.setting`."""
        return self.algorithm, tuple(sorted(self.knobs.items()))
