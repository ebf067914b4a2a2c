"""Run jobs on a device, in this process: needs convc's runtime and NumPy, torch for the peer's times; no compiler.

Each result is kept as it comes, and a job whose result is there is not run again. A job that fails is a result, too; behind a failure that
may have cost this process the device (an illegal access makes every later call fail) no other job runs here: `supervise` begins another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from benchmarks.gpu.gradients import run_gradients
from benchmarks.gpu.job import Case, Job, arrays, jobs_in
from benchmarks.gpu.library_calls import run_calls
from benchmarks.gpu.networks import run_network
from benchmarks.gpu.refusals import run_refusal
from convc.errors import ConvcError, DeviceError, ToolchainError
from convc.ir.ops.conv import convolve, convolve_transposed
from convc.ir.types import numpy_dtype
from convc.runtime import load
from convc.schedules.error_bound import INEXACT, error_bound, relative_error, result_rounding

if TYPE_CHECKING:
    from benchmarks.gpu.peer import Peer

__all__ = ["RESULT", "STARTED", "DeviceLostError", "keep", "run_jobs", "waiting"]

RESULT: Final = ".result.json"
STARTED: Final = ".started"


class DeviceLostError(Exception):
    """A job failed in a way after which this process must not use the device."""


def waiting(folder: Path, results: Path) -> list[Job]:
    """Return the jobs without a result, in their turn."""
    return [j for j in jobs_in(folder) if not (results / f"{j.name}{RESULT}").is_file()]


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
    return {**found, "took": round(time.monotonic() - began, 2)}, lost


def _found(job: Job, folder: Path, peer: Peer | None) -> dict[str, Any]:
    if job.part == "calls":
        return run_calls(job.module(folder))
    if job.part == "refusals":
        return run_refusal(job, folder)
    if job.part == "gradients":
        return run_gradients(job, folder)
    if job.part == "models":
        return run_network(job, folder, peer)
    if job.part == "compiled":
        if peer is None:
            raise ToolchainError("a network by torch.compile must have torch; got --no-peer.")
        return {"compiled": peer.compiled(job.model, job.batch, job.dtype, job.library == "tf32")}
    return _convolutions(job, folder, peer)


def _convolutions(job: Job, folder: Path, peer: Peer | None) -> dict[str, Any]:
    began = time.perf_counter()
    module = load(job.module(folder))
    loaded = time.perf_counter()
    seeds = [0 if job.part == "layers" else i for i in range(len(job.cases))]
    cases: list[dict[str, Any]] = [
        {"algorithm": c.algorithm, "knobs": c.knobs, "key": c.key, "ok": True} for c in job.cases
    ]
    first = 0.0
    for exact in (True, False):
        data = [arrays(c, seed, exact) for c, seed in zip(job.cases, seeds, strict=True)]
        inputs = {p.name: data[int(p.name[1:])][0] for p in module.inputs}
        before = time.perf_counter()
        outputs = module.run(inputs)
        first = first or time.perf_counter() - before
        # All settings of a layer compute the same: one reference.
        references: dict[tuple[str, int], _Reference] = {}
        limits: dict[tuple[str, int, str, int, int, int], np.ndarray] = {}
        for index, (case, seed) in enumerate(zip(job.cases, seeds, strict=True)):
            if (case.key, seed) not in references:
                references[case.key, seed] = _reference(case, *data[index])
            reference = references[case.key, seed]
            knobs = case.knobs
            kinds = (knobs.get("m", 0), knobs.get("math", 0), knobs.get("transforms", 0))
            kind = (case.key, seed, case.algorithm, *kinds)
            if kind not in limits:
                limits[kind] = reference.limit(case)
            expected, limit = reference.expected, limits[kind]
            # An external library's transforms round as ours do.
            if exact and case.algorithm not in INEXACT and not knobs.get("transforms"):
                # Sums are exact in float32; a narrower result is rounded once.
                expected = expected.astype(numpy_dtype(case.spec.dtype)).astype(np.float64)
                limit = np.zeros_like(expected)
            error = np.abs(outputs[f"y{index}"].astype(np.float64) - expected)
            ratio = float(np.max(error / np.maximum(limit, 1e-30))) if error.size else 0.0
            cases[index]["exact_error" if exact else "error_of_bound"] = (
                float(error.max(initial=0)) if exact else ratio
            )
            cases[index]["ok"] = bool(cases[index]["ok"] and np.all(error <= limit))
    if job.part == "layers":
        inputs = {p.name: arrays(job.cases[0], 0, False)[0] for p in module.inputs}
        times = {t.step.node: t for t in module.profile(inputs, repeats=5)}
        for index, case in enumerate(job.cases):
            measured = times[f"y{index}"]
            cases[index] |= {
                "seconds": measured.median,
                "samples": measured.seconds,
                "estimate": case.estimate,
                "default": case.default,
            }
    found: dict[str, Any] = {"cases": cases, "load_seconds": loaded - began, "first_run_seconds": first}  # fmt: skip
    if module.preparation is not None:
        found["prepared_seconds"] = module.preparation.seconds
        found["plans"] = [f"{p.spec} engine {p.engine} in {p.seconds * 1e3:.1f} ms" for p in module.preparation.plans]  # fmt: skip
    if job.part == "layers" and peer is not None:
        found["peer"] = peer.layer(job.cases[0].spec)
    return found


@dataclass(frozen=True, slots=True)
class _Reference:
    """The float64 result of a convolution, and the same of absolute values."""

    expected: np.ndarray
    absolute: np.ndarray
    data: np.ndarray
    weight: np.ndarray

    def limit(self, case: Case) -> np.ndarray:
        """Return by how much the case's algorithm may differ, as in the project's tests."""
        if case.algorithm in INEXACT:
            return error_bound(case.algorithm, self.data, self.weight, case.spec, case.knobs)
        bound = relative_error(case.algorithm, case.spec, case.knobs) * self.absolute
        return bound + result_rounding(case.spec.dtype) * np.abs(self.expected)


def _reference(case: Case, x: np.ndarray, w: np.ndarray) -> _Reference:
    function = convolve_transposed if case.spec.transposed else convolve
    wide = (x.astype(np.float64), w.astype(np.float64))
    absolute = function(np.abs(wide[0]), np.abs(wide[1]), case.spec)
    return _Reference(function(*wide, case.spec), absolute, x, w)
