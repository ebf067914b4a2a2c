"""What a setting is where that is less than its algorithm's name promises: said with the choice's reason, and once for all layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol, runtime_checkable

from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.dual import posed
from convc.schedules.plan import Choice, Knobs, Unsupported
from convc.target import Target

__all__ = ["Remarks", "remark_of", "remarked", "remarks_on"]


@runtime_checkable
class Remarks(Protocol):
    """An algorithm with a lesser form, which some targets and convolutions get."""

    def remark(self, problem: Problem, target: Target, knobs: Knobs) -> str:
        """Return which form a setting is, and why it is not the better one; "" where it is, or where both could be had."""
        ...


def remark_of(problem: Problem, choice: Choice, target: Target) -> str:
    """Return what is to be said of a layer's choice, "" if nothing."""
    algorithm = backend_of(target).algorithm(choice.algorithm)
    solved = posed(problem, algorithm, target)
    if isinstance(solved, Unsupported) or not isinstance(algorithm, Remarks):
        return ""
    return algorithm.remark(solved, target, choice.knobs)


def remarked(problem: Problem, choice: Choice, target: Target) -> Choice:
    """Return the choice with that behind its reason."""
    remark = remark_of(problem, choice, target)
    return replace(choice, reason=f"{choice.reason}; {remark}") if remark else choice


def remarks_on(layers: Iterable[tuple[str, Problem, Choice]], target: Target) -> tuple[str, ...]:
    """Return a sentence for each remark, with the layers that it is on."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, problem, choice in layers:
        if remark := remark_of(problem, choice, target):
            found.setdefault((choice.algorithm, remark), []).append(name)
    return tuple(
        f"{algorithm} {remark}: {len(names)} layer{'s' if len(names) > 1 else ''}, {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for (algorithm, remark), names in found.items()
    )
