"""Build the jobs of layers of bytes, see `byte_layers`: needs TVM's compiler and nvcc, no device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from benchmarks.gpu.byte_layers import HALVES, byte_layers
from benchmarks.gpu.job import Case, Job
from benchmarks.layer_list import Layer
from convc.lowering.build import build
from convc.lowering.emit import emit
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.offers import offers_of
from convc.schedules.plan import Choice, Plan
from convc.schedules.policy import Policy
from convc.target import Target

__all__ = ["build_byte_layer", "byte_jobs"]


def byte_jobs(chosen: Sequence[Layer], batch: int, settings: int, target: Target) -> Iterator[Job]:
    """Yield a job for each layer that an algorithm of bytes takes: its settings by the model, the best first, and float16's."""
    backend = backend_of(target)
    for layer in chosen:
        spec = layer.spec if batch == 1 else layer.spec.with_batch(batch)
        spec = replace(spec, dtype="int32")
        takers = [a for a in backend.quantized if a.supports(spec, target) is None]
        rows = [
            (backend.seconds(a.cycles(spec, target, k), target), a.name, dict(k))
            for a in takers
            for k in a.space(spec, target)
        ]
        rows.sort(key=lambda row: row[0])
        if not rows:
            continue
        cases = [
            Case(key=spec.key, algorithm=name, knobs=knobs, estimate=seconds, default=not i)
            for i, (seconds, name, knobs) in enumerate(itertools.islice(rows, settings))
        ]
        halves = Case(key=replace(spec, dtype="float16").key, algorithm=HALVES, knobs={})
        yield Job(name=f"bytes-n{batch}-{layer.name}", part="bytes", cases=(*cases, halves))


def build_byte_layer(job: Job, folder: Path, target: Target) -> tuple[Case, ...]:
    """Write the module of a job's cases; return them with their kernels' names."""
    choices = {}
    for index, case in enumerate(job.cases):
        name, knobs = case.algorithm, case.knobs
        if name == HALVES:
            offers = offers_of(Problem(case.spec), target, Policy(), {})
            allowed = {row.algorithm for row in offers.candidates if row.applies}
            best = min((o for o in offers.offers if o.algorithm in allowed), key=lambda o: o.seconds)  # fmt: skip
            name, knobs = best.algorithm, dict(best.knobs)
        choices[f"y{index}"] = Choice(name, knobs, "gpu_check")
    built = build(emit(byte_layers(job), Plan(choices), target), target)
    built.export(job.module(folder))
    symbols = {step.node: step.symbol for step in built.manifest.steps if step.algorithm}
    return tuple(
        msgspec.structs.replace(case, step=symbols[f"y{index}"])
        for index, case in enumerate(job.cases)
    )
