"""The comparison of whole models as one table, one JSON document, and the sentences that go with them."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec

from benchmarks.model_runs import ModelResult
from benchmarks.ours import CONVC
from benchmarks.peers import Peer
from convc.cli.render import Column, table
from convc.machine import Peak
from convc.runtime import host
from convc.version import VERSION

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Document", "machine_warnings", "models_table", "notes", "versions"]

# Measured on a quiet machine: the peak repeats within 1 %, so 3 % means that the clock changed or somebody else was running.
_PEAK_CHANGE = 0.03


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` writes.

    Attributes:
        models: one entry per model and number of threads.
        peak_gflops_per_core: the higher of the two peaks, of one core alone; GFLOP/s.
        peak_before, peak_after: measured before the first model and after the last; the latter None until then.
        date: when it began, in UTC.
        cpu: the processor's name.
        cores: how many this process may use.
        rounds: of blocks, per model.
        versions: of convc, TVM and every engine that is installed.
        warnings: why the whole run may mislead.
    """

    models: tuple[ModelResult, ...]
    peak_gflops_per_core: float
    peak_before: float
    peak_after: float | None
    date: str
    cpu: str
    cores: int
    rounds: int
    versions: dict[str, str]
    warnings: tuple[str, ...]

    @staticmethod
    def of(
        models: Sequence[ModelResult],
        peers: Sequence[Peer],
        before: Peak,
        after: Peak | None,
        *,
        date: datetime.datetime,
        rounds: int,
        warnings: Sequence[str] = (),
    ) -> Document:
        """Return the document of a run, which may not have ended yet."""
        peaks = [p.gflops_per_second for p in (before, after) if p is not None]
        changed = [] if after is None else machine_warnings(peaks[0], peaks[1])
        return Document(
            models=tuple(models),
            peak_gflops_per_core=max(peaks),
            peak_before=peaks[0],
            peak_after=peaks[1] if after else None,
            date=date.astimezone(datetime.UTC).isoformat(timespec="seconds"),
            cpu=host.cpu().name,
            cores=host.usable_threads(),
            rounds=rounds,
            versions=versions(peers),
            warnings=(*warnings, *changed),
        )


def versions(peers: Sequence[Peer]) -> dict[str, str]:
    """Return the versions of everything that takes part."""
    ours = {
        "python": platform.python_version(),
        "convc": VERSION,
        "apache-tvm": version("apache-tvm"),
    }
    return ours | {name: number for peer in peers for name, number in peer.versions().items()}


def machine_warnings(before: float, after: float) -> list[str]:
    """Return why two peaks, or the machine's load, make the numbers doubtful.

    Example:
        >>> machine_warnings(100.0, 110.0)
        ["the machine's peak changed by +10 % during the run (100 to 110 GFLOP/s a core)."]
    """
    change = after / before - 1
    if abs(change) <= _PEAK_CHANGE:
        return []
    return [
        f"the machine's peak changed by {100 * change:+.0f} % during the run ({before:.0f} to {after:.0f} GFLOP/s a core)."
    ]


def load_warnings() -> list[str]:
    """Return that other programs are running, if they are."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load <= 0.5:
        return []
    return [f"the load average is {load:.1f} before the run; other programs are running."]


def _cell(result: ModelResult, peer: str) -> str:
    """Return a peer's time, and convc's time over it."""
    if peer in result.ms:
        ratio = f" ({result.ratio[peer]:.2f})" if peer in result.ratio else ""
        return f"{result.ms[peer]:.2f}{ratio}"
    return "failed" if peer in result.errors else ""


def models_table(results: Sequence[ModelResult], peers: Sequence[Peer]) -> Table:
    """Return one row per model and number of threads; a peer's cell has its time and convc's time over it."""
    columns = (
        Column("model"),
        *(Column(title, True) for title in ("threads", CONVC.name, *(p.name for p in peers), "/ best", "error")),
    )  # fmt: skip
    rows = [
        (
            r.model,
            str(r.threads),
            f"{r.ms[CONVC.name]:.2f}" if CONVC.name in r.ms else "failed",
            *(_cell(r, peer.name) for peer in peers),
            "" if r.ratio_to_best is None else f"{r.ratio_to_best:.2f} {r.best_peer}",
            "" if r.max_error is None else f"{r.max_error:.1e}",
        )
        for r in results
    ]
    title = "ms a call, median; in brackets and under '/ best': convc's time / the peer's (below 1, convc is faster)"
    return table(title, columns, rows)


def notes(document: Document) -> list[str]:
    """Return the sentences below the table: the machine, the versions, every error and every warning."""
    after = "" if document.peak_after is None else f" before, {document.peak_after:.1f} after"
    lines = [
        "error: convc's largest difference from onnxruntime / the largest output",
        f"{document.cpu}, {document.cores} cores; float32 peak {document.peak_before:.1f}{after} GFLOP/s a core; {document.date}",
        ", ".join(f"{name} {number}" for name, number in document.versions.items()),
    ]
    for result in document.models:
        where = f"{result.model}, {result.threads} thread{'s' if result.threads > 1 else ''}"
        lines += [f"{where}: {text}" for text in result.errors.values()]
        lines += [f"warning: {where}: {text}" for text in result.warnings]
    return lines + [f"warning: {text}" for text in document.warnings]
