"""A tuning log: JSON lines that are only ever appended to, each on the disk before the next trial begins.

kill -9 at any moment loses at most the record being written: the torn line that it leaves is cut off by the next writer and skipped by
readers. Several processes may write one log, a lock file beside it keeps their lines apart.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from filelock import FileLock

from convc.errors import TuningError
from convc.tuning.record import Record, decode, encode

__all__ = ["Contents", "Log", "read_log"]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a log holds.

    Attributes:
        records: in the order they were written.
        older: lines of another schema.
        damaged: lines that are no records, with their numbers; a torn last line is not among them.
        torn: whether the last line was cut short.
    """

    records: tuple[Record, ...] = ()
    older: int = 0
    damaged: tuple[int, ...] = ()
    torn: bool = False

    def notes(self, path: Path) -> list[str]:
        """Return what a user should know about lines that were not read, one sentence each."""
        rows = []
        if self.older:
            rows.append(f"{path}: {self.older} records of another schema are skipped.")
        if self.damaged:
            lines = ", ".join(map(str, self.damaged[:5]))
            rows.append(
                f"{path}: {len(self.damaged)} damaged lines are skipped (line {lines}); `convc log prune` removes them."
            )
        return rows


def read_log(path: Path) -> Contents:
    """Return a log's contents; a file that does not exist is empty.

    Raises:
        OSError: if it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Contents()
    records, older, damaged = [], 0, []
    *whole, rest = data.split(b"\n")
    for number, line in enumerate(whole, 1):
        if not line.strip():
            continue
        try:
            record = decode(line)
        except TuningError:
            damaged.append(number)
            continue
        if record is None:
            older += 1
        else:
            records.append(record)
    return Contents(tuple(records), older, tuple(damaged), bool(rest.strip()))


@dataclass
class Log:
    """One device's log, open for appending.

    Example:
        >>> import tempfile
        >>> from convc.tuning.record import Record
        >>> one = Record(workload="w", threads=1, target="t", device="d", template=1, algorithm="a", knobs={}, status="crash")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Log(Path(folder) / "llvm" / "d.jsonl")
        ...     log.append([one])
        ...     len(log.read().records)
        1
    """

    path: Path
    _lock: FileLock = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._lock = FileLock(str(self.path) + ".lock")

    def read(self) -> Contents:
        """Return what it holds now."""
        return read_log(self.path)

    def append(self, records: Iterable[Record]) -> None:
        """Write records behind the last whole line, and return when they are on the disk."""
        lines = b"".join(encode(record) + b"\n" for record in records)
        if not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, self.path.open("ab+") as file:
            _cut_torn_line(file)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def replace(self, records: Iterable[Record]) -> None:
        """Write the log anew with these records alone; the old file stays until the new one is complete."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
            try:
                with partial.open("wb") as file:
                    file.writelines(encode(record) + b"\n" for record in records)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(self.path)
            finally:
                partial.unlink(missing_ok=True)


def _cut_torn_line(file: IO[bytes]) -> None:
    size = file.seek(0, os.SEEK_END)
    position = size
    while position:
        step = min(position, 4096)
        file.seek(position - step)
        end = file.read(step).rfind(b"\n")
        if end >= 0:
            position += end + 1 - step
            break
        position -= step
    if position < size:
        file.truncate(position)
    file.seek(0, os.SEEK_END)
