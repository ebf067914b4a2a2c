"""Time a module: latency with its spread, GFLOP/s against the machine's measured peak, and whether the numbers can be trusted.

A peer is timed in the same process, in alternating small blocks on the same inputs, so that both see the same machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from convc.errors import InputError
from convc.inputs import random_inputs
from convc.machine import Peak, measure_peak, remeasure_peak
from convc.verify import Runnable

__all__ = [
    "BenchReport",
    "Latency",
    "PeerReport",
    "Progress",
    "TimedModule",
    "bench",
    "noise_warnings",
]

Arrays = Mapping[str, np.ndarray]
Progress = Callable[[str, int, int], None]

# A block this long is short against changes of the machine's clock and long against a context switch.
_BLOCK_SECONDS: Final = 0.1


class TimedModule(Runnable, Protocol):
    """What is timed: a loaded module, or anything that runs like one."""

    @property
    def threads(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Latency:
    """Statistics of one call's time.

    Units:
        seconds. `cv` is the coefficient of variation: standard deviation / mean.
    """

    median: float
    p90: float
    p99: float
    min: float
    mean: float
    cv: float
    iterations: int

    @staticmethod
    def of(samples: Sequence[float]) -> Latency:
        """Return the statistics of some samples.

        Example:
            >>> Latency.of([1.0, 2.0, 3.0]).median
            2.0
        """
        seconds = np.asarray(samples, np.float64)
        median, p90, p99 = (float(q) for q in np.quantile(seconds, (0.5, 0.9, 0.99)))
        mean = float(seconds.mean())
        return Latency(
            median, p90, p99, float(seconds.min()), mean, float(seconds.std()) / mean, len(seconds)
        )


@dataclass(frozen=True, slots=True)
class PeerReport:
    """The peer's latency in the same run; `ratio` is ours / theirs by medians: below 1, convc is faster."""

    name: str
    version: str
    latency: Latency
    ratio: float
    first_run_seconds: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What `bench` measured.

    Attributes:
        latency: of one call of `run`, checks and copies included.
        threads: the module's.
        flops: of the convolutions and dense layers, as the direct method counts them; 0 if not known.
        peak: the machine's, the higher of one measured before and one after; None if not asked for.
        first_run_seconds: of the very first call.
        warnings: why the numbers may be noisy; empty when quiet.
    """

    latency: Latency
    threads: int
    flops: int
    first_run_seconds: float
    peak: Peak | None = None
    peer: PeerReport | None = None
    warnings: tuple[str, ...] = ()

    @property
    def gflops_per_second(self) -> float:
        return self.flops / self.latency.median / 1e9

    @property
    def percent_of_peak(self) -> float | None:
        return 100 * self.gflops_per_second / self.peak.gflops_per_second if self.peak else None


def noise_warnings(
    latency: Latency, load_average: float | None, cores: int, peaks: tuple[float, float] | None
) -> tuple[str, ...]:
    """Return why a measurement may be noisy, one sentence each.

    Example:
        >>> noise_warnings(Latency.of([1.0, 1.1]), 3.0, 2, None)
        ('the load average is 3.0 on 2 cores; other programs are running.',)
    """
    slower = latency.p90 / latency.median
    load = load_average or 0.0
    before, after = peaks or (1.0, 1.0)
    change = 100 * (after / before - 1)
    rows = (
        (latency.cv > 0.10, f"latency varies by {100 * latency.cv:.0f} % (standard deviation / mean); quiet is below 10 %."),
        (slower > 1.25, f"p90 is {slower:.2f} x the median; quiet is below 1.25 x."),
        (load > cores + 0.5, f"the load average is {load:.1f} on {cores} cores; other programs are running."),
        (abs(change) > 5, f"the machine's peak changed by {change:+.0f} % during the measurement ({before:.0f} to {after:.0f} GFLOP/s)."),
    )  # fmt: skip
    return tuple(text for noisy, text in rows if noisy)


def _timed_block(run: Callable[[], object], seconds: float, limit: int | None) -> list[float]:
    """Return the times of calls until `seconds` have passed or `limit` calls are made; at least one."""
    samples: list[float] = []
    deadline = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        run()
        end = time.perf_counter()
        samples.append(end - start)
        if end >= deadline or (limit is not None and len(samples) >= limit):
            return samples


def _first(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _measure(
    contestants: Sequence[Callable[[], object]],
    duration_seconds: float,
    iterations: int | None,
    progress: Progress | None,
) -> list[list[float]]:
    """Return each contestant's samples, taken in alternating blocks; `duration_seconds` and `iterations` are per contestant."""
    samples: list[list[float]] = [[] for _ in contestants]
    several = len(contestants) > 1
    spent = 0.0
    while True:
        for index, run in enumerate(contestants):
            if several:
                # The one before left its threads spinning and the caches full of its data: not this one's fault.
                run()
            left = None if iterations is None else iterations - len(samples[index])
            samples[index] += _timed_block(run, _BLOCK_SECONDS, left)
        spent = max(sum(s) for s in samples)
        done = min(len(s) for s in samples)
        total = duration_seconds if iterations is None else iterations
        if progress is not None:
            now = spent if iterations is None else done
            progress("measure", min(100, int(100 * now / total)), 100)
        if (iterations is None and spent >= duration_seconds) or (
            iterations is not None and done >= iterations
        ):
            return samples


def bench(
    module: TimedModule,
    *,
    warmup_seconds: float = 1.0,
    duration_seconds: float = 5.0,
    iterations: int | None = None,
    inputs: Arrays | None = None,
    seed: int = 0,
    flops: int = 0,
    with_peak: bool = True,
    vs: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Measure the latency of `module.run`.

    Args:
        module: a loaded module.
        warmup_seconds: calls before the measurement, not counted.
        duration_seconds: of the measurement, per contestant.
        iterations: stop after so many calls instead of `duration_seconds`.
        inputs: arrays to feed; else random ones of `seed`.
        seed: of the random inputs.
        flops: of one call, for GFLOP/s.
        with_peak: measure the machine's peak before and after.
        vs: the .onnx model; ONNX Runtime is timed on it, interleaved, with the same inputs and as many threads.
        progress: called with ("warm up" | "measure", done, 100).

    Raises:
        InputError: if there is nothing to measure.
        ToolchainError: if `vs` is given and onnxruntime is not installed.
    """
    if iterations is not None and iterations < 1:
        raise InputError(f"bench iterations must be at least 1; got {iterations}.")
    if iterations is None and duration_seconds <= 0:
        raise InputError(f"bench duration must be positive; got {duration_seconds:g} s.")
    threads = module.threads
    fed = random_inputs(module.inputs, seed) if inputs is None else dict(inputs)
    peak = measure_peak(threads) if with_peak else None

    def ours() -> object:
        return module.run(fed)

    contestants: list[Callable[[], object]] = [ours]
    peer_version = ""
    if vs is not None:
        from convc.onnxruntime_peer import OnnxRuntimePeer

        peer = OnnxRuntimePeer(vs, threads)
        peer_version = peer.version
        contestants.append(lambda: peer.run(fed))

    first_runs = [_first(run) for run in contestants]
    for index, run in enumerate(contestants):
        if progress is not None:
            progress("warm up", 100 * index // len(contestants), 100)
        if warmup_seconds > 0:
            _timed_block(run, warmup_seconds, None)
    load_average = _load_average()
    latencies = [
        Latency.of(s) for s in _measure(contestants, duration_seconds, iterations, progress)
    ]

    peaks = None
    if peak:
        # The same length of measurement as `peak`, else the two are not comparable. The higher one is what the machine can do.
        after = remeasure_peak(threads)
        peaks = (peak.gflops_per_second, after.gflops_per_second)
        peak = max(peak, after, key=lambda p: p.gflops_per_second)
    peer_report = None
    if vs is not None:
        ratio = latencies[0].median / latencies[1].median
        peer_report = PeerReport("onnxruntime", peer_version, latencies[1], ratio, first_runs[1])
    return BenchReport(
        latency=latencies[0],
        threads=threads,
        flops=flops,
        first_run_seconds=first_runs[0],
        peak=peak,
        peer=peer_report,
        warnings=noise_warnings(latencies[0], load_average, os.cpu_count() or 1, peaks),
    )
