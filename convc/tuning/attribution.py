"""Whose fault each step's time is: from the steps of networks in which some workloads run rivals to what each rival costs.

A rival changes more than its own step: it may need a copy of its data or its result, and it leaves the caches otherwise for the layer
behind it. So workloads whose places follow one another never run rivals in the same network (`apart`), and a rival answers for its own
places, for all that is moved or computed between them and the layers before and behind, and for the layer behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convc.tuning.contests import Contest

__all__ = ["Order", "StepName", "apart", "order_of", "owners"]


@dataclass(frozen=True, slots=True)
class StepName:
    """A step of a module: the node that it is reported for, and whether it computes that or only moves its data."""

    node: str
    computes: bool


@dataclass(frozen=True, slots=True)
class Order:
    """The places of a network.

    Attributes:
        contest: of each place in the order of execution, its workload's index.
        place: node -> the place that it is in.
    """

    contest: tuple[int, ...]
    place: Mapping[str, int]


def order_of(steps: Sequence[StepName], contests: Sequence[Contest]) -> Order:
    """Return the places in the order in which a module runs them.

    Example:
        >>> contests = [Contest(n, "layer", ((n,),), ()) for n in ("a", "b")]
        >>> order_of([StepName("b", True), StepName("a", False), StepName("a", True)], contests).contest
        (1, 0)
    """
    found = {n: (i, names) for i, c in enumerate(contests) for names in c.places for n in names}
    contest: list[int] = []
    place: dict[str, int] = {}
    for step in steps:
        if step.computes and step.node in found and step.node not in place:
            index, names = found[step.node]
            place.update(dict.fromkeys(names, len(contest)))
            contest.append(index)
    return Order(tuple(contest), place)


def apart(contests: Sequence[Contest], order: Order) -> list[list[int]]:
    """Return workloads in groups, by index, in none of which places of two follow one another; those without rivals are left out.

    Example:
        >>> contests = [Contest(n, "layer", ((n,),), (), (("direct", ()),)) for n in "abc"]
        >>> apart(contests, order_of([StepName(n, True) for n in "abc"], contests))
        [[0, 2], [1]]
    """
    near: dict[int, set[int]] = {i: set() for i in range(len(contests))}
    for one, other in itertools.pairwise(order.contest):
        near[one].add(other)
        near[other].add(one)
    groups: list[list[int]] = []
    for index, contest in enumerate(contests):
        if not contest.rivals or index not in order.contest:
            continue
        own = next((g for g in groups if near[index].isdisjoint(g)), None)
        if own is None:
            groups.append([index])
        else:
            own.append(index)
    return groups


def owners(steps: Sequence[StepName], order: Order, tried: Sequence[int]) -> list[int | None]:
    """Return for each step which of the workloads that run rivals answers for it, by index; None: no one's.

    Args:
        steps: of a module in which the workloads `tried` run rivals, or of the one without rivals that it is compared with.
        order: of the places.
        tried: no two of them neighbours.

    Example:
        >>> contests = [Contest(n, "layer", ((n,),), ()) for n in "abc"]
        >>> order = order_of([StepName(n, True) for n in "abc"], contests)
        >>> steps = [StepName("a", True), StepName("b", False), StepName("b", True), StepName("c", True)]
        >>> owners(steps, order, [1])  # a copy for b, b itself, and the layer behind it
        [None, 1, 1, 1]
    """

    def tries(place: int | None) -> int | None:
        if place is None or not 0 <= place < len(order.contest):
            return None
        index = order.contest[place]
        return index if index in tried else None

    places = [order.place.get(s.node) if s.computes else None for s in steps]
    following: list[int | None] = []
    behind: int | None = None
    for place in reversed(places):
        behind = behind if place is None else place
        following.append(behind)
    following.reverse()
    found: list[int | None] = []
    before: int | None = None
    for step, place, after in zip(steps, places, following, strict=True):
        if place is not None:
            before = place
            rows = [place, place - 1]
        else:
            rows = [order.place.get(step.node), after, before]
        answers = [tries(row) for row in rows]
        found.append(next((a for a in answers if a is not None), None))
    return found
