"""Run jobs on a device: needs convc's runtime and NumPy, torch for the peer's times; no compiler. Each result is kept as it comes.

A job whose result is there is not run again, so a check that was cut off goes on where it was. A job that fails is a result too; a device
that is lost (a sticky error) ends the process, and the next one goes on behind the job that lost it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from benchmarks.gpu.job import Case, Job, arrays, jobs_in
from convc.errors import ConvcError
from convc.ir.ops.conv import convolve, convolve_transposed
from convc.npz import load_npz
from convc.runtime import load

if TYPE_CHECKING:
    from benchmarks.gpu.peer import Peer

__all__ = ["RESULT", "run_jobs"]

RESULT: Final = ".result.json"

# |error| <= 4 eps sum |w| |x|, as in the project's tests.
_EPS: Final = float(np.finfo(np.float32).eps)
_FACTOR: Final = 4
# Winograd's intermediate values are larger than the result; its own bound is in the tests, here a factor of F(4, 3)'s.
_GROWTH: Final[Mapping[str, float]] = {"winograd": 32.0}
_NETWORK_TOLERANCE: Final = 1e-4


def run_jobs(
    folder: Path, results: Path, seconds: float, peer: Peer | None, say: Callable[[str], None]
) -> int:
    """Run the jobs without a result until `seconds` have passed; return how many are left."""
    results.mkdir(parents=True, exist_ok=True)
    began, left = time.monotonic(), 0
    for job in jobs_in(folder):
        path = results / f"{job.name}{RESULT}"
        if path.is_file():
            continue
        if time.monotonic() - began > seconds:
            left += 1
            continue
        started = path.with_suffix(".started")
        if started.is_file():
            _write(path, {"job": job, "failed": "the process ended while this job ran"})
            say(f"{job.name}: skipped, the process ended while it ran")
            continue
        started.touch()
        result = _result(job, folder, peer)
        _write(path, result)
        started.unlink()
        say(f"{job.name}: {_line(result)}")
    return left


def _write(path: Path, result: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(result))
    part.replace(path)


def _line(result: Mapping[str, Any]) -> str:
    if result.get("failed"):
        return f"FAILED {str(result['failed'])[:200]}"
    wrong = [c for c in result.get("cases", ()) if not c["ok"]]
    times = [c["seconds"] for c in result.get("cases", ()) if c.get("seconds")]
    shown = f"best {min(times) * 1e6:.1f} us" if times else ""
    if "seconds" in result:
        shown = f"{result['seconds'] * 1e3:.3f} ms, error {result['error']:.2g}"
    return f"{len(wrong)} wrong {shown}".strip()


def _result(job: Job, folder: Path, peer: Peer | None) -> dict[str, Any]:
    began = time.monotonic()
    try:
        found = _network(job, folder, peer) if job.model else _convolutions(job, folder, peer)
    except (ConvcError, RuntimeError) as error:
        found = {"failed": f"{type(error).__name__}: {error}"}
    return {"job": job, **found, "took": round(time.monotonic() - began, 2)}


def _convolutions(job: Job, folder: Path, peer: Peer | None) -> dict[str, Any]:
    module = load(job.module(folder))
    seeds = [0 if job.part == "layers" else i for i in range(len(job.cases))]
    cases: list[dict[str, Any]] = [
        {"algorithm": c.algorithm, "knobs": c.knobs, "key": c.key, "ok": True} for c in job.cases
    ]
    for exact in (True, False):
        data = [arrays(c, seed, exact) for c, seed in zip(job.cases, seeds, strict=True)]
        inputs = {p.name: data[int(p.name[1:])][0] for p in module.inputs}
        outputs = module.run(inputs)
        # All settings of a layer compute the same: one reference.
        references: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
        for index, (case, seed) in enumerate(zip(job.cases, seeds, strict=True)):
            if (case.key, seed) not in references:
                references[case.key, seed] = _reference(case, *data[index])
            expected, bound = references[case.key, seed]
            error = np.abs(outputs[f"y{index}"].astype(np.float64) - expected)
            limit = np.zeros_like(bound) if exact and case.algorithm not in _GROWTH else bound
            limit = limit * _GROWTH.get(case.algorithm, 1.0)
            ratio = float(np.max(error / np.maximum(bound, 1e-30))) if error.size else 0.0
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
    found: dict[str, Any] = {"cases": cases}
    if job.part == "layers" and peer is not None:
        found["peer"] = peer.layer(job.cases[0].spec)
    return found


def _reference(case: Case, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    function = convolve_transposed if case.spec.transposed else convolve
    wide = (x.astype(np.float64), w.astype(np.float64))
    bound = function(np.abs(wide[0]), np.abs(wide[1]), case.spec) * _FACTOR * _EPS
    return function(*wide, case.spec), bound


def _network(job: Job, folder: Path, peer: Peer | None) -> dict[str, Any]:
    from convc.runtime.device_module import DeviceModule

    module = load(job.module(folder))
    assert isinstance(module, DeviceModule)
    stored = load_npz(job.expected(folder))
    inputs = {k[3:]: v for k, v in stored.items() if k.startswith("in_")}
    outputs = module.run(inputs)
    error = 0.0
    for name, value in outputs.items():
        expected = stored[f"out_{name}"]
        scale = float(np.max(np.abs(expected)))
        error = max(error, float(np.max(np.abs(value - expected))) / scale)
    found: dict[str, Any] = {
        "error": error,
        "ok": error <= _NETWORK_TOLERANCE,
        "seconds": module.time(inputs),
        "steps": [
            {"node": t.step.node, "op": t.step.op, "algorithm": t.step.algorithm, "seconds": t.median}
            for t in module.profile(inputs, repeats=3)
        ],
    }  # fmt: skip
    if peer is not None:
        found["peer"] = peer.model(job.model, job.batch)
    return found
