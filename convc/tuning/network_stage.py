"""The second half of a tuning run: what was fastest alone competes in its places in the network, and only what gains there is used.

    1. the plan without records, and for every workload the best few settings measured alone          contests
    2. modules in which workloads that are no neighbours run rivals, their steps timed in turns       attribution
    3. what is faster in its places, with all that it costs around it, beyond the limits of its error
    4. a module with all of that beside the one without records, whole runs in turns
    5. records of what won; where the whole gained nothing beyond the limits, of the model's choices  in_network

A record of a workload in a network is all that counts about it from then on, so that after a run that gained nothing `convc compile`
makes the module that it makes without records.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from convc.ir.graph import Graph
from convc.schedules.plan import Plan
from convc.schedules.policy import Policy
from convc.schedules.select import select
from convc.target import Target
from convc.tuning.attribution import Order, StepName, apart, order_of, owners
from convc.tuning.contests import Contest, contests_of, with_setting
from convc.tuning.device import device_name
from convc.tuning.in_network import latest
from convc.tuning.knowledge import matching, measurements
from convc.tuning.log import Log
from convc.tuning.network_bench import NetworkBench
from convc.tuning.network_key import network_key
from convc.tuning.network_outcome import Outcome, Won, records_of, whole_of
from convc.tuning.record import Record
from convc.tuning.search import Search
from convc.tuning.setting import Key
from convc.tuning.spread import Spread, spread
from convc.tuning.tasks import Task

__all__ = ["NetworkStage"]

# Of a workload so many settings, all within 10 % of the best alone; where less time is left than this, in seconds, the best alone. With
# three of each ResNet-50 takes 23 s to build (one core of a Zen 4) and 2 s a round.
_RIVALS: Final = 3
_HURRY: Final = 100.0
_NEAR: Final = 1.1
# A rival wins that saves more than this of its own time at the worse limit. The same code twice in one module, at other addresses,
# differs by up to 1.4 % (MobileNetV2 on Zen 4, 185 rounds; 0.3 % is the standard deviation over its steps).
_WORTH: Final = 0.02
# The module without rivals is there more than once, each with memory of its own, and a rival must be faster than all of them.
_COPIES: Final = 2
_FEWEST_ROUNDS: Final = 9
# So many rounds, and more of a network that is short: until so many seconds are over or there are this many times as many.
_ROUNDS: Final = 25
_WHOLE_ROUNDS: Final = 60
_SECONDS: Final = 10.0
_MORE: Final = 6
# Of the time that is left, the share that the steps' rounds may take; the rest is for the whole.
_FOR_STEPS: Final = 0.6

Progress = Callable[[str, int, int], None]


@dataclass
class NetworkStage:
    """One network.

    Attributes:
        graph: after all passes.
        tasks: its own, all of them.
        searches: by workload, what was tried alone.
        device: name, for records.
        max_error: of a setting.
        left: seconds that may still be spent; None: any.
    """

    graph: Graph
    tasks: Sequence[Task]
    target: Target
    log: Log
    searches: Mapping[str, Search]
    max_error: float | None = None
    device: str = ""
    left: Callable[[], float | None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    _own_seconds: dict[str, float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.device = self.device or device_name(self.target)
        self.key = network_key(self.graph)

    def recorded(self) -> Outcome | None:
        """Return what the log says of the network, without what was tried; None if a workload was timed alone since, or never here."""
        records, _ = matching(self.log.read().records, self.target, device=self.device)
        placed = {key: rows for (key, where), rows in latest(records).items() if where == self.key}
        keys = {c.key for c in self._contests(self._untuned())}
        alone: dict[str, float] = {}
        for record in records:
            if record.in_network is None and record.workload in keys:
                alone[record.workload] = max(record.at, alone.get(record.workload, 0.0))
        if not placed or any(
            key not in placed or placed[key][0].at < at for key, at in alone.items()
        ):
            return None
        last = max((rows[0] for rows in placed.values()), key=lambda r: r.at).in_network
        assert last is not None
        return Outcome(whole=whole_of(last))

    def run(self, bench: NetworkBench, progress: Progress) -> Outcome | None:
        """Time the network's rivals and record what won; None, and nothing recorded, if the time did not suffice.

        Raises:
            KeyboardInterrupt: passed on; nothing is recorded.
        """
        untuned = self._untuned()
        left = self.left()
        contests = self._contests(untuned, _RIVALS if left is None or left >= _HURRY else 1)
        order = order_of(bench.steps(untuned), contests)
        trials = list(_trials(contests, apart(contests, order)))
        plans = [untuned] * _COPIES + [_tried(untuned, contests, trial) for trial in trials]
        bench.build(plans, lambda done, total: progress("network build", done, total))
        names = [bench.steps(plan) for plan in plans]
        rounds = self._in_turns(len(plans), bench.profile, _ROUNDS, _FOR_STEPS, lambda n: progress("network steps", n, _ROUNDS))  # fmt: skip
        if rounds is None:
            return None
        self._own_seconds = _own_seconds(contests, order, names[0], rounds)
        won = self._winners(contests, trials, order, names, rounds)
        outcome = Outcome(sum(map(len, trials)), tuple(won))
        if won:
            whole = self._whole(untuned, contests, won, bench, progress)
            if whole is None:
                return None
            outcome = Outcome(outcome.tried, outcome.won, whole)
        self.log.append(self._records(contests, outcome))
        return outcome

    def _untuned(self) -> Plan:
        return select(self.graph, self.target, policy=Policy(max_error=self.max_error))

    def _contests(self, untuned: Plan, most: int = 0) -> list[Contest]:
        alone: dict[str, list[tuple[Key, float]]] = {}
        for key, search in self.searches.items():
            rows = search.ranking()
            alone[key] = [(s.key, seconds) for s, seconds in rows if seconds <= _NEAR * rows[0][1]]
        return contests_of(untuned, self.tasks, alone, most)

    def _in_turns(
        self,
        count: int,
        measure: Callable[[int], object],
        most: int,
        share: float,
        progress: Callable[[int], None],
    ) -> list[list] | None:
        """Return rounds of one measurement of each module, in an order that turns round, as many as there is time for."""
        left, began, rounds, spent = self.left(), self.clock(), [], 0.0
        while len(rounds) < most or (len(rounds) < _MORE * most and spent < _SECONDS):
            progress(min(most, len(rounds)))
            indices = range(count) if len(rounds) % 2 == 0 else reversed(range(count))
            measured = {index: measure(index) for index in indices}
            rounds.append([measured[index] for index in range(count)])
            spent = self.clock() - began
            if left is not None and spent * (1 + 1 / len(rounds)) > share * left:
                break
        return rounds if len(rounds) >= _FEWEST_ROUNDS else None

    def _winners(
        self,
        contests: Sequence[Contest],
        trials: Sequence[Mapping[int, Key]],
        order: Order,
        names: Sequence[Sequence[StepName]],
        rounds: Sequence[Sequence[Sequence[float]]],
    ) -> list[Won]:
        best: dict[int, Won] = {}
        for number, trial in enumerate(trials, _COPIES):
            tried = list(trial)
            owned, without = (owners(names[i], order, tried) for i in (number, 0))
            for index, setting in trial.items():
                there = [_sum(row[number], owned, index) for row in rounds]
                saved = [_saved(there, [_sum(row[c], without, index) for row in rounds]) for c in range(_COPIES)]  # fmt: skip
                own = self._own_seconds[contests[index].key]
                if min(sure for _, sure in saved) < _WORTH * own:
                    continue
                # Of a small layer between copies it may save more than the layer itself takes.
                seconds = max(own / 20, own - min(median for median, _ in saved))
                if index not in best or seconds < best[index].seconds:
                    best[index] = Won(contests[index], setting, seconds, own)
        return [best[index] for index in sorted(best)]

    def _whole(
        self,
        untuned: Plan,
        contests: Sequence[Contest],
        won: Sequence[Won],
        bench: NetworkBench,
        progress: Progress,
    ) -> Spread | None:
        """Return the time of a run with what won over that of one without records: the module that `convc compile` will make."""
        sure = Outcome(0, tuple(won), Spread(0.0, 0.0, 0.0))
        known, _ = matching(self.log.read().records, self.target, device=self.device)
        records = measurements([*known, *self._records(contests, sure)], self.key)
        policy = Policy(max_error=self.max_error)
        tuned = select(self.graph, self.target, policy=policy, records=records)
        bench.build([untuned, tuned], lambda done, total: progress("network build", done, total))
        rounds = self._in_turns(2, bench.run, _WHOLE_ROUNDS, 1.0, lambda n: progress("network whole", n, _WHOLE_ROUNDS))  # fmt: skip
        return None if rounds is None else spread([b / a for a, b in rounds])

    def _records(self, contests: Sequence[Contest], outcome: Outcome) -> list[Record]:
        network = (self.key, self.graph.name)
        return records_of(contests, outcome, self._own_seconds, self.searches, network, self.target, self.device)  # fmt: skip


def _trials(contests: Sequence[Contest], groups: Sequence[Sequence[int]]) -> Iterable[dict[int, Key]]:  # fmt: skip
    """Return for every module which workloads run which rival in it."""
    for group in groups:
        for number in range(max(len(contests[i].rivals) for i in group)):
            yield {i: contests[i].rivals[number] for i in group if number < len(contests[i].rivals)}


def _tried(plan: Plan, contests: Sequence[Contest], trial: Mapping[int, Key]) -> Plan:
    for index, setting in trial.items():
        plan = with_setting(plan, contests[index], setting)
    return plan


def _saved(there: Sequence[float], before: Sequence[float]) -> tuple[float, float]:
    """Return the seconds that a rival saves: by the median of the rounds' ratios, and at its worse limit."""
    ratio, seconds = (
        spread([a / b for a, b in zip(there, before, strict=True)]),
        spread(before).median,
    )
    return (1 - ratio.median) * seconds, (1 - ratio.high) * seconds


def _sum(times: Sequence[float], owned: Sequence[int | None], index: int) -> float:
    return sum(t for t, owner in zip(times, owned, strict=True) if owner == index)


def _own_seconds(
    contests: Sequence[Contest],
    order: Order,
    steps: Sequence[StepName],
    rounds: Sequence[Sequence[Sequence[float]]],
) -> dict[str, float]:
    """Return what the steps that compute a workload take in all of its places, by its key, in the module without rivals."""
    found = dict.fromkeys((c.key for c in contests), 0.0)
    for number, step in enumerate(steps):
        if step.computes and step.node in order.place:
            contest = contests[order.contest[order.place[step.node]]]
            found[contest.key] += spread([row[0][number] for row in rounds]).median
    return found
