"""Convolutions through the CUDA schedules and the emulated device, compared with the float64 oracle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import tvm
from tvm import te

from convc.ir import ConvSpec, Step
from convc.ir.epilogue import apply_epilogue
from convc.ir.ops.conv import convolve, convolve_transposed
from convc.ir.types import numpy_dtype
from convc.schedules.algorithm import Problem
from convc.schedules.cuda import compiler, nvcc
from convc.schedules.cuda.backend import BACKEND
from convc.schedules.cuda.compiler import OPTIONS
from convc.target import parse_target
from tests.conv_grid import CONV_GRID
from tests.cuda_emulation.emulation import OWN_PASSES, Case, run_cases
from tests.tolerance import INEXACT, assert_bounded, assert_exact, error_bound

__all__ = ["TARGET", "Trial", "check", "data_of", "sample", "scheduled", "taken", "wgmma_resources"]

TARGET = parse_target("cuda -arch=sm_90")


@dataclass(frozen=True)
class Trial:
    """One convolution by one algorithm; without knobs, those of the analytic model."""

    algorithm: str
    spec: ConvSpec
    epilogue: tuple[Step, ...] = ()
    knobs: Mapping[str, int] | None = None

    @property
    def problem(self) -> Problem:
        return Problem(self.spec, self.epilogue)

    @property
    def setting(self) -> Mapping[str, int]:
        return self.knobs or BACKEND.algorithm(self.algorithm).knobs(self.problem, TARGET)

    def __str__(self) -> str:
        return f"{self.algorithm} {self.spec.key} {dict(self.setting)}"


def taken(name: str, dtype: str = "float32") -> list[ConvSpec]:
    """Return the grid's convolutions, with operands of another type, that an algorithm takes."""
    algorithm = BACKEND.algorithm(name)
    specs = [replace(r.spec, dtype=dtype) for r in CONV_GRID]
    return [s for s in specs if algorithm.supports(Problem(s), TARGET) is None]


@cache
def sample(name: str, count: int, dtype: str = "float32") -> tuple[Trial, ...]:
    """Return the convolutions with the lowest hashes: always the same ones."""

    def order(spec: ConvSpec) -> bytes:
        return hashlib.sha256(f"cuda {name} {spec.key}".encode()).digest()

    return tuple(Trial(name, spec) for spec in sorted(taken(name, dtype), key=order)[:count])


def scheduled(trial: Trial):
    algorithm = BACKEND.algorithm(trial.algorithm)
    func = te.create_prim_func(list(algorithm.compute(trial.problem, TARGET, trial.setting)))
    return BACKEND.schedules[trial.algorithm](func, trial.setting, TARGET)


def data_of(trial: Trial, exact: bool) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return data, weight and the epilogue's operands: small whole numbers, or normal ones."""
    spec = trial.spec
    rng = np.random.default_rng(int(hashlib.sha256(spec.key.encode()).hexdigest()[:8], 16))

    def array(shape: Sequence[int]) -> np.ndarray:
        values = rng.integers(-4, 5, shape) if exact else rng.normal(size=shape)
        return values.astype(numpy_dtype(spec.dtype))

    shapes = {"bias": (spec.out_channels,), "add": spec.output}
    extras = [array(shapes[s.name]) for s in trial.epilogue if s.takes_operand]
    return array(spec.data), array(spec.weight), extras


def in_blocks(value: np.ndarray, block: int) -> np.ndarray:
    """Return channels last, in blocks of so many with zeros behind the last one; 0: as they are."""
    if not block:
        return value
    if value.ndim == 1:
        return np.pad(value, (0, -value.size % block)).reshape(-1, block)
    n, c, *extents = value.shape
    whole = np.pad(value, [(0, 0), (0, -c % block), *((0, 0) for _ in extents)])
    last = np.ascontiguousarray(np.moveaxis(whole.reshape(n, -1, block, *extents), 2, -1))
    # A line is an image of height 1 to every kernel on blocks.
    return last[:, :, None] if len(extents) == 1 else last


def check(trials: Sequence[Trial], *, exact: bool) -> None:
    """Run the trials on the emulated device and compare each result with the oracle."""
    assert trials
    cases, data = [], []
    for trial in trials:
        x, w, extras = data_of(trial, exact)
        algorithm = BACKEND.algorithm(trial.algorithm)
        packed = algorithm.pack(w, trial.problem, trial.setting)
        wants = algorithm.operands(trial.problem, TARGET, trial.setting)
        others = [in_blocks(e, wants.result.block) for e in extras]
        cases.append(Case(scheduled(trial), (in_blocks(x, wants.data.block), packed, *others)))
        data.append((x, w, extras))
    wrong = []
    outcomes = run_cases(cases, config=OPTIONS, build=OWN_PASSES)
    for trial, (x, w, extras), outcome in zip(trials, data, outcomes, strict=True):
        if outcome.error:
            wrong.append(f"{trial}: {outcome.error[:600]}")
            continue
        function = convolve_transposed if trial.spec.transposed else convolve
        sums = function(x.astype(np.float64), w.astype(np.float64), trial.spec)
        expected = apply_epilogue(sums, trial.epilogue, [e.astype(np.float64) for e in extras], 1)
        result = outcome.outputs[0]
        if result.shape != expected.shape:
            # Of blocks of channels: also what lies beyond the last channel, which must be zero.
            expected = in_blocks(expected, result.shape[-1])
        try:
            if exact and trial.algorithm not in INEXACT:
                # Sums are exact in float32; a narrower result is rounded once.
                assert_exact(result, expected.astype(x.dtype).astype(np.float64))
            else:
                bound = error_bound(trial.algorithm, x, w, trial.spec, trial.setting)
                if result.shape != bound.shape:
                    bound = in_blocks(bound, result.shape[-1])
                assert_bounded(result, expected, bound)
        except AssertionError as error:
            wrong.append(f"{trial}: {error}")
    assert not wrong, "\n".join(wrong)


def wgmma_resources(trials: Sequence[Trial]) -> dict[str, nvcc.Resources]:
    """Return what ptxas says of each trial's kernel on sm_90a, all in one module, none waiting for each wgmma by itself."""
    functions = {f"k{i}": scheduled(t).with_attr("global_symbol", f"k{i}") for i, t in enumerate(trials)}  # fmt: skip
    source = compiler.source_of(compiler.build(tvm.IRModule(functions), TARGET))
    words = nvcc.ptxas_words(source, "90a", ("-O3",))
    assert "serializ" not in words
    found = nvcc.parse_resources(words)
    assert len(found) == len(trials)
    return found
