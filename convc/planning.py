"""Graph -> Plan, with everything a choice may rest on: a lock file, tuning logs, pins, a policy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from convc.errors import UntunedError
from convc.ir.graph import Graph
from convc.lock import Lock, joined, lock_of, read_lock
from convc.schedules.cudnn_use import CudnnUse, wishes_with_cudnn
from convc.schedules.plan import Plan
from convc.schedules.policy import Policy
from convc.schedules.remarks import remarks_on
from convc.schedules.select import AUTO, is_convolution, problem_of, select
from convc.target import Target
from convc.tuning.knowledge import Knowledge, knowledge
from convc.tuning.network_key import network_key

__all__ = ["Planned", "Wishes", "locked_sizes", "plan_graph", "plan_module"]


@dataclass(frozen=True)
class Wishes:
    """What a user says about the choice.

    Attributes:
        algo: one algorithm for every convolution that it applies to; "auto" chooses per layer.
        algo_for: node name pattern -> algorithm that must be used there.
        policy: by what, and among which algorithms.
        logs: tuning logs to read; None: this device's, in ./tuning_logs and among the shipped ones.
        require_tuned: refuse a layer without a record of its own.
        locked: a lock file whose plan is used as it is; everything else is then the lock's.
        cudnn: whether to use cuDNN, see `convc.schedules.cudnn_use`.
    """

    algo: str = AUTO
    algo_for: Mapping[str, str] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    logs: Sequence[Path] | None = None
    require_tuned: bool = False
    locked: Path | None = None
    cudnn: CudnnUse = "auto"

    @staticmethod
    def of(
        algo: str = AUTO,
        algo_for: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        logs: Sequence[str | os.PathLike[str]] | None = None,
        require_tuned: bool = False,
        locked: str | os.PathLike[str] | None = None,
        cudnn: CudnnUse = "auto",
    ) -> Wishes:
        """Return the wishes with what is None left at its default."""
        return Wishes(
            algo,
            dict(algo_for or {}),
            policy or Policy(),
            None if logs is None else [Path(p) for p in logs],
            require_tuned,
            None if locked is None else Path(locked),
            cudnn,
        )

    def options(self) -> dict[str, str]:
        """Return what is not default, as manifests have it."""
        return {
            "algo": self.algo,
            **{f"algo_for.{k}": v for k, v in self.algo_for.items()},
            **{f"policy.{k}": v for k, v in self.policy.document().items()},
            **({} if self.cudnn == "auto" else {"cudnn": self.cudnn}),
        }


@dataclass(frozen=True)
class Planned:
    """A plan and where it comes from.

    Attributes:
        plan: the choices.
        options: for the module's manifest.
        lock: the plan as a lock file has it.
        records: workloads with records for this target on this device.
        notes: sentences for the user.
    """

    plan: Plan
    options: Mapping[str, str]
    lock: Lock
    records: int = 0
    notes: tuple[str, ...] = ()

    @property
    def tuning(self) -> str:
        """How many layers rest on records, and why the first others do not.

        Example: "52 of 53 layers tuned; conv_17 by estimate (no record for conv2d-...)"
        """
        choices = self.plan.layers
        if any(c.source == "lock" for c in choices.values()):
            return f"{len(choices)} layers as the lock file says"
        rest = self.plan.untuned
        text = f"{len(choices) - len(rest)} of {len(choices)} layers tuned"
        shown = [
            f"{name} by {'a like layer' if c.source == 'neighbour' else 'estimate'} ({c.because or 'no records of this device'})"
            for name, c in rest[:2]
        ]
        more = f" and {len(rest) - 2} more" if len(rest) > 2 else ""
        return "; ".join([text, *([", ".join(shown) + more] if shown else [])])


def plan_graph(
    graph: Graph,
    target: Target,
    wishes: Wishes,
    graph_sha256: str,
    part: int = 0,
    parts: int = 1,
) -> Planned:
    """Return the plan of a graph after all passes, the module's `part` of `parts`: see `Lock.plan`.

    Raises:
        InputError: for a use of cuDNN that there is not, or not on this target.
        ScheduleError: for an algorithm that does not exist or does not apply.
        UntunedError: if records are required and a layer has none; lists them all.
        TuningError: if the lock is not for this model, target and version.
        OSError: if a log or the lock cannot be read.
    """
    if wishes.locked is not None:
        lock = read_lock(wishes.locked)
        plan = lock.plan(graph, target, graph_sha256, part, parts)
        return Planned(plan, lock.options, lock, notes=_remarks(graph, plan, target))
    known = Knowledge({})
    if wishes.policy.by == "time":
        known = knowledge(target, wishes.logs, network_key(graph))
    convolves = any(map(is_convolution, graph.nodes))
    pins, policy = wishes_with_cudnn(wishes.cudnn, target, wishes.algo_for, wishes.policy, convolves)  # fmt: skip
    plan = select(
        graph,
        target,
        algo=wishes.algo,
        algo_for=pins,
        policy=policy,
        records=known.records,
    )
    if wishes.require_tuned and plan.untuned:
        rows = [f"{name}: {c.because or 'no records of this device'}" for name, c in plan.untuned]
        error = UntunedError(
            f"every layer must have a tuned record; got none for {len(rows)} of {len(plan.layers)}. "
            "Make them with `convc tune MODEL`, or leave out --require-tuned."
        )
        for row in rows:
            error.add_note(row)
        raise error
    options = wishes.options()
    lock = lock_of(graph, plan, target, graph_sha256, options)
    notes = (*known.notes, *_remarks(graph, plan, target))
    return Planned(plan, options, lock, len(known.records), notes)


def _remarks(graph: Graph, plan: Plan, target: Target) -> tuple[str, ...]:
    layers = ((name, problem_of(graph, graph[name]), c) for name, c in plan.choices.items())
    return remarks_on(layers, target)


def plan_module(
    parts: Sequence[tuple[Graph, Target]],
    wishes: Wishes,
    graph_sha256: str,
    batch_sizes: Sequence[int] = (0,),
) -> list[Planned]:
    """Return the plans of a module's parts, in order: its CPUs, and for each the batch sizes, largest first.

    The first one's lock holds them all. Raises as `plan_graph`.
    """
    planned = [
        plan_graph(graph, target, wishes, graph_sha256, part, len(parts))
        for part, (graph, target) in enumerate(parts)
    ]
    if wishes.locked is None:
        first = joined([p.lock for p in planned], batch_sizes)
        planned[0] = replace(planned[0], lock=first)
    return planned


def locked_sizes(wishes: Wishes) -> tuple[int, ...] | None:
    """Return the batch sizes of the lock file, None where there is none or it is of fixed shapes.

    Raises:
        TuningError: if it is not a lock file.
        OSError: if it cannot be read.
    """
    if wishes.locked is None:
        return None
    return read_lock(wishes.locked).batch_sizes or None
