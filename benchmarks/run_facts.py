"""What every benchmark says about its run: the machine and its peak before and after, the versions, and what may mislead."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.peers import Peer
from convc.machine import remeasure_peak
from convc.runtime import host
from convc.version import VERSION

__all__ = ["RunFacts", "peak_warnings", "write_document"]

# On a quiet machine the peak repeats within 1 %, so 3 % means that the clock changed or that somebody else was running.
_PEAK_CHANGE: Final = 0.03
# A desktop's background noise is below; one busy program is 1.
_QUIET_LOAD: Final = 0.5


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one run; `begin` measures them, `ended` completes them.

    Attributes:
        peak_gflops_per_core: the higher of the two peaks; float32 GFLOP/s of one core, `peak_threads` of them busy.
        peak_before, peak_after: before the first and after the last measurement; the latter is None until then.
        peak_threads: how many cores were busy when the peak was measured.
        date: when it began, in UTC.
        cpu: the processor's name.
        cores: how many this process may use.
        rounds: of blocks, see `benchmarks.interleave`.
        versions: of convc, TVM and every peer that is installed.
        warnings: why the numbers may mislead.
    """

    peak_gflops_per_core: float
    peak_before: float
    peak_after: float | None
    peak_threads: int
    date: str
    cpu: str
    cores: int
    rounds: int
    versions: dict[str, str]
    warnings: tuple[str, ...]

    @staticmethod
    def begin(peers: Sequence[Peer], rounds: int, threads: int = 1) -> RunFacts:
        """Return the facts before the first measurement."""
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        warnings = [f"the load average is {load:.1f} before the run; other programs are running."]
        peak = _peak(threads)
        return RunFacts(
            peak_gflops_per_core=peak,
            peak_before=peak,
            peak_after=None,
            peak_threads=threads,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            cpu=host.cpu().name,
            cores=host.usable_threads(),
            rounds=rounds,
            versions=_versions(peers),
            warnings=tuple(warnings if load > _QUIET_LOAD else ()),
        )

    def ended(self) -> RunFacts:
        """Return the facts after the last measurement."""
        after = _peak(self.peak_threads)
        return msgspec.structs.replace(
            self,
            peak_gflops_per_core=max(self.peak_before, after),
            peak_after=after,
            warnings=(*self.warnings, *peak_warnings(self.peak_before, after)),
        )

    def lines(self) -> list[str]:
        """Return the facts as sentences, warnings last."""
        peak = f"{self.peak_before:.1f}"
        if self.peak_after is not None:
            peak += f" before and {self.peak_after:.1f} after"
        return [
            f"{self.cpu}, {self.cores} core{'s' if self.cores > 1 else ''}; float32 peak {peak} GFLOP/s a core; {self.date}",
            ", ".join(f"{name} {number}" for name, number in self.versions.items()),
            *(f"warning: {text}" for text in self.warnings),
        ]


def _peak(threads: int) -> float:
    return remeasure_peak(threads).gflops_per_second / threads


def _versions(peers: Sequence[Peer]) -> dict[str, str]:
    ours = {
        "python": platform.python_version(),
        "convc": VERSION,
        "apache-tvm": version("apache-tvm"),
    }
    return ours | {name: number for peer in peers for name, number in peer.versions().items()}


def peak_warnings(before: float, after: float) -> list[str]:
    """Return that the machine changed while it was measured, if it did.

    Example:
        >>> peak_warnings(100.0, 110.0)
        ["the machine's peak changed by +10 % during the run (100 to 110 GFLOP/s a core)."]
    """
    change = after / before - 1
    if abs(change) <= _PEAK_CHANGE:
        return []
    return [
        f"the machine's peak changed by {100 * change:+.0f} % during the run ({before:.0f} to {after:.0f} GFLOP/s a core)."
    ]


def write_document(path: Path, parts: dict[str, object], facts: RunFacts) -> None:
    """Write one JSON document, the parts first; a reader never sees half of one."""
    document = {**parts, **msgspec.structs.asdict(facts)}
    scratch = path.with_name(path.name + ".part")
    scratch.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    scratch.replace(path)
