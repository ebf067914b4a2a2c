"""Where a search begins: the best settings of the nearest problems that have been tuned. A walk that begins there is short."""

from __future__ import annotations

from typing import Final

from convc.schedules.algorithm import Problem
from convc.schedules.tuned import FARTHEST, Records, distance, geometries
from convc.schedules.weight_gradient_problem import WEIGHT_GRADIENT, WeightGradientProblem
from convc.tuning.setting import Key
from convc.tuning.subjects import Tunable

__all__ = ["seeds"]

_SEEDS: Final = 3


def seeds(problem: Tunable, best: Records, *, itself: bool) -> list[Key]:
    """Return settings to measure first of all; none where nodes are computed by one kernel.

    Args:
        problem: what is tuned.
        best: the fastest settings of each problem's key.
        itself: whether the problem's own come first, if there are any.
    """
    keys: list[str] = []
    if isinstance(problem, Problem):
        keys = _nearest(problem.key, problem, geometries(best))
    elif isinstance(problem, WeightGradientProblem):
        keys = _nearest(problem.key, problem.geometry, geometries(best, WEIGHT_GRADIENT))
    if itself and problem.key in best:
        keys.insert(0, problem.key)
    rows = [m for key in keys for m in best[key][: _SEEDS // len(keys) + 1]]
    return [(m.algorithm, tuple(sorted(m.knobs.items()))) for m in rows][:_SEEDS]


def _nearest(own: str, geometry: Problem, others: list[tuple[str, Problem]]) -> list[str]:
    near = sorted((distance(geometry, other), key) for key, other in others)
    return [key for far, key in near if far <= FARTHEST and key != own][:2]
