"""The knobs of a call of cuDNN: the usual ones, those worth measuring, cuDNN's own search, and what any of them promise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Final

from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.runtime.libraries.cudnn import POLICIES
from convc.schedules.algorithm import Problem
from convc.schedules.cuda.tf32 import ROUNDING
from convc.schedules.plan import Knobs
from convc.schedules.policy import Policy
from convc.schedules.properties import Properties

__all__ = ["NEEDED", "promised", "searches", "space", "usual"]

_WORKSPACES: Final = (256, 8, 0)  # MiB
# How far down its ranking cuDNN is tried. Its first choice took 1.3 to 1.8 x the time that cuDNN needs after a search on five layers
# (H200, cuDNN 9.19, float32).
_RANKS: Final = 4
# What the engine took where it was measured; what it may take stays `workspace_mib`.
NEEDED: Final = "needed_bytes"
# Of ways to choose that bound the memory (`plans.h`), bytes.
_BOUNDED: Final = {"none": 0, "small": 8 << 20}
_TRANSFORMS: Final = frozenset({"fft", "fft_tiling", "winograd", "winograd_non_fused"})


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


def promised(spec: ConvSpec, knobs: Knobs, error: float) -> Properties:
    """Return what the knobs promise of a call.

    Args:
        spec: the convolution that the call computes, or whose gradient.
        knobs: of the call.
        error: expected of a sum of products.
    """
    policy = POLICIES[knobs["policy"]]
    deterministic = bool(knobs["deterministic"]) or policy == "deterministic"
    workspace = min(knobs["workspace_mib"] << 20, _BOUNDED.get(policy, math.inf))
    transforming = knobs["transforms"] or policy in _TRANSFORMS
    error = math.inf if transforming else error
    if spec.dtype == "float32" and not knobs["strict"]:
        # It may take tensor cores, whose operands are TF32.
        error += ROUNDING
    return Properties(
        spec.flops, int(workspace), error, deterministic, workspace > 0, knobs.get(NEEDED)
    )


def _orders(problem: Problem) -> tuple[int, ...]:
    """Return the orders to try, the usual one first: of one channel both are the same."""
    spec, best = problem.spec, usual(problem)["channels_last"]
    return (best, 1 - best) if spec.in_channels > 1 and spec.out_channels > 1 else (0,)


def _in_eights(problem: Problem) -> bool:
    """Whether tensor cores take the channels as they lie."""
    spec = problem.spec
    return all(n // spec.group % 8 == 0 for n in (spec.in_channels, spec.out_channels))
