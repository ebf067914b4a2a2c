"""What competes for its places in a network: of each workload the setting that the plan runs, and the best of those measured alone.

A workload is a layer, a chain of layers, or a convolution with the pool behind it; the latter two in one kernel or apart. All of its
places in the network take the same setting, as a record of it will have them. A layer in a chain that competes does not compete itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from convc.schedules import chains, gated, pooled
from convc.schedules.algorithm import SEPARATOR, Problem
from convc.schedules.bottleneck import Bottleneck
from convc.schedules.plan import Chain, Knobs, Plan
from convc.schedules.pooled import Pooled
from convc.schedules.tuned import APART
from convc.tuning.setting import Key
from convc.tuning.tasks import Task

__all__ = ["Contest", "contests_of", "with_setting"]

Kind: TypeAlias = Literal["layer", "chain", "pooled"]
_REASON: Final = "tried in its place"


@dataclass(frozen=True)
class Contest:
    """One workload.

    Attributes:
        key: `Subject.key`.
        kind: how the plan says it.
        places: the nodes of each place in the network.
        own: the distinct settings that the plan runs there, the first place's first.
        rivals: other settings, the fastest alone first.
    """

    key: str
    kind: Kind
    places: tuple[tuple[str, ...], ...]
    own: tuple[Key, ...]
    rivals: tuple[Key, ...] = ()


# A chain that the plan runs apart competes if alone it took at most so much of what its layers took alone, all at their best: then they do
# not. With all within 1.1 of it MobileNetV2 (one core of a Zen 4) gained from none, and not from its depthwise layers either, 0.3 %.
_JOINED: Final = 0.95


def contests_of(
    plan: Plan, tasks: Iterable[Task], alone: Mapping[str, Sequence[tuple[Key, float]]], most: int
) -> list[Contest]:
    """Return the workloads that a plan's convolutions pose.

    Args:
        plan: what rivals compete with.
        tasks: of the same graph; weight gradients are left out.
        alone: by workload, settings worth a trial with their seconds, the fastest alone first.
        most: rivals of each.
    """
    rows = [(task, [tuple(n.split(SEPARATOR)) for n in task.layers]) for task in tasks]
    together = {chain.layers for chain in plan.chains if chain.kind == chains.NAME}
    together |= _might_join(rows, alone, {name for names in together for name in names})
    found: list[tuple[Kind, str, list[tuple[str, ...]]]] = []
    for task, places in rows:
        if isinstance(task.problem, Bottleneck):
            found.append(("chain", task.subject.key, [p for p in places if p in together]))
    taken = {name for names in together for name in names}
    for task, places in rows:
        if isinstance(task.problem, Pooled):
            found.append(("pooled", task.subject.key, [p for p in places if taken.isdisjoint(p)]))
    taken |= {name for _, _, places in found for names in places for name in names}
    for task, places in rows:
        if isinstance(task.problem, Problem):
            found.append(("layer", task.subject.key, [p for p in places if taken.isdisjoint(p)]))
    scaled = {c.layers[-1] for c in plan.chains if c.kind == gated.NAME}
    made = []
    for kind, key, places in found:
        if not places:
            continue
        own = list(dict.fromkeys(_setting(plan, kind, names) for names in places))
        rivals = [k for k, _ in alone.get(key, ()) if k not in own]
        if any(names[-1] in scaled for names in places):
            # Whether a gate joins the layer depends on the algorithm.
            rivals = [k for k in rivals if k[0] == own[0][0]]
        if kind == "chain" and (APART, ()) not in own:
            rivals.insert(0, (APART, ()))
        made.append(Contest(key, kind, tuple(places), tuple(own), tuple(rivals[:most])))
    return made


def _might_join(
    rows: Sequence[tuple[Task, list[tuple[str, ...]]]],
    alone: Mapping[str, Sequence[tuple[Key, float]]],
    taken: set[str],
) -> set[tuple[str, ...]]:
    """Return places of chains with no layer in common that could gain by being one kernel, as measured alone: what saves most first."""
    seconds = {task.layers: alone[task.subject.key][0][1] for task, _ in rows if alone.get(task.subject.key)}  # fmt: skip
    own = {n: seconds[t.layers] for t, _ in rows if isinstance(t.problem, Problem) and t.layers in seconds for n in t.layers}  # fmt: skip
    options = []
    for task, places in rows:
        if not isinstance(task.problem, Bottleneck) or task.layers not in seconds:
            continue
        for names in places:
            apart = sum(own.get(name, 0.0) for name in names)
            if all(name in own for name in names) and seconds[task.layers] <= _JOINED * apart:
                options.append((seconds[task.layers] - apart, names))
    found: set[tuple[str, ...]] = set()
    for _, names in sorted(options):
        if taken.isdisjoint(names):
            found.add(names)
            taken |= set(names)
    return found


def _setting(plan: Plan, kind: Kind, names: tuple[str, ...]) -> Key:
    """Return what a plan runs in a place, as a record of the workload says it."""
    chain = next((c for c in plan.chains if c.layers == names), None)
    if kind == "chain":
        return _key(chains.NAME, chain.knobs) if chain is not None else (APART, ())
    choice = plan.choices[names[0]]
    if kind == "pooled":
        return _key(choice.algorithm, {**choice.knobs, "strip": 0, **(chain.knobs if chain else {})})  # fmt: skip
    return _key(choice.algorithm, choice.knobs)


def _key(algorithm: str, knobs: Knobs) -> Key:
    return algorithm, tuple(sorted(knobs.items()))


def with_setting(plan: Plan, contest: Contest, setting: Key) -> Plan:
    """Return the plan with a setting in all places of a workload."""
    algorithm, knobs = setting[0], dict(setting[1])
    others = tuple(c for c in plan.chains if c.layers not in contest.places)
    if contest.kind == "chain":
        if algorithm == APART:
            return replace(plan, chains=others)
        joined = (Chain(names, knobs, _REASON, chains.NAME) for names in contest.places)
        return replace(plan, chains=(*others, *joined))
    choices = dict(plan.choices)
    strip = knobs.pop("strip", 0) if contest.kind == "pooled" else 0
    for names in contest.places:
        choices[names[0]] = replace(choices[names[0]], algorithm=algorithm, knobs=knobs, reason=_REASON)  # fmt: skip
    if contest.kind == "layer":
        return replace(plan, choices=choices)
    joined = (Chain(n, {"strip": strip}, _REASON, pooled.NAME) for n in contest.places if strip)
    return replace(plan, choices=choices, chains=(*others, *joined))
