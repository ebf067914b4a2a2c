"""Build the jobs: needs TVM's compiler and nvcc, no device. Jobs that are complete are left alone."""

from __future__ import annotations

import fnmatch
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import msgspec

from benchmarks.gpu.byte_jobs import build_byte_layer
from benchmarks.gpu.gradients import build_gradients
from benchmarks.gpu.job import Case, Job, arrays
from benchmarks.gpu.library_calls import build_calls
from benchmarks.gpu.networks import build_network
from benchmarks.gpu.refusals import build_refusal
from benchmarks.layer_list import Layer
from convc.errors import ConvcError
from convc.ir import ConvSpec, GraphBuilder, TensorType
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes
from convc.lowering.build import build
from convc.lowering.emit import emit
from convc.schedules.algorithm import Algorithm, Problem
from convc.schedules.backend import backend_of
from convc.schedules.cuda.compiler import SHIMS
from convc.schedules.library_algorithm import OnRequest, optional_knobs
from convc.schedules.plan import Choice, Plan
from convc.target import Target

__all__ = ["grid_jobs", "layer_jobs", "make"]

# An algorithm estimated so many times slower than the best is measured once.
_HOPELESS = 4
# Settings with knobs that others lack are worth trying where the model has one so near to the best without.
_NEAR = 1.25

# The first settings of an external library: what it ranks first, without and with transforms; all 18 of CUTLASS.
_LIBRARY_SETTINGS = 20

# Convolutions of one grid module: nvcc takes half a second for each.
_CHUNK = 24


def grid_jobs(specs: Sequence[ConvSpec], target: Target, fed: bool = False) -> Iterator[Job]:
    """Yield jobs with every algorithm on every convolution that it takes; all of one element type; `fed`: with weights of run time."""
    for algorithm in backend_of(target).algorithms:
        problems = [Problem(s, constant_weight=not fed) for s in specs]
        taken = [p for p in problems if algorithm.supports(p, target) is None]
        cases = [_case(p, algorithm.name, target) for p in taken]
        for start in range(0, len(cases), _CHUNK):
            mark = f"{_mark(specs[0].dtype)}{'-fed' if fed else ''}"
            name = f"grid-{algorithm.name}{mark}-{start // _CHUNK:02d}"
            yield Job(name=name, part="grid", cases=tuple(cases[start : start + _CHUNK]))


def layer_jobs(
    chosen: Sequence[Layer], batch: int, settings: int, target: Target, dtype: str = "float32", algos: str = "*"
) -> Iterator[Job]:  # fmt: skip
    """Yield a job for each layer: every algorithm's own knobs, and by turns the next best of each by the model, so many in all.

    `algos`: a pattern of algorithms. An external library has a job of its own: where it is missing, a module that calls it does not load.
    """
    algorithms = backend_of(target).algorithms
    libraries = [a.name for a in algorithms if a.name in SHIMS]
    for layer in chosen:
        spec = replace(layer.spec if batch == 1 else layer.spec.with_batch(batch), dtype=dtype)
        problem, name = Problem(spec), f"layer-n{batch}{_mark(dtype)}-{layer.name}"
        named = (a for a in algorithms if fnmatch.fnmatchcase(a.name, algos))
        takers = [a for a in named if a.supports(problem, target) is None]
        if own := [a for a in takers if a.name not in libraries]:
            yield Job(name=name, part="layers", cases=tuple(_settings(spec, own, settings, target)))
        for library in (a for a in takers if a.name in libraries):
            space = itertools.islice(library.space(problem, target), _LIBRARY_SETTINGS)
            own_case = _case(problem, library.name, target)
            others = [msgspec.structs.replace(own_case, knobs=dict(k)) for k in space if k != own_case.knobs]  # fmt: skip
            yield Job(name=f"{name}-{library.name}", part="layers", cases=(own_case, *others))


def _mark(dtype: str) -> str:
    return "" if dtype == "float32" else f"-{dtype}"


def _case(problem: Problem, name: str, target: Target) -> Case:
    algorithm = backend_of(target).algorithm(name)
    knobs = dict(algorithm.knobs(problem, target))
    seconds = backend_of(target).seconds(algorithm.cycles(problem, target, knobs), target)
    fed = not problem.constant_weight
    return Case(key=problem.spec.key, algorithm=name, knobs=knobs, estimate=seconds, fed=fed)


def _settings(
    spec: ConvSpec, takers: Sequence[Algorithm], count: int, target: Target
) -> list[Case]:
    backend, problem = backend_of(target), Problem(spec)
    own = sorted((_case(problem, a.name, target) for a in takers), key=lambda case: case.estimate)
    asked = [a.name for a in takers if isinstance(a, OnRequest)]
    best = next(i for i, case in enumerate(own) if case.algorithm not in asked)
    own[best] = msgspec.structs.replace(own[best], default=True)
    others: list[list[Case]] = []
    for case in own:
        if case.estimate > _HOPELESS * own[best].estimate:
            continue
        algorithm = backend.algorithm(case.algorithm)
        estimates = [
            (backend.seconds(algorithm.cycles(problem, target, knobs), target), dict(knobs))
            for knobs in algorithm.space(problem, target)
        ]
        estimates.sort(key=lambda pair: pair[0])
        cases = [
            Case(key=spec.key, algorithm=case.algorithm, knobs=knobs, estimate=seconds)
            for seconds, knobs in estimates if knobs != case.knobs
        ]  # fmt: skip
        optional = optional_knobs(algorithm)
        with_them = [c for c in cases if not optional.isdisjoint(c.knobs)]
        others.append([c for c in cases if optional.isdisjoint(c.knobs)])
        # By turns of their own: no device has told the model how fast they are.
        if with_them and with_them[0].estimate < _NEAR * case.estimate:
            others.append(with_them)
    # By turns, as the model may be wrong about an algorithm as a whole.
    turns = [c for row in itertools.zip_longest(*others) for c in row if c is not None]
    return [*own, *turns[: max(0, count - len(own))]]


def make(
    jobs: Sequence[Job],
    folder: Path,
    target: Target,
    say: Callable[[str], None],
    processes: int = 1,
) -> tuple[str, ...]:
    """Build every job that the folder lacks; return the names of those that failed, each said with its reason.

    Args:
        jobs: all of them.
        folder: made if it is not there.
        target: a device's.
        say: is told of each job that is done, with its seconds, and of failures.
        processes: how many jobs are built at the same time; 1: in this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = [job for job in jobs if not (folder / f"{job.name}.job.json").is_file()]
    failed = []

    def note(number: int, job: Job, seconds: float, problem: str) -> None:
        say(f"[{number}/{len(left)}] {job.name}  {seconds:.0f} s")
        if problem:
            say(f"    failed: {problem}")
            failed.append(job.name)

    if processes == 1:
        for number, job in enumerate(left, 1):
            note(number, job, *_make_one(job, folder, target))
        return tuple(failed)
    # Threads of a parent would be copied half: TVM and BLAS have some.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running = {pool.submit(_make_one, job, folder, target): job for job in left}
        for number, done in enumerate(as_completed(running), 1):
            note(number, running[done], *done.result())
    return tuple(failed)


def _make_one(job: Job, folder: Path, target: Target) -> tuple[float, str]:
    """Build a job; return its seconds and why it could not be built, or ""."""
    began = time.perf_counter()
    try:
        done = _made(job, folder, target)
    except ConvcError as error:
        return time.perf_counter() - began, str(error)
    done.write(folder)
    return time.perf_counter() - began, ""


def _made(job: Job, folder: Path, target: Target) -> Job:
    if job.part == "calls":
        build_calls(job.module(folder))
    elif job.part == "refusals":
        build_refusal(job, target).export(job.module(folder))
    elif job.part == "gradients":
        built, cases = build_gradients(job, target)
        built.export(job.module(folder))
        job = msgspec.structs.replace(job, cases=cases)
    elif job.part == "models":
        job = msgspec.structs.replace(job, tolerance=build_network(job, folder, target))
    elif job.part == "bytes":
        job = msgspec.structs.replace(job, cases=build_byte_layer(job, folder, target))
    elif job.part != "compiled":
        job = msgspec.structs.replace(job, cases=_convolutions(job, folder, target))
    return msgspec.structs.replace(job, sm=str(target))


def _convolutions(job: Job, folder: Path, target: Target) -> tuple[Case, ...]:
    """Write the module of a job's cases; return them with their kernels' names."""
    b = GraphBuilder(job.name)
    outputs, choices = {}, {}
    shared: dict[tuple[str, int], str] = {}
    for index, case in enumerate(job.cases):
        spec = case.spec
        # All settings of a layer read the same data and weights.
        seed = 0 if job.part == "layers" else index
        if (case.key, seed) not in shared:
            shared[case.key, seed] = b.input(f"x{index}", TensorType(spec.data, spec.dtype))
        if case.fed:
            weight = b.input(f"w{index}", TensorType(spec.weight, spec.dtype))
        else:
            weight = b.constant(arrays(case, seed, True)[1], f"w{index}")
        fields = (spec.strides, spec.pads, spec.dilations, spec.group)
        name = f"y{index}"
        if spec.transposed:
            attributes = ConvTransposeAttributes(*fields, spec.output_padding)
            y = b.add("conv_transpose", [shared[case.key, seed], weight], attributes, name=name)
        else:
            y = b.add("conv", [shared[case.key, seed], weight], ConvAttributes(*fields), name=name)
        outputs[name] = y
        choices[name] = Choice(case.algorithm, case.knobs, "gpu_check")
    built = build(emit(b.finish(outputs), Plan(choices), target), target)
    built.export(job.module(folder))
    symbols = {step.node: step.symbol for step in built.manifest.steps if step.algorithm}
    return tuple(
        msgspec.structs.replace(case, step=symbols[f"y{index}"])
        for index, case in enumerate(job.cases)
    )
