"""What records from networks say: in this network, or of one that was timed in others alone.

A time alone and a time among other layers cannot be compared, and the second is what a module takes. So where a workload was timed in a
network, nothing else about it counts. Another network's word counts too, since its neighbours are more alike than none; where several
contradict each other it depends on the neighbours, and the estimate stands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from convc.schedules.algorithm import SEPARATOR
from convc.schedules.tuned import Measurement, Untuned
from convc.tuning.record import Record
from convc.tuning.setting import Key

__all__ = ["in_networks", "latest"]


def latest(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """Return (workload, network) -> the records of the last time that it was timed there."""
    found: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.in_network is not None:
            rows = found[record.workload, record.in_network.network]
            if rows and rows[0].at < record.at:
                rows.clear()
            if not rows or rows[0].at == record.at:
                rows.append(record)
    return dict(found)


def in_networks(records: Iterable[Record], network: str = "") -> dict[str, tuple[Measurement, ...]]:
    """Return the measurements by workload of those timed in networks; none of one where the estimate stands.

    Args:
        records: of one target and device.
        network: whose own records go before all others'.
    """
    by_workload: dict[str, dict[str, list[Record]]] = defaultdict(dict)
    for (workload, where), rows in latest(records).items():
        by_workload[workload][where] = rows
    found = {key: _agreed(rows, network) for key, rows in by_workload.items()}
    # A layer that ran in a chain, or before its pool, was not timed by itself: there its time alone says nothing either.
    for key, rows in list(found.items()):
        first, *others = key.split(SEPARATOR)
        if not others:
            continue
        if others[0].partition("-")[0].endswith("_pool"):
            found.setdefault(first, tuple(map(_without_strip, rows)))
            continue
        for layer in (first, *others):
            found.setdefault(layer, ())
    return found


def _agreed(by_network: dict[str, list[Record]], network: str) -> tuple[Measurement, ...]:
    rows = by_network.get(network)
    if rows is None:
        # Of several that agree the last one's times.
        *others, rows = by_network.values()
        if any(_settings(other) != _settings(rows) for other in others):
            return ()
    return tuple(sorted(map(_measurement, rows), key=lambda m: m.seconds))


def _settings(rows: Sequence[Record]) -> set[Key]:
    return {row.setting for row in rows}


def _measurement(record: Record) -> Measurement:
    assert record.in_network is not None
    (algorithm, knobs), seconds = record.in_network.untuned, record.in_network.untuned_seconds
    untuned = Untuned(algorithm, knobs, seconds)
    return Measurement(record.algorithm, record.knobs, record.seconds, record.error, untuned)


def _without_strip(row: Measurement) -> Measurement:
    """Return the convolution's own part of a record of a convolution and its pool."""

    def own(knobs: dict[str, int]) -> dict[str, int]:
        return {name: value for name, value in knobs.items() if name != "strip"}

    untuned = row.untuned and Untuned(row.untuned.algorithm, own(dict(row.untuned.knobs)), row.untuned.seconds)  # fmt: skip
    return Measurement(row.algorithm, own(dict(row.knobs)), row.seconds, row.error, untuned)
