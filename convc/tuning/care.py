"""Care of logs: what is in them, what is best, one made of several, old lines out, tables for other programs."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convc.errors import TuningError
from convc.schedules.table import TEMPLATE
from convc.tuning.in_network import latest
from convc.tuning.knowledge import trials
from convc.tuning.log import Contents, Log, read_log
from convc.tuning.record import Record

__all__ = [
    "Best",
    "LogSummary",
    "append_new",
    "best_of",
    "find_logs",
    "merge",
    "prune",
    "summary",
    "write_csv",
]


@dataclass(frozen=True, slots=True)
class LogSummary:
    """One log in numbers."""

    path: str
    device: str
    targets: tuple[str, ...]
    threads: tuple[int, ...]
    records: int
    workloads: int
    statuses: dict[str, int]
    skipped: int
    outdated: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Best:
    """The best setting of one workload, and how many were tried alone; `in_network`: the network it was the best in, last of all."""

    workload: str
    threads: int
    target: str
    device: str
    algorithm: str
    knobs: dict[str, int]
    seconds: float
    error: float
    final: bool
    trials: int
    in_network: str = ""


def find_logs(folder: Path) -> list[Path]:
    """Return the logs under a folder; a file is itself.

    Raises:
        TuningError: if there is no such folder or file.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise TuningError(
            f"tuning logs must be a folder or a .jsonl file; got '{folder}': no such place. `convc tune MODEL` makes one."
        )
    return sorted(folder.rglob("*.jsonl"))


def summary(path: Path) -> LogSummary:
    """Return a log in numbers."""
    contents = read_log(path)
    rows = contents.records
    return LogSummary(
        str(path),
        ", ".join(sorted({r.device for r in rows})),
        tuple(sorted({r.target for r in rows})),
        tuple(sorted({r.threads for r in rows})),
        len(rows),
        len({r.workload for r in rows}),
        dict(Counter(r.status for r in rows).most_common()),
        contents.older + len(contents.damaged) + contents.torn,
        sum(r.template != TEMPLATE for r in rows),
        path.stat().st_size,
    )


def best_of(records: Iterable[Record]) -> list[Best]:
    """Return the best setting of every workload, device and number of threads; those without a success are left out.

    Where a workload was timed in networks, that is the best in the last of them, which no time alone can be compared with.
    """
    groups: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.key].append(record)
    rows = []
    for (workload, threads, target, device, _), group in groups.items():
        known = trials(group)
        good = [(t.seconds, key, t) for key, t in known.items() if t.seconds is not None]
        placed = max(latest(group).values(), key=lambda rows: rows[0].at, default=None)
        if placed is not None:
            best = min(placed, key=lambda r: r.seconds)
            assert best.in_network is not None
            rows.append(
                Best(workload, threads, target, device, best.algorithm, best.knobs, best.seconds, best.error, False, len(known), best.in_network.name)
            )  # fmt: skip
        elif good:
            finals = [row for row in good if row[2].final]
            seconds, (name, knobs), trial = min(finals or good, key=lambda row: row[:2])
            rows.append(
                Best(workload, threads, target, device, name, dict(knobs), seconds, trial.error, trial.final, len(known))
            )  # fmt: skip
    return rows


def merge(into: Path, logs: Sequence[Path]) -> int:
    """Append the records of some logs that `into` does not have yet, and return how many those are.

    Raises:
        TuningError: if the logs are of different devices: their times are not comparable.
    """
    return append_new(into, (r for path in logs for r in read_log(path).records))


def append_new(into: Path, records: Iterable[Record]) -> int:
    """Append the records that a log does not have yet, and return how many those are.

    Raises:
        TuningError: if they, or the log's own, are of different devices: their times are not comparable.
    """
    target = Log(into)
    known = target.read()
    seen = set(map(_identity, known.records))
    devices = {r.device for r in known.records}
    new: list[Record] = []
    for record in records:
        devices.add(record.device)
        if _identity(record) not in seen:
            seen.add(_identity(record))
            new.append(record)
    if len(devices) > 1:
        raise TuningError(
            f"logs to merge must be of one device; got {', '.join(sorted(devices))}. Keep a file for each."
        )
    target.append(new)
    return len(new)


def _identity(record: Record) -> tuple:
    where = record.in_network and record.in_network.network
    return (
        *record.key,
        *record.setting,
        record.at,
        record.seconds,
        record.final,
        record.status,
        where,
    )


def prune(path: Path, *, keep: int = 5) -> tuple[int, int]:
    """Keep the best settings of every workload, what was found last in each network, all failures once; nothing of another template.

    Args:
        path: the log.
        keep: successful settings of a workload.

    Returns:
        Records before and after.
    """
    log = Log(path)
    contents: Contents = log.read()
    groups: dict[tuple, list[Record]] = defaultdict(list)
    for record in contents.records:
        if record.template == TEMPLATE:
            groups[record.key].append(record)
    kept: list[Record] = []
    for group in groups.values():
        known = trials(group)
        good = sorted((t.seconds, key) for key, t in known.items() if t.seconds is not None)
        wanted = {key for _, key in good[:keep]} | {k for k, t in known.items() if t.final}
        placed = latest(group)
        last: dict[tuple, Record] = {}
        for record in group:
            if record.in_network is not None:
                continue
            if record.setting in wanted or record.status != "ok":
                old = last.get((record.setting, record.final))
                if (
                    old is None
                    or record.final
                    or record.status != "ok"
                    or record.seconds < old.seconds
                ):
                    last[record.setting, record.final] = record
        kept += last.values()
        kept += [record for rows in placed.values() for record in rows]
    before = len(contents.records) + contents.older + len(contents.damaged) + contents.torn
    log.replace(kept)
    return before, len(kept)


def write_csv(rows: Sequence[Best], path: Path) -> None:
    """Write the best settings as a table for spreadsheets."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["workload", "threads", "target", "device", "algorithm", "knobs", "seconds", "error", "trials"])  # fmt: skip
        for row in rows:
            knobs = " ".join(f"{k}={v}" for k, v in row.knobs.items())
            writer.writerow([row.workload, row.threads, row.target, row.device, row.algorithm, knobs, row.seconds, row.error, row.trials])  # fmt: skip
