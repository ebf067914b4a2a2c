"""A median with limits: what repeated measurements say, and how sure they are of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Spread", "spread"]

# Of the normal distribution: 99 % of medians lie within.
_SIGMAS: Final = 2.58


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and between which limits 99 of 100 medians of such samples lie."""

    median: float
    low: float
    high: float


def spread(samples: Sequence[float]) -> Spread:
    """Return the median of samples and its limits: the order statistics that the binomial distribution's normal approximation says.

    They assume nothing of how the samples are distributed (Conover, Practical Nonparametric Statistics, 3.2), and are the least
    and the greatest sample where there are fewer than eleven.

    Example:
        >>> spread([5, 1, 2, 3, 4, 9, 7, 6, 8])
        Spread(median=5, low=1, high=9)
    """
    ordered, count = sorted(samples), len(samples)
    half = _SIGMAS * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - half))
    return Spread(statistics.median(ordered), ordered[low], ordered[count - 1 - low])
