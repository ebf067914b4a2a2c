"""What a network's comparison came to, and the records that say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from convc.schedules.table import TEMPLATE
from convc.target import Target
from convc.toolchain import installed_version
from convc.tuning.contests import Contest
from convc.tuning.device import target_name
from convc.tuning.record import InNetwork, Record, now
from convc.tuning.search import Search
from convc.tuning.setting import Key
from convc.tuning.spread import Spread
from convc.version import VERSION

__all__ = ["Outcome", "Won", "records_of", "whole_of"]

# The whole must gain more than the last digit of the limits that are shown.
_GAIN: Final = 0.9995
# `InNetwork.whole` where nothing was gained.
_NOTHING: Final = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Won:
    """A workload whose rival won in its places: the setting, seconds of all places together, and those of the model's choice."""

    contest: Contest
    setting: Key
    seconds: float
    untuned_seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of a network.

    Attributes:
        tried: rivals that were timed.
        won: those faster in their places.
        whole: time of a run with them over one without records; None where none won.
    """

    tried: int = 0
    won: tuple[Won, ...] = ()
    whole: Spread | None = None

    @property
    def gained(self) -> bool:
        """Whether the whole gained beyond its limits, so that what won is used.

        Example:
            >>> Outcome(whole=Spread(0.95, 0.94, 0.96)).gained, Outcome(whole=Spread(0.99, 0.98, 1.01)).gained
            (True, False)
        """
        return self.whole is not None and self.whole.high < _GAIN


def whole_of(found: InNetwork) -> Spread | None:
    """Return the time of the whole over one without records as a record has it; None where nothing was gained."""
    return None if found.whole == _NOTHING else Spread(*found.whole)


def records_of(
    contests: Iterable[Contest],
    outcome: Outcome,
    own_seconds: Mapping[str, float],
    searches: Mapping[str, Search],
    network: tuple[str, str],
    target: Target,
    device: str,
) -> list[Record]:
    """Return a record of every workload that was searched: of what won, or of the model's own settings where nothing did.

    Args:
        contests: all of the network.
        outcome: what won counts if the whole gained.
        own_seconds: by workload, of the model's choices in all places.
        searches: by workload, what was tried alone; others get no record.
        network: key and name.
        target: that they were built for.
        device: that they were timed on.
    """
    won = {row.contest.key: row for row in outcome.won} if outcome.gained else {}
    whole, limits = outcome.whole, _NOTHING
    if whole is not None and won:
        limits = (round(whole.median, 4), round(whole.low, 4), round(whole.high, 4))
    at, versions = now(), {"convc": VERSION, "tvm": installed_version("apache-tvm") or ""}
    records = []
    for contest in contests:
        search = searches.get(contest.key)
        if search is None:
            continue
        places, own, row = len(contest.places), own_seconds[contest.key], won.get(contest.key)
        seconds = own if row is None else row.seconds
        for setting in contest.own if row is None else (row.setting,):
            untuned = contest.own[0] if row is not None else setting
            trial = search.known.get(setting)
            records.append(
                Record(
                    workload=contest.key,
                    threads=target.cores,
                    target=target_name(target),
                    device=device,
                    template=TEMPLATE,
                    algorithm=setting[0],
                    knobs=dict(setting[1]),
                    status="ok",
                    seconds=float(f"{seconds / places:.4g}"),
                    error=trial.error if trial is not None else -1.0,
                    at=at,
                    versions=versions,
                    in_network=InNetwork(
                        network=network[0],
                        name=network[1],
                        untuned=(untuned[0], dict(untuned[1])),
                        untuned_seconds=float(f"{own / places:.4g}"),
                        whole=limits,
                    ),
                )
            )
    return records
