"""Compare a compiled module with a reference that knows nothing of the compiler.

The metric is one number per output: the largest absolute error divided by the reference's largest magnitude,

    error = max |y - reference| / max |reference|

so that one tolerance serves outputs of any scale, and elements that cancel to nearly nothing do not count as wrong.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from convc.deviation import OutputError, compare, merge
from convc.errors import AccuracyError, InputError, unknown_name
from convc.inputs import ArraySignature, random_inputs
from convc.ir.graph import Graph
from convc.ir.types import Shape
from convc.npz import save_npz
from convc.references import REFERENCES
from convc.rounding import tolerance_of

__all__ = [
    "REFERENCES",
    "OutputError",
    "Runnable",
    "VerifyReport",
    "compare",
    "verify",
    "verify_areas",
    "verify_each",
]

Arrays = Mapping[str, np.ndarray]
# Called with (stage, done, total).
Progress: TypeAlias = "Callable[[str, int, int], None]"


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


class Runnable(Protocol):
    """What is verified: a loaded module, or anything that runs like one."""

    @property
    def inputs(self) -> Sequence[ArraySignature]: ...

    def run(self, inputs: Mapping[str, np.ndarray], /) -> Mapping[str, np.ndarray]: ...


@dataclass(frozen=True, slots=True, eq=False)
class VerifyReport:
    """What `verify` found.

    Attributes:
        outputs: one row per output.
        reference: the name of the reference.
        tolerance: greatest error that passes.
        runs: how many inputs were tried.
        seconds: time for all of it.
        failing_inputs: the inputs of the first run that failed, or None.
        failure: that run's first wrong output, its error and the run's own tolerance, which may be less than the greatest; "" if none.
    """

    outputs: tuple[OutputError, ...]
    reference: str
    tolerance: float
    runs: int
    seconds: float
    failing_inputs: Arrays | None = None
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Whether every output of every run is within that run's tolerance."""
        return self.failing_inputs is None and self.max_relative_error <= self.tolerance

    @property
    def max_relative_error(self) -> float:
        return max(o.max_relative_error for o in self.outputs)

    def raise_if_failed(self) -> None:
        """Raise AccuracyError with one line per output that is wrong."""
        if self.ok:
            return
        lines = [
            f"output '{o.name}' must be within {self.tolerance:g} of {self.reference}; got {o.max_relative_error:.3g} "
            f"(max |error| {o.max_absolute_error:.3g}, {o.mismatches} of {o.elements} elements, "
            f"{o.nan} NaN, {o.infinite} infinite)."
            for o in self.outputs
            if not o.max_relative_error <= self.tolerance
        ]
        raise AccuracyError("\n".join(lines) or self.failure)

    def joined(self, other: VerifyReport) -> VerifyReport:
        """Return the report of both, of one module and reference."""
        rows = tuple(map(merge, self.outputs, other.outputs))
        tolerance = max(self.tolerance, other.tolerance)
        first = self if self.failing_inputs is not None else other
        runs, seconds = self.runs + other.runs, self.seconds + other.seconds
        return VerifyReport(rows, self.reference, tolerance, runs, seconds, first.failing_inputs, first.failure)  # fmt: skip

    def save_failing(self, folder: str | os.PathLike[str]) -> Path | None:
        """Write the first failing run's inputs to `folder`/inputs.npz and return its path, or None if all passed."""
        if self.failing_inputs is None:
            return None
        path = Path(folder) / "inputs.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_npz(path, self.failing_inputs)
        return path


@dataclass(frozen=True, slots=True)
class _Signature:
    name: str
    shape: Shape
    dtype: str


def _samples(module: Runnable) -> tuple[int, ...]:
    """Return the numbers of samples that a symbolic batch is tried with: one that runs the code of every size, one that no size fits."""
    sizes: Sequence[int] = getattr(module, "batch_sizes", ())
    return (sum(sizes), sizes[-1] + 1) if sizes else ()


def _inputs(module: Runnable, samples: int) -> Sequence[ArraySignature]:
    return [
        _Signature(t.name, (samples * rows, *t.shape[1:]), t.dtype) if (rows := getattr(t, "rows", 0)) else t
        for t in module.inputs
    ]  # fmt: skip


def verify(
    module: Runnable,
    graph: Graph,
    *,
    reference: str = "auto",
    model_path: str | os.PathLike[str] | None = None,
    inputs: Arrays | None = None,
    n: int = 1,
    seed: int = 0,
    tolerance: float | None = None,
    dtype: str | None = None,
) -> VerifyReport:
    """Run `module` on `n` inputs and compare every output with a reference.

    Args:
        module: a loaded module.
        graph: the source graph, as imported: before any pass, so that a wrong pass is found too.
        reference: "float64" (NumPy, every float in double precision), "onnxruntime", or "auto" (float64).
        model_path: the .onnx file; needed by reference "onnxruntime".
        inputs: use these arrays instead of random ones, once.
        n: how many random inputs to try; run i uses seed + i. A symbolic batch has two numbers of samples in turn,
            at least once each.
        seed: of the first random input: standard normal floats, integers over their range.
        tolerance: greatest max |y - reference| / max |reference| that passes. Default: 1e-4, and what `rounding` says of half types.
        dtype: the element type that the module was compiled for, as `compile`.

    Raises:
        InputError: if inputs do not fit, or the module and the graph name different outputs.
        UnknownNameError: if there is no such reference.
    """
    only = {"": module}
    return verify_each(only, graph, reference=reference, model_path=model_path, inputs=inputs, n=n, seed=seed, tolerance=tolerance, dtype=dtype)[""]  # fmt: skip


def verify_each(
    modules: Mapping[str, Runnable],
    graph: Graph,
    *,
    reference: str = "auto",
    model_path: str | os.PathLike[str] | None = None,
    inputs: Arrays | None = None,
    n: int = 1,
    seed: int = 0,
    tolerance: float | None = None,
    dtype: str | None = None,
    progress: Progress = _silent,
) -> dict[str, VerifyReport]:
    """Verify several modules of one graph on the same inputs; the reference, which is slow, runs once for all of them.

    Takes at least one module, by any name, and for the rest what `verify` takes; errors as there. `progress` is called with
    ("verify", runs that are done, all of them).

    Returns:
        A report by each module's name; `seconds` counts the reference and this module, not the others.
    """
    if reference != "auto" and reference not in REFERENCES:
        raise unknown_name("reference", reference, ("auto", *REFERENCES))
    if n < 1:
        raise InputError(f"verification must have at least 1 run; got {n}.")
    name = next(iter(REFERENCES)) if reference == "auto" else reference
    began = time.perf_counter()
    expected_of = REFERENCES[name](graph, model_path)
    allowed, most = tolerance_of(graph, dtype, tolerance), 0.0
    shared = time.perf_counter() - began
    first = next(iter(modules.values()))
    samples = _samples(first)
    runs = 1 if inputs is not None else max(n, len(samples))
    tallies = {key: _Tally({}, None) for key in modules}
    for run in range(runs):
        progress("verify", run, runs)
        size = samples[run % len(samples)] if samples else 0
        fed = inputs if inputs is not None else random_inputs(_inputs(first, size), seed + run)
        began = time.perf_counter()
        expected = expected_of(fed)
        limit = allowed(fed, expected)
        most = max(most, limit)
        shared += time.perf_counter() - began
        for key, module in modules.items():
            tallies[key].add(module, fed, expected, limit)
    return {
        key: VerifyReport(tuple(tally.found.values()), name, most, runs, shared + tally.seconds, tally.failing, tally.failure(name))
        for key, tally in tallies.items()
    }  # fmt: skip


def verify_areas(
    modules: Mapping[str, Runnable],
    graphs: Sequence[Graph],
    *,
    reference: str = "auto",
    model_path: str | os.PathLike[str] | None = None,
    inputs: Arrays | None = None,
    n: int = 1,
    seed: int = 0,
    tolerance: float | None = None,
    dtype: str | None = None,
    progress: Progress = _silent,
) -> dict[str, VerifyReport]:
    """Verify modules with an open height and width at each of the sizes that graphs have; the rest as `verify_each`."""
    joined: dict[str, VerifyReport] = {}
    for at, graph in enumerate(graphs):

        def part(stage: str, done: int, total: int, at: int = at) -> None:
            progress(stage, at * total + done, len(graphs) * total)

        sized = {key: _OfSize(module, graph) for key, module in modules.items()}
        reports = verify_each(sized, graph, reference=reference, model_path=model_path, inputs=inputs, n=n, seed=seed, tolerance=tolerance, dtype=dtype, progress=part)  # fmt: skip
        for key, report in reports.items():
            joined[key] = report if key not in joined else joined[key].joined(report)
    return joined


@dataclass(frozen=True, slots=True)
class _OfSize:
    """A module with an open height and width as one of the sizes that a graph has."""

    module: Runnable
    graph: Graph

    @property
    def inputs(self) -> Sequence[ArraySignature]:
        return [_Signature(n.name, n.type.shape, n.type.dtype) for n in self.graph.inputs]

    def run(self, inputs: Mapping[str, np.ndarray], /) -> Mapping[str, np.ndarray]:
        return self.module.run(inputs)


@dataclass(slots=True)
class _Tally:
    """What one module's runs have shown so far."""

    found: dict[str, OutputError]
    failing: Arrays | None
    seconds: float = 0.0
    wrong: tuple[OutputError, float] | None = None

    def failure(self, reference: str) -> str:
        """Return the first wrong output in words, with what its run allowed."""
        if self.wrong is None:
            return ""
        row, tolerance = self.wrong
        return f"output '{row.name}' must be within {tolerance:g} of {reference} for these inputs; got {row.max_relative_error:.3g}."

    def add(self, module: Runnable, fed: Arrays, expected: Arrays, tolerance: float) -> None:
        began = time.perf_counter()
        actual = module.run(fed)
        self.seconds += time.perf_counter() - began
        if set(actual) != set(expected):
            raise InputError(
                f"module and reference must name the same outputs; got {', '.join(actual)} and {', '.join(expected)}."
            )
        for output in actual:
            row = compare(output, np.asarray(actual[output]), expected[output], tolerance)
            if self.failing is None and not row.max_relative_error <= tolerance:
                self.failing = {k: np.array(v) for k, v in fed.items()}
                self.wrong = row, tolerance
            before = self.found.get(output)
            self.found[output] = merge(before, row) if before else row
