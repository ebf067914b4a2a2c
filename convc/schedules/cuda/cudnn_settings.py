"""The knobs of a call of cuDNN: the usual ones, those worth measuring, and cuDNN's own search."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from convc.ir.types import numpy_dtype
from convc.runtime.libraries.cudnn import POLICIES
from convc.schedules.algorithm import Problem
from convc.schedules.plan import Knobs
from convc.schedules.policy import Policy

__all__ = ["searches", "space", "usual"]

_WORKSPACES: Final = (256, 8, 0)  # MiB
# How far down its ranking cuDNN is tried. Its first choice took 1.3 to 1.8 x the time that cuDNN needs after a search on five layers
# (H200, cuDNN 9.19, float32).
_RANKS: Final = 4


def usual(problem: Problem) -> Knobs:
    """Return cuDNN's heuristics among all engines that keep the element type's arithmetic; half precision channels last."""
    half = numpy_dtype(problem.spec.dtype).itemsize == 2
    return {"policy": 0, "strict": int(problem.spec.dtype in ("float32", "float64")), "deterministic": 0,
            "workspace_mib": _WORKSPACES[0], "engine": -1, "rank": 0, "transforms": 0, "compiles": 0,
            "channels_last": int(half and _in_eights(problem))}  # fmt: skip


def space(problem: Problem) -> Iterator[Knobs]:
    """Yield cuDNN's first choices, channels first and last, then with transforms, deterministic ones, by shrinking workspaces."""
    best, orders = usual(problem), _orders(problem)
    heuristics = [POLICIES.index(p) for p in ("heuristic", "heuristic_b", "fallback")]
    for workspace, deterministic in itertools.product(_WORKSPACES, (0, 1)):
        for transforms, rank, last in itertools.product((0, 1), range(_RANKS), orders):
            for policy in heuristics if rank == 0 else heuristics[:1]:
                yield {**best, "policy": policy, "deterministic": deterministic, "workspace_mib": workspace, "rank": rank, "transforms": transforms, "channels_last": last}  # fmt: skip


def searches(problem: Problem, policy: Policy) -> list[Knobs]:
    """Return cuDNN's own search, policy `time`, in each order and in three widths.

    Among engines that come compiled; those that it compiles, too; those with transforms, too, whose error is what is measured.
    """
    workspace = _WORKSPACES[0]
    if policy.workspace_limit is not None:
        workspace = min(workspace, policy.workspace_limit >> 20)
    best = {**usual(problem), "policy": POLICIES.index("time"), "workspace_mib": workspace}
    best["deterministic"] = int(policy.deterministic)
    return [
        {**best, "compiles": compiles, "transforms": transforms, "channels_last": last}
        for last in _orders(problem)
        for compiles, transforms in ((0, 0), (1, 0), (1, 1))
    ]


def _orders(problem: Problem) -> tuple[int, ...]:
    """Return the orders to try, the usual one first: of one channel both are the same."""
    spec, best = problem.spec, usual(problem)["channels_last"]
    return (best, 1 - best) if spec.in_channels > 1 and spec.out_channels > 1 else (0,)


def _in_eights(problem: Problem) -> bool:
    """Whether tensor cores take the channels as they lie."""
    spec = problem.spec
    return all(n // spec.group % 8 == 0 for n in (spec.in_channels, spec.out_channels))
