"""What tuning on a device came to: of each layer the least time of our kernels and of each library, all measured by the tuner."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.gpu.layer_table import microseconds
from convc.runtime.driver import look
from convc.tuning.layer import Layer
from convc.tuning.session import Session

__all__ = ["Best", "Tuned", "table", "tuned", "write_tuned"]

_LIBRARIES: Final = ("cudnn", "cutlass")
_OWN: Final = "own"


class Best(msgspec.Struct, frozen=True):
    """The fastest setting of somebody's, accurate enough to win."""

    algorithm: str
    knobs: dict[str, int]
    seconds: float


class Tuned(msgspec.Struct, frozen=True):
    """One layer.

    Attributes:
        layer, workload: as the tuner calls it, and its problem's key.
        done: whether the tuner had nothing left to try.
        model: seconds of what the compiler takes without a record.
        best: by whom: "own", "cudnn", "cutlass".
        taken: what the compiler takes from now on: the fastest of the last comparison in turns, which a single time does not overtake.
        trials: of this run, by status.
    """

    layer: str
    workload: str
    done: bool
    model: float | None
    best: dict[str, Best]
    taken: Best | None
    trials: dict[str, int]

    @property
    def winner(self) -> str:
        """Whose setting is taken; "" if all failed."""
        return _who(self.taken.algorithm) if self.taken else ""

    def over(self, who: str) -> float | None:
        """Return somebody's least time over that of what is taken; None where there is none."""
        theirs = self.best.get(who)
        return theirs.seconds / self.taken.seconds if theirs and self.taken else None


def tuned(session: Session) -> list[Tuned]:
    """Return the layers that the session has measured anything of, in the model's order."""
    return [_of(layer) for layer in session.layers if layer.search.known]


def _of(layer: Layer) -> Tuned:
    rows = [
        (Best(s.algorithm, dict(s.knobs), seconds), layer.search.known[s.key].final)
        for s, seconds in layer.search.ranking()
    ]
    best: dict[str, Best] = {}
    for row, _ in rows:
        best.setdefault(_who(row.algorithm), row)
    taken = next((row for row, final in rows if final), rows[0][0] if rows else None)
    task = layer.task
    return Tuned(task.name, task.subject.key, layer.done, layer.baseline, best, taken, dict(layer.counts))  # fmt: skip


def _who(algorithm: str) -> str:
    return algorithm if algorithm in _LIBRARIES else _OWN


def write_tuned(session: Session, path: Path) -> None:
    """Write `PATH.json`, and the table as `PATH.md`: whole files at any moment."""
    rows, devices = tuned(session), look().devices
    device = msgspec.to_builtins(devices[0]) if devices else {}
    document = {"device": device, "trials": session.counts, "layers": rows}
    for suffix, text in ((".json", msgspec.json.encode(document)), (".md", table(rows, device).encode())):  # fmt: skip
        part = path.with_suffix(f"{suffix}.part")
        part.write_bytes(text)
        part.replace(path.with_suffix(suffix))


def table(rows: Sequence[Tuned], device: Mapping[str, object]) -> str:
    """Return a Markdown document: what has been measured of each layer, and how a library alone compares with what is taken."""
    lines = [
        f"# Tuned on {device.get('name', 'an unknown device')}, {time.strftime('%Y-%m-%d', time.gmtime())}", "",
        f"{sum(r.done for r in rows)} of {len(rows)} layers done. Microseconds; `model` is what is taken without a record, `own` the best of our kernels.", "",
        "| layer | model | own | its setting | cuDNN | CUTLASS | taken | cuDNN / taken |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        own, *libraries = (row.best.get(who) for who in (_OWN, *_LIBRARIES))
        setting = f"{own.algorithm} {' '.join(f'{k}={v}' for k, v in own.knobs.items())}" if own else ""  # fmt: skip
        times = [microseconds(b.seconds if b else None) for b in libraries]
        over = row.over("cudnn")
        shown = [
            row.layer if row.done else f"{row.layer} (not done)",
            microseconds(row.model), microseconds(own.seconds if own else None), setting, *times, row.winner or "all failed",
            "" if over is None else f"{over:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(shown)} |")
    lines.append("")
    for who in _LIBRARIES:
        ratios = [over for row in rows if (over := row.over(who)) is not None]
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            lines.append(f"{who} alone takes {mean:.2f} times as long in the geometric mean of {len(ratios)} layers, {min(ratios):.2f} at least; it is taken on {sum(r.winner == who for r in rows)}.")  # fmt: skip
    if missing := [row.layer for row in rows if "cudnn" not in row.best]:
        lines += ["", f"Without a time of cudnn: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"
