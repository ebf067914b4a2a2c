"""A profile as a Chrome trace, for chrome://tracing and ui.perfetto.dev.

SOURCE  "Trace Event Format": complete events (`ph` = X), microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from convc.errors import InputError
from convc.runtime.manifest import Manifest
from convc.runtime.profile import StepTimes

__all__ = ["trace_events", "write_trace"]


def trace_events(
    manifest: Manifest, times: Sequence[StepTimes], peak_gflops_per_second: float | None = None
) -> list[dict[str, object]]:
    """Return the events of every round, one for each step, on one time axis that starts at 0.

    Args:
        manifest: of the module.
        times: its profile.
        peak_gflops_per_second: of the machine; with it every event says how much of it the step reached.
    """
    begin = min((start for timed in times for start in timed.starts), default=0.0)
    events: list[dict[str, object]] = [
        {"ph": "M", "pid": 1, "tid": 1, "name": "process_name", "args": {"name": manifest.name}},
        {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": manifest.target.mcpu}},
    ]  # fmt: skip
    for timed in times:
        step = timed.step
        for start, spent in zip(timed.starts, timed.seconds, strict=True):
            facts: dict[str, object] = {
                "algorithm": step.algorithm,
                "reason": step.reason,
                "knobs": step.knobs,
                "key": step.key,
                "flops": step.flops,
                "nbytes": step.nbytes,
            }
            if step.flops and spent:
                facts["gflops_per_second"] = rate = step.flops / spent / 1e9
                if peak_gflops_per_second:
                    facts["percent_of_peak"] = 100 * rate / peak_gflops_per_second
            events.append(
                {
                    "ph": "X",
                    "pid": 1,
                    "tid": 1,
                    "name": step.node,
                    "cat": step.algorithm or step.op,
                    "ts": 1e6 * (start - begin),
                    "dur": 1e6 * spent,
                    "args": facts,
                }
            )
    return sorted(events, key=lambda event: float(str(event.get("ts", -1))))


def write_trace(
    path: Path,
    manifest: Manifest,
    times: Sequence[StepTimes],
    peak_gflops_per_second: float | None = None,
) -> None:
    """Write a profile at `path`; arguments as `trace_events`.

    Raises:
        InputError: if the file cannot be written.
    """
    document = {
        "displayTimeUnit": "ms",
        "traceEvents": trace_events(manifest, times, peak_gflops_per_second),
    }
    try:
        path.write_bytes(msgspec.json.encode(document))
    except OSError as error:
        raise InputError(
            f"trace must be a file that can be written; got '{path}' ({error.strerror})."
        ) from None
