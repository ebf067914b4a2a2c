"""How a tuning run is limited and carried out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from convc.schedules.policy import Policy
from convc.tuning.search import DEFAULT_TRIALS

__all__ = ["Options", "default_jobs"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is limited and carried out.

    Attributes:
        seconds: wall time for all layers together; None: until nothing is left to try.
        trials: measurements for all layers together.
        trials_per_layer: measurements of one layer, those of earlier runs counted.
        jobs: worker processes that build at the same time.
        runner: "local", or a tracker's address.
        policy: among which settings; its `max_error` is what a setting may have to win.
        warm_start: another log whose best settings are tried first.
        fresh: try everything again, whatever the log says.
        seed: of the data that candidates are checked with.
        mode: "cold": weights come from memory, as in a network; "warm": from cache.
        timeout: seconds for building, and for timing, one setting.
        memory_bytes: of one worker.
        initializer: "module:function", called in every worker.
        for_network: share of `seconds` that is left for timing in the network, see `network_stage`.
    """

    seconds: float | None = 180.0
    trials: int | None = None
    trials_per_layer: int = DEFAULT_TRIALS
    jobs: int = 1
    runner: str = "local"
    policy: Policy = field(default_factory=Policy)
    warm_start: Path | None = None
    fresh: bool = False
    seed: int = 0
    mode: Literal["cold", "warm"] = "cold"
    timeout: float = 30.0
    memory_bytes: int = 4 << 30
    initializer: str = ""
    for_network: float = 0.0

    @property
    def search_seconds(self) -> float | None:
        """Wall time for the layers' searches."""
        return None if self.seconds is None else (1 - self.for_network) * self.seconds


def default_jobs() -> int:
    """Return how many workers build at once: one a core, three at most, as each takes half a gigabyte."""
    return max(1, min(3, len(os.sched_getaffinity(0))))
