"""Convolutions on a device: each case right on whole numbers and within its bound on normal ones; layers timed, beside torch.

The float64 reference is NumPy's, on the machine that holds the device: a layer's batch repeats three images, so that three are enough.
"""

from __future__ import annotations

import time
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.gpu.job import Case, Job, arrays, beyond_rounding
from benchmarks.gpu.share import device_turn
from convc.ir import ConvSpec
from convc.ir.ops.conv import convolve, convolve_transposed
from convc.ir.types import numpy_dtype
from convc.runtime import load
from convc.schedules.error_bound import INEXACT, error_bound, relative_error, result_rounding

if TYPE_CHECKING:
    from benchmarks.gpu.peer import Peer

__all__ = ["run_convolutions"]

# Distinct images of a layer's batch. Not a power of two, as tiles are: a wrong image is another one then.
# 32 images of a 31 x 31 filter took float64 80 s.
_IMAGES: Final = 3

# Seconds of a module's first run, from which on its steps are timed once.
_SLOW: Final = 0.5

# References that are kept: a layer's, on whole and on normal numbers, which an external library's job asks for as well.
_KEPT: Final = 2


def run_convolutions(job: Job, folder: Path, peer: Peer | None) -> dict[str, Any]:
    """Return a row for each case: its errors, and for layers its time on the device and torch's."""
    with device_turn(folder, job):
        began = time.perf_counter()
        module = load(job.module(folder))
        loaded = time.perf_counter()
    layer = job.part == "layers"
    # All settings of a layer compute the same.
    seeds = [0 if layer else i for i in range(len(job.cases))]
    cases: list[dict[str, Any]] = [
        {"algorithm": c.algorithm, "knobs": c.knobs, "key": c.key, "ok": True} for c in job.cases
    ]
    first = 0.0
    inputs: dict[str, np.ndarray] = {}
    for exact in (True, False):
        known: dict[tuple[str, int], _Reference] = {}
        for case, seed in zip(job.cases, seeds, strict=True):
            if (case.key, seed) not in known:
                known[case.key, seed] = _reference(case.key, seed, exact, layer)
        references = [known[c.key, s] for c, s in zip(job.cases, seeds, strict=True)]
        inputs = {p.name: references[int(p.name[1:])].operand(p.name[0]) for p in module.inputs}
        with device_turn(folder, job):
            before = time.perf_counter()
            outputs = module.run(inputs)
            first = first or time.perf_counter() - before
        limits: dict[tuple[Any, ...], np.ndarray] = {}
        for index, (case, reference) in enumerate(zip(job.cases, references, strict=True)):
            knobs = case.knobs
            kinds = (knobs.get("m", 0), knobs.get("math", 0), knobs.get("transforms", 0))
            kind = (case.key, seeds[index], case.algorithm, *kinds)
            # An external library's transforms round as ours do.
            whole = exact and case.algorithm not in INEXACT and not knobs.get("transforms")
            found = outputs[f"y{index}"]
            if whole and reference.equals(found):
                cases[index]["exact_error"] = 0.0
                continue
            if kind not in limits:
                limits[kind] = np.zeros(()) if whole else reference.limit(case)
            limit = limits[kind]
            expected = reference.rounded if whole else reference.expected
            # The other images are the same again; that each is where it must be whole numbers tell.
            error = np.abs(found[: len(expected)].astype(np.float64) - expected)
            ratio = float(np.max(error / np.maximum(limit, 1e-30))) if error.size else 0.0
            if not exact:
                cases[index]["error"] = beyond_rounding(
                    error, expected, job.cases[index].spec.dtype
                )
            cases[index]["exact_error" if exact else "error_of_bound"] = (
                float(error.max(initial=0)) if exact else ratio
            )
            cases[index]["ok"] = bool(cases[index]["ok"] and np.all(error <= limit) and (not whole))
    if layer:
        # A node's other steps bring data into the algorithm's memory order and back, which a network does once for many layers.
        # A slow engine of a library among the settings would cost a minute: each is run 50 times.
        with device_turn(folder, job):
            timed = module.profile(inputs, repeats=5 if first < _SLOW else 1)
        times = {t.step.node: t for t in timed if t.step.algorithm}
        for index, case in enumerate(job.cases):
            measured = times[f"y{index}"]
            cases[index] |= {
                "seconds": measured.median,
                "samples": measured.seconds,
                "estimate": case.estimate,
                "default": case.default,
            }
    answer: dict[str, Any] = {"cases": cases, "load_seconds": loaded - began, "first_run_seconds": first}  # fmt: skip
    if module.preparation is not None:
        answer["prepared_seconds"] = module.preparation.seconds
        answer["plans"] = [f"{p.spec} engine {p.engine} {p.knobs} in {p.seconds * 1e3:.1f} ms" for p in module.preparation.plans]  # fmt: skip
    if layer and peer is not None and any(c.default for c in job.cases):
        with device_turn(folder, job):
            answer["peer"] = peer.layer(job.cases[0].spec)
    return answer


class _Reference:
    """A convolution's operands and what float64 makes of them; of a layer's images the distinct ones."""

    def __init__(self, spec: ConvSpec, few: ConvSpec, seed: int, exact: bool) -> None:
        drawn = arrays(Case(key=few.key, algorithm="", knobs={}), seed, exact)
        self._spec, self._few, (self._data, self._weight) = spec, few, drawn

    def operand(self, letter: str) -> np.ndarray:
        """Return the whole data, "x", or the weights, "w"."""
        return np.resize(self._data, self._spec.data) if letter == "x" else self._weight

    @cached_property
    def expected(self) -> np.ndarray:
        """Return the exact result."""
        return self._convolve(*(o.astype(np.float64) for o in (self._data, self._weight)))

    @cached_property
    def rounded(self) -> np.ndarray:
        """Return the result of whole numbers: sums are exact in float32; a narrower result is rounded once."""
        return self.expected.astype(numpy_dtype(self._spec.dtype)).astype(np.float64)

    @cached_property
    def _narrow(self) -> np.ndarray:
        return self.rounded.astype(numpy_dtype(self._spec.dtype))

    def equals(self, found: np.ndarray) -> bool:
        """Return whether a result of whole numbers is right, every image of the batch."""
        few = self._narrow
        return all(
            np.array_equal(found[i : i + len(few)], few[: len(found) - i])
            for i in range(0, len(found), len(few))
        )

    @cached_property
    def _absolute(self) -> np.ndarray:
        return self._convolve(*(np.abs(o.astype(np.float64)) for o in (self._data, self._weight)))

    def limit(self, case: Case) -> np.ndarray:
        """Return by how much the case's algorithm may differ, as in the project's tests."""
        if case.algorithm in INEXACT:
            return error_bound(case.algorithm, self._data, self._weight, self._few, case.knobs)
        bound = relative_error(case.algorithm, self._spec, case.knobs) * self._absolute
        return bound + result_rounding(self._spec.dtype) * np.abs(self.expected)

    def _convolve(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return (convolve_transposed if self._spec.transposed else convolve)(x, w, self._few)


def _reference(key: str, seed: int, exact: bool, layer: bool) -> _Reference:
    return _layer_reference(key, exact) if layer else _made(key, seed, exact, layer)


@lru_cache(_KEPT)
def _layer_reference(key: str, exact: bool) -> _Reference:
    return _made(key, 0, exact, True)


def _made(key: str, seed: int, exact: bool, layer: bool) -> _Reference:
    spec = ConvSpec.parse(key)
    few = spec.with_batch(min(spec.data[0], _IMAGES)) if layer else spec
    return _Reference(spec, few, seed, exact)
