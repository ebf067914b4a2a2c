"""Run jobs on a device, in this process: needs convc's runtime and NumPy, torch for the peer's times; no compiler.

Each result is kept as it comes, and a job whose result is there is not run again. A job that fails is a result, too; behind a failure that
may have cost this process the device (an illegal access makes every later call fail) no other job runs here: `supervise` begins another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks.gpu.byte_layers import run_byte_layer
from benchmarks.gpu.convolutions import run_convolutions
from benchmarks.gpu.gradients import run_gradients
from benchmarks.gpu.job import STARTED, Job, jobs_in
from benchmarks.gpu.library_calls import run_calls
from benchmarks.gpu.networks import run_network
from benchmarks.gpu.refusals import run_refusal
from benchmarks.gpu.share import WHOLE, Share, device_turn
from convc.errors import ConvcError, DeviceError, ToolchainError

if TYPE_CHECKING:
    from benchmarks.gpu.peer import Peer

__all__ = ["RESULT", "STARTED", "DeviceLostError", "keep", "run_jobs", "waiting"]

RESULT: Final = ".result.json"


class DeviceLostError(Exception):
    """A job failed in a way after which this process must not use the device."""


def waiting(folder: Path, results: Path, share: Share = WHOLE) -> list[Job]:
    """Return a share's jobs without a result, in their turn."""
    jobs = share.jobs(list(jobs_in(folder)))
    return [j for j in jobs if not (results / f"{j.name}{RESULT}").is_file()]


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    results: Path,
    seconds: float,
    peer: Peer | None,
    say: Callable[[str], None],
) -> int:
    """Run jobs until `seconds` have passed; return how many are left.

    While a job runs, a file beside its result says so.

    Raises:
        DeviceLostError: behind a job that failed on the device; its result is written.
    """
    results.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for done, job in enumerate(jobs):
        if time.monotonic() - began > seconds:
            return len(jobs) - done
        started = results / f"{job.name}{STARTED}"
        started.touch()
        result, lost = _result(job, folder, peer)
        keep(results, job, result)
        started.unlink()
        say(f"{job.name}: {_line(result)}, {result['took']:.1f} s")
        if lost:
            raise DeviceLostError
    return 0


def keep(results: Path, job: Job, found: Mapping[str, Any]) -> None:
    """Write a job's result, whole or not at all."""
    path = results / f"{job.name}{RESULT}"
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode({"job": job, **found}))
    part.replace(path)


def _line(result: Mapping[str, Any]) -> str:
    if result.get("failed"):
        return f"FAILED {str(result['failed'])[:200]}"
    wrong = [c for c in result.get("cases", ()) if not c["ok"]]
    times = [c["seconds"] for c in result.get("cases", ()) if c.get("seconds")]
    shown = f"best {min(times) * 1e6:.1f} us" if times else ""
    if "seconds" in result:
        shown = f"{result['seconds'] * 1e3:.3f} ms, error {result['error']:.2g}"
    if "compiled" in result:
        shown = f"{result['compiled'] * 1e3:.3f} ms"
    return f"{len(wrong)} wrong {shown}".strip()


def _result(job: Job, folder: Path, peer: Peer | None) -> tuple[dict[str, Any], bool]:
    """Return a job's result, and whether the device may be lost to this process."""
    began, lost = time.monotonic(), False
    try:
        found = _found(job, folder, peer)
    except (ConvcError, RuntimeError) as error:
        found = {"failed": f"{type(error).__name__}: {error}"}
        lost = not isinstance(error, ConvcError) or isinstance(error, DeviceError)
    return {**found, "at": round(time.time()), "took": round(time.monotonic() - began, 2)}, lost


def _found(job: Job, folder: Path, peer: Peer | None) -> dict[str, Any]:
    if job.part == "gradients":
        return run_gradients(job, folder)
    if job.part == "bytes":
        return run_byte_layer(job, folder)
    if job.part in ("grid", "layers"):
        return run_convolutions(job, folder, peer)
    with device_turn(folder, job):
        return _found_alone(job, folder, peer)


def _found_alone(job: Job, folder: Path, peer: Peer | None) -> dict[str, Any]:
    """Run a job that has the device from its beginning to its end."""
    if job.part == "calls":
        return run_calls(job.module(folder))
    if job.part == "refusals":
        return run_refusal(job, folder)
    if job.part == "compiled":
        if peer is None:
            raise ToolchainError("a network by torch.compile must have torch; got --no-peer.")
        return {"compiled": peer.compiled(job.model, job.batch, job.dtype, job.library)}
    return run_network(job, folder, peer)
