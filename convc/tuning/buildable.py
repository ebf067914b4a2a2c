"""Algorithms whose kernels need a package or compiler beside convc's own: tried only where it is there, and given its time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from convc.errors import ToolchainError
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.dual import posed
from convc.schedules.plan import Unsupported
from convc.schedules.policy import Policy
from convc.schedules.weight_gradient_problem import WeightGradientProblem
from convc.schedules.weight_gradients import refused
from convc.target import Target
from convc.tuning.subjects import Tunable
from convc.tuning.tasks import Task

__all__ = ["NeedsTools", "build_seconds", "buildable", "slow_builds"]


@runtime_checkable
class NeedsTools(Protocol):
    """An algorithm that needs more than convc to be built.

    Attributes:
        build_seconds: that one setting may take where none like it was built before, beside other builds.
    """

    build_seconds: float

    def missing(self) -> str:
        """Return what this machine lacks, and how to get it; "" if nothing."""
        ...


def buildable(
    policy: Policy, target: Target, tasks: Sequence[Task]
) -> tuple[Policy, tuple[str, ...]]:
    """Return the policy without the algorithms that cannot be built here, and a sentence for each that would have been tried.

    Raises:
        ToolchainError: if it leaves none, as every algorithm that it includes is one of those.
    """
    lacking = {
        row.name: missing
        for row in backend_of(target).algorithms
        if isinstance(row, NeedsTools) and policy.allows(row.name) and (missing := row.missing())
    }
    if policy.include and not set(policy.include) - set(lacking):
        raise ToolchainError(next(iter(lacking.values())))
    notes = [f"{name} is not tried: {why}" for name, why in lacking.items() if _wanted(name, target, tasks)]  # fmt: skip
    left = tuple(name for name in policy.include if name not in lacking)
    return replace(policy, include=left, exclude=(*policy.exclude, *lacking)), tuple(notes)


def _wanted(name: str, target: Target, tasks: Sequence[Task]) -> bool:
    """Whether the algorithm computes one of the layers."""
    row = backend_of(target).algorithm(name)
    gradients = [row for row in backend_of(target).weight_gradients if name == row.NAME]

    def computes(problem: Tunable) -> bool:
        if isinstance(problem, WeightGradientProblem):
            return any(refused(row, problem, target) is None for row in gradients)
        return isinstance(problem, Problem) and not isinstance(posed(problem, row, target), Unsupported)  # fmt: skip

    return any(computes(task.problem) for task in tasks)


def build_seconds(algorithm: str, target: Target) -> float:
    """Return what building a setting may take at least, 0 where nothing but convc builds it."""
    rows = backend_of(target).algorithms
    row = next((row for row in rows if row.name == algorithm), None)
    return row.build_seconds if isinstance(row, NeedsTools) else 0.0


def slow_builds(algorithms: Iterable[str], target: Target) -> list[str]:
    """Return those that another compiler takes minutes for."""
    return [name for name in algorithms if build_seconds(name, target)]
