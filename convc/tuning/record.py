"""One record a trial: a line of JSON that outlives releases of TVM, because it holds our knobs and not TVM's traces."""

from __future__ import annotations

import time
from typing import Final, Literal, TypeAlias

import msgspec

from convc.errors import TuningError

__all__ = ["SCHEMA", "InNetwork", "Record", "Status", "decode", "encode", "now"]

SCHEMA: Final = 1

Status: TypeAlias = Literal[
    "ok",
    "wrong",
    "build_error",
    "run_error",
    "memory",
    "timeout",
    "crash",
]


class InNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a setting that was timed in its places in a network, among other layers, and won there.

    Attributes:
        network: `network_key`.
        name: the graph's, for people.
        untuned: the model's choice there, algorithm and knobs.
        untuned_seconds: what that took in the same places.
        whole: time of the network with all that won over that without records: median and limits; all 1 where nothing was gained.
    """

    network: str
    name: str = ""
    untuned: tuple[str, dict[str, int]]
    untuned_seconds: float
    whole: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one setting.

    Attributes:
        schema: of this line; lines of another one are skipped with a count.
        workload: `Problem.key`.
        threads: that the code was planned for and timed with.
        target: `target_name`: the instruction set and vector unit.
        device: `device_name`: the machine's kind.
        template: version of the schedules, `TEMPLATE`.
        algorithm, knobs: the setting.
        status: "ok", or how it failed: wrong results, no build, an exception, out of memory, a time-out, a crash of its process.
        seconds: of one call, the median of the samples; 0 unless ok.
        samples: in seconds: medians of calls over the machine's pace meanwhile, see `Pace`; on a device or a server means.
        error: greatest |error| / greatest |result| against the float64 reference; negative if it was not checked.
        mode: "cold": another copy of the weights every call, as in a network; "warm": the same again.
        final: measured once more, in turns with its rivals.
        message: why it failed, one line.
        build_seconds: what building it took.
        at: when, seconds since 1970.
        versions: convc's and TVM's.
        in_network: where the setting was timed among a network's other layers; None: alone. Its seconds are then of one place, with what
            it makes its neighbours take longer, a copy for example. Lines of before have none.
    """

    schema: int = SCHEMA
    workload: str
    threads: int
    target: str
    device: str
    template: int
    algorithm: str
    knobs: dict[str, int]
    status: Status
    seconds: float = 0.0
    samples: tuple[float, ...] = ()
    error: float = -1.0
    mode: Literal["cold", "warm"] = "cold"
    final: bool = False
    message: str = ""
    build_seconds: float = 0.0
    at: float = 0.0
    versions: dict[str, str] = {}
    in_network: InNetwork | None = None

    def __post_init__(self) -> None:
        """Refuse times in a network that no ratio can be made of; msgspec reports it as a line that is no record."""
        where = self.in_network
        if where is not None and min(self.seconds, where.untuned_seconds) <= 0:
            raise ValueError(f"seconds in a network must be positive; got {self.seconds} and {where.untuned_seconds}")  # fmt: skip

    @property
    def setting(self) -> tuple[str, tuple[tuple[str, int], ...]]:
        """Algorithm and knobs, hashable."""
        return self.algorithm, tuple(sorted(self.knobs.items()))

    @property
    def key(self) -> tuple[str, int, str, str, int]:
        """What must agree for two records to be comparable."""
        return self.workload, self.threads, self.target, self.device, self.template


class _Header(msgspec.Struct, frozen=True):
    schema: int


def now() -> float:
    """Return the time for `Record.at`, in whole seconds."""
    return float(int(time.time()))


def encode(record: Record) -> bytes:
    """Return the record's line, without its end."""
    return msgspec.json.encode(record)


def decode(line: bytes) -> Record | None:
    """Return a line's record, or None if its schema is another one.

    Raises:
        TuningError: if it is no record at all.

    Example:
        >>> decode(b'{"schema": 99, "what": "a later convc wrote this"}') is None
        True
    """
    try:
        if msgspec.json.decode(line, type=_Header).schema != SCHEMA:
            return None
        return msgspec.json.decode(line, type=Record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        shown = line[:60].decode(errors="replace")
        raise TuningError(
            f"tuning log lines must be records of schema {SCHEMA}; got '{shown}' ({error})."
        ) from None
