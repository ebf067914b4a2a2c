"""A setting: an algorithm with knobs, and what the cost model expects of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from convc.schedules.plan import Knobs

__all__ = ["Key", "Setting"]

Key: TypeAlias = tuple[str, tuple[tuple[str, int], ...]]


@dataclass(frozen=True)
class Setting:
    """An algorithm with knobs, and the model's time for it."""

    algorithm: str
    knobs: Knobs
    seconds: float

    @property
    def key(self) -> Key:
        """Algorithm and knobs, hashable; as `Record.setting`."""
        return self.algorithm, tuple(sorted(self.knobs.items()))
