"""Weight gradients on a device: every row of the backend and plain loops, right on whole numbers and within the bound, and timed.

What builds imports the compiler only when it is called; what runs needs the runtime alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from benchmarks.gpu.job import Case, Job, beyond_rounding
from benchmarks.gpu.share import device_turn
from convc.ir import ConvSpec
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes, convolve_weight_grad
from convc.ir.types import Shape, numpy_dtype
from convc.runtime import load
from convc.schedules.error_bound import product_error, result_rounding

if TYPE_CHECKING:
    from convc.lowering.build import Built
    from convc.target import Target

__all__ = ["GRID", "build_gradients", "gradient_jobs", "run_gradients"]

# A way estimated so many times slower than the best is measured once.
_HOPELESS: Final = 3

# How the names of jobs with the grid's begin.
GRID: Final = "gradients-grid-"

# Gradients of one module.
_CHUNK: Final = 24


def gradient_jobs(
    specs: Sequence[ConvSpec], target: Target, name: str, settings: int = 0
) -> Iterator[Job]:
    """Yield jobs with every way to compute the weight gradients of convolutions; transposed ones have those of their adjoints.

    A library's are jobs of their own, so that where it is missing or refuses a case our own are still measured.

    Args:
        specs: the forward convolutions.
        target: a device's.
        name: of the jobs, before a number.
        settings: of our own ways, by turns the next best of each by the model, until there are so many of a convolution.
    """
    from convc.schedules.backend import backend_of
    from convc.schedules.weight_gradient_choice import choose_weight_gradient

    libraries = [row.NAME for row in backend_of(target).weight_gradients if row.ON_REQUEST]
    cases = []
    for spec in specs:
        if spec.transposed:
            continue
        choice = choose_weight_gradient(spec, target)
        usable = (row for row in choice.candidates if row.seconds is not None)
        cases += [
            Case(
                key=spec.key,
                algorithm=row.algorithm,
                knobs=dict(row.knobs),
                estimate=row.seconds or 0.0,
                default=row.algorithm == choice.algorithm,
            )
            for row in usable
        ]
        chosen = [c for c in cases if c.key == spec.key and c.algorithm not in libraries]
        cases += _next_best(spec, chosen, settings - len(chosen), target)
    yield from _jobs([c for c in cases if c.algorithm not in libraries], name)
    for library in libraries:
        yield from _jobs([c for c in cases if c.algorithm == library], f"{name}-{library}")


def _next_best(spec: ConvSpec, chosen: Sequence[Case], count: int, target: Target) -> list[Case]:
    """Return other settings of the ways that are not hopeless."""
    from convc.schedules.weight_gradients import (
        PLAIN_LOOPS,
        gradient_seconds,
        gradient_space,
        weight_gradient_named,
    )

    if count <= 0:
        return []
    bound, rows = _HOPELESS * min(c.estimate for c in chosen), []
    for case in chosen:
        if case.algorithm == PLAIN_LOOPS or case.estimate > bound:
            continue
        space = gradient_space(weight_gradient_named(case.algorithm, target), spec, target)
        found = [
            Case(key=case.key, algorithm=case.algorithm, knobs=dict(k), estimate=gradient_seconds(case.algorithm, spec, k, target))
            for k in space if dict(k) != case.knobs
        ]  # fmt: skip
        rows.append(sorted(found, key=lambda c: c.estimate))
    # By turns, as the model may be wrong about a way as a whole.
    turns = [c for row in itertools.zip_longest(*rows) for c in row if c is not None]
    return turns[:count]


def _jobs(cases: Sequence[Case], name: str) -> Iterator[Job]:
    for start in range(0, len(cases), _CHUNK):
        part = tuple(cases[start : start + _CHUNK])
        yield Job(name=f"{name}-{start // _CHUNK:02d}", part="gradients", cases=part)


def build_gradients(job: Job, target: Target) -> tuple[Built, tuple[Case, ...]]:
    """Return the module of a job's gradients, and its cases with their kernels' names."""
    from convc.ir import GraphBuilder, TensorType
    from convc.lowering.build import build
    from convc.lowering.emit import emit
    from convc.schedules.plan import Choice, Plan

    b, outputs, choices = GraphBuilder(job.name), {}, {}
    for index, case in enumerate(job.cases):
        spec, name = case.spec, f"y{index}"
        data, gradient = (
            b.input(f"{letter}{index}", TensorType(shape, spec.dtype))
            for letter, shape in (("x", spec.data), ("g", spec.output))
        )
        attributes = ConvWeightGradAttributes(spec.kernel, spec.strides, spec.pads, spec.dilations, spec.group)  # fmt: skip
        outputs[name] = b.add("conv_weight_grad", [data, gradient], attributes, name=name)
        choices[name] = Choice(case.algorithm, case.knobs, "gpu_check")
    built = build(emit(b.finish(outputs), Plan({}, gradients=choices), target), target)
    symbols = {step.node: step.symbol for step in built.manifest.steps if step.algorithm}
    cases = (msgspec.structs.replace(c, step=symbols[f"y{i}"]) for i, c in enumerate(job.cases))
    return built, tuple(cases)


def run_gradients(job: Job, folder: Path) -> dict[str, Any]:
    """Return a row for each gradient: its errors on whole numbers and of its bound, and its time on the device."""
    with device_turn(folder, job):
        module = load(job.module(folder))
    rows: list[dict[str, Any]] = [
        {"algorithm": c.algorithm, "knobs": c.knobs, "key": c.key, "ok": True, "estimate": c.estimate, "default": c.default}
        for c in job.cases
    ]  # fmt: skip
    inputs: dict[str, np.ndarray] = {}
    for exact in (True, False):
        # Float64 takes longest: once a convolution, for all its rows.
        references = {
            key: _reference(spec, exact) for key, spec in {c.key: c.spec for c in job.cases}.items()
        }
        inputs = {
            f"{letter}{index}": operand
            for index, case in enumerate(job.cases)
            for letter, operand in zip("xg", references[case.key].operands, strict=True)
        }
        with device_turn(folder, job):
            outputs = module.run(inputs)
        for index, case in enumerate(job.cases):
            expected, limit = references[case.key].expected, references[case.key].limit(case)
            error = np.abs(outputs[f"y{index}"].astype(np.float64) - expected)
            rows[index]["ok"] = bool(rows[index]["ok"] and np.all(error <= limit))
            if exact:
                rows[index]["exact_error"] = float(error.max(initial=0))
            else:
                rows[index]["error_of_bound"] = float(np.max(error / np.maximum(limit, 1e-30)))
                rows[index]["error"] = beyond_rounding(error, expected, case.spec.dtype)
    with device_turn(folder, job):
        steps = module.profile(inputs, repeats=3)
    for timed in steps:
        # What brings operands into the row's memory order is not its time.
        if not timed.step.algorithm:
            continue
        rows[int(timed.step.node[1:])] |= {"seconds": timed.median, "samples": timed.seconds}
    return {"cases": rows}


class _Reference(NamedTuple):
    """A convolution's x and dy, its weight gradient in float64, and that of their absolute values: 0 where a result must be exact."""

    operands: tuple[np.ndarray, np.ndarray]
    expected: np.ndarray
    absolute: np.ndarray | float

    def limit(self, case: Case) -> np.ndarray | float:
        """Return how far a row's result may be from what is expected: as a sum of so many products in a part."""
        if isinstance(self.absolute, float):
            return self.absolute
        terms = case.spec.data[0] * math.prod(case.spec.output[2:])
        error = product_error(case.algorithm, -(-terms // case.knobs.get("split", 1)), case.knobs)
        return error * self.absolute + result_rounding(case.spec.dtype) * np.abs(self.expected)


def _reference(spec: ConvSpec, exact: bool) -> _Reference:
    """Return what a convolution's rows are compared with, of small whole numbers or of normal ones, the same wherever it is made."""
    rng = np.random.default_rng(list(spec.key.encode()))

    def values(shape: Shape) -> np.ndarray:
        drawn = rng.integers(-4, 5, shape) if exact else rng.standard_normal(shape)
        return drawn.astype(numpy_dtype(spec.dtype))

    operands = values(spec.data), values(spec.output)
    x, dy = (o.astype(np.float64) for o in operands)
    expected = convolve_weight_grad(x, dy, spec)
    if exact:
        # Sums are exact in float32; a narrower result is rounded once.
        expected = expected.astype(numpy_dtype(spec.dtype)).astype(np.float64)
        return _Reference(operands, expected, 0.0)
    return _Reference(operands, expected, convolve_weight_grad(np.abs(x), np.abs(dy), spec))
