"""What records say together: the best of each setting, and plain data for the choice at compile time."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from convc import version
from convc.schedules.table import TEMPLATE
from convc.schedules.tuned import Measurement
from convc.target import Target
from convc.tuning.device import device_name, log_path, target_name
from convc.tuning.in_network import in_networks
from convc.tuning.log import read_log
from convc.tuning.record import Record
from convc.tuning.search import Key, Trial

__all__ = [
    "ENVIRONMENT",
    "Knowledge",
    "folders",
    "knowledge",
    "matching",
    "measurements",
    "own_folder",
    "trials",
]

# A folder of logs to use instead of ./tuning_logs and the shipped one; empty: none at all.
ENVIRONMENT: Final = "CONVC_TUNING_LOGS"

# A setting without a final comparison was beaten by those with one: its single time must not overtake them by luck.
_BEATEN: Final = 1.001


def matching(records: Iterable[Record], target: Target, *, device: str | None = None) -> tuple[list[Record], int]:  # fmt: skip
    """Return the records that say something about this target and number of threads, and how many do not."""
    wanted = (target.cores, target_name(target), device or device_name(target), TEMPLATE)
    found, foreign = [], 0
    for record in records:
        if (record.threads, record.target, record.device, record.template) == wanted:
            found.append(record)
        else:
            foreign += 1
    return found, foreign


def trials(records: Iterable[Record]) -> dict[Key, Trial]:
    """Return what is known of each setting of one workload alone: the last final comparison, else the fastest success, else a failure."""
    rows: dict[Key, list[Record]] = defaultdict(list)
    for record in records:
        if record.in_network is None:
            rows[record.setting].append(record)
    known = {}
    for key, group in rows.items():
        good = [r for r in group if r.status == "ok"]
        finals = [r for r in good if r.final]
        if finals:
            known[key] = Trial(finals[-1].seconds, finals[-1].error, final=True)
        elif good:
            best = min(good, key=lambda r: r.seconds)
            known[key] = Trial(best.seconds, best.error)
        else:
            known[key] = Trial(None)
    return known


def measurements(
    records: Iterable[Record], network: str = ""
) -> dict[str, tuple[Measurement, ...]]:
    """Return the measurements by workload, of records that match each other; failures are left out.

    Where a workload was timed in a network, what was found there is all that counts, see `in_networks`.

    Args:
        records: of one target and device.
        network: `network_key` of the one that is compiled.
    """
    records = list(records)
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.workload].append(record)
    found = {}
    for workload, group in groups.items():
        known = {key: t for key, t in trials(group).items() if t.seconds is not None}
        least = min((t.seconds or 0.0 for t in known.values() if t.final), default=0.0)
        rows = [
            Measurement(name, dict(knobs), t.seconds if t.final else max(t.seconds, _BEATEN * least), t.error)
            for (name, knobs), t in known.items()
            if t.seconds is not None
        ]  # fmt: skip
        if rows:
            # Of equal times the one that leaves less open, see `Settles`.
            found[workload] = tuple(sorted(rows, key=lambda m: (m.seconds, m.algorithm, -len(m.knobs))))  # fmt: skip
    return found | in_networks(records, network)


def folders() -> list[Path]:
    """Return the folders of tuning logs in the order they are asked: this folder's, then the shipped ones."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen is not None:
        return [Path(chosen)] if chosen else []
    package = Path(version.__file__).parent
    places = (Path.cwd(), package, package.parent)
    return list(dict.fromkeys(p / "tuning_logs" for p in places if (p / "tuning_logs").is_dir()))


def own_folder() -> Path:
    """Return the folder that records are written to: the first one that is read, or would be if it were there."""
    return Path(os.environ.get(ENVIRONMENT) or "tuning_logs")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of one target on one device.

    Attributes:
        records: by workload, for `select`.
        paths: the logs that were read.
        foreign: records of another target, device, template or number of threads.
        notes: sentences for the user about lines that were not read.
    """

    records: Mapping[str, tuple[Measurement, ...]]
    paths: tuple[Path, ...] = ()
    foreign: int = 0
    notes: tuple[str, ...] = ()


def knowledge(target: Target, logs: Sequence[Path] | None = None, network: str = "") -> Knowledge:
    """Return what the logs know of a target.

    Args:
        target: with the number of threads as its cores.
        logs: files to read; by default this device's log in every one of `folders`.
        network: `network_key` of the one that is compiled.

    Raises:
        OSError: if a log cannot be read.
    """
    paths = list(logs) if logs is not None else [log_path(folder, target) for folder in folders()]
    paths = [path for path in paths if logs is not None or path.is_file()]
    records: list[Record] = []
    foreign, notes = 0, []
    for path in paths:
        contents = read_log(path)
        mine, others = matching(contents.records, target)
        records += mine
        foreign += others
        notes += contents.notes(path)
    return Knowledge(measurements(records, network), tuple(paths), foreign, tuple(notes))
