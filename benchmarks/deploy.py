"""python -m benchmarks.deploy: what it costs to ship a module: sizes, loading, a run above its kernels, and whether the contracts hold.

From C with libconvc, as a product links it, and from Python with TVM's runtime. The kernels' time is the same for both: libconvc's
profile, step by step, less what reading the clock takes. Everything on one thread. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import onnx

import convc
from benchmarks.arguments import check_rounds, say
from benchmarks.run_facts import RunFacts, write_document
from convc import dsl as cc
from convc.cli.exits import BUG, REPORTED, report_error
from convc.cli.render import Column, console, mebibytes, seconds, table
from convc.compiler import CompiledModel
from convc.deploy.libconvc import build_library, find_compiler, run
from convc.inputs import random_inputs
from convc.ir import Graph
from convc.runtime import Module, aligned_empty
from convc.runtime.library import runtime_library

__all__ = ["Contract", "Cost", "main", "median_overhead"]

# The promises that docs/deploy.md makes.
LOAD_SECONDS: Final = 0.150
OVERHEAD_SECONDS: Final = 20e-6

_RESNET50: Final = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
# Steps of a few microseconds each: what a run adds shows beside them. Of a whole network's milliseconds it is lost in the noise.
_LAYERS: Final = (2, 64)
_CALLS: Final = 300
_LOADS: Final = 20


class Cost(msgspec.Struct, frozen=True):
    """One measured number, from C and from Python, in seconds; None where it does not apply."""

    what: str
    libconvc: float | None
    python: float | None


@dataclass(frozen=True, slots=True)
class Contract:
    """A promise and what was found."""

    what: str
    limit: float
    found: float

    @property
    def kept(self) -> bool:
        return self.found <= self.limit

    def line(self) -> str:
        """Return the promise as a sentence.

        Example:
            >>> Contract("a run above its kernels", 20e-6, 1.5e-6).line()
            'kept    a run above its kernels: 1.5 us of 20 us'
        """
        verdict = "kept  " if self.kept else "BROKEN"
        return f"{verdict}  {self.what}: {seconds(self.found)} of {seconds(self.limit)}"


def small_network(layers: int) -> Graph:
    """Return `layers` 3x3 convolutions of 8 channels on 16 x 16 pixels, one after the other."""
    rng = np.random.default_rng(0)
    h = x = cc.input("x", (1, 8, 16, 16))
    for _ in range(layers):
        weight = rng.normal(scale=0.1, size=(8, 8, 3, 3)).astype(np.float32)
        h = cc.relu(cc.conv2d(h, weight, pads=1))
    assert h is not x
    return cc.graph({"y": h}, name=f"small{layers}")


def median_overhead(rounds: Sequence[tuple[float, float]]) -> float:
    """Return the median of whole - kernels over rounds of (whole, kernels): each round's two numbers see the same machine.

    Example:
        >>> median_overhead([(12.0, 11.0), (30.0, 28.0), (12.5, 11.0)])
        1.5
    """
    return statistics.median(whole - kernels for whole, kernels in rounds)


class _Program:
    """benchmarks/deploy_costs.c, linked with libconvc in a folder."""

    def __init__(self, folder: Path) -> None:
        from convc.deploy.libconvc import NATIVE

        self.library = build_library(folder)
        self._file = folder / "deploy_costs"
        source = Path(__file__).with_name("deploy_costs.c")
        run(
            [
                *(find_compiler("gcc"), "-std=c11", "-O2", f"-I{NATIVE / 'include'}", source),
                *("-o", self._file, self.library, f"-Wl,-rpath,{folder}"),
            ],
            folder,
        )

    def rows(self, *words: object) -> list[tuple[float, ...]]:
        """Return the numbers that it prints, in seconds."""
        done = subprocess.run(
            [str(self._file), *map(str, words)], capture_output=True, text=True, check=True
        )
        return [tuple(1e-9 * float(w) for w in line.split()) for line in done.stdout.splitlines()]


def _load_in_python(path: Path, count: int) -> float:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        convc.load(path, threads=1)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _run_in_python(module: Module, count: int, rounds: int) -> float:
    fed = {k: _aligned(v) for k, v in random_inputs(module.inputs, 0).items()}
    targets = {t.name: aligned_empty(t.shape, t.dtype) for t in module.outputs}
    times = []
    for _ in range(count * rounds):
        began = time.perf_counter()
        module.run(fed, outputs=targets)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _aligned(array: np.ndarray) -> np.ndarray:
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def _measure_runs(
    name: str, compiled: CompiledModel, program: _Program, rounds: int, folder: Path
) -> tuple[list[Cost], float]:
    path = compiled.export(folder / f"{name}.so")
    pairs = [(w, k) for w, k in program.rows("run", path, _CALLS, rounds)]
    kernels = statistics.median(k for _, k in pairs)
    in_python = _run_in_python(convc.load(path, threads=1), _CALLS, rounds)
    over = median_overhead(pairs)
    steps = len(compiled.manifest.steps)
    costs = [
        Cost(f"{name}, {steps} steps: a run", statistics.median(w for w, _ in pairs), in_python),
        Cost("    of that, above its kernels", over, in_python - kernels),
    ]
    return costs, over


def _run(given: argparse.Namespace) -> int:
    rounds = check_rounds(given.rounds)
    facts = RunFacts.begin((), rounds)
    screen = console()
    with tempfile.TemporaryDirectory(prefix="convc-deploy-") as scratch:
        folder = Path(scratch)
        say("building libconvc")
        program = _Program(folder)
        say(f"compiling {given.model.name}")
        big = convc.compile(given.model, threads=1)
        path = big.export(folder / "model.so")
        say("loading")
        loads = [row[0] for row in program.rows("load", path, _LOADS)]
        found = Cost(f"loading {given.model.stem}, {mebibytes(path.stat().st_size)}", statistics.median(loads), _load_in_python(path, _LOADS))  # fmt: skip
        costs = [found]
        contracts = [
            Contract("loading from C, median", LOAD_SECONDS, statistics.median(loads)),
            Contract("loading from C, first", LOAD_SECONDS, loads[0]),
            Contract("loading from Python, median", LOAD_SECONDS, found.python or 0.0),
        ]
        for layers in _LAYERS:
            name = f"small{layers}"
            say(f"running {name}")
            compiled = convc.compile(small_network(layers), threads=1)
            rows, over = _measure_runs(name, compiled, program, rounds, folder)
            costs += rows
            contracts.append(Contract(f"{name} from C, above its kernels", OVERHEAD_SECONDS, over))
            # Of the large one Python's part is not what it adds but what of it the kernels' data has pushed out of the caches.
            if layers == min(_LAYERS):
                contracts.append(Contract(f"{name} from Python, above its kernels", OVERHEAD_SECONDS, rows[1].python or 0.0))  # fmt: skip
        sizes = (program.library.stat().st_size, runtime_library().path.stat().st_size)
        facts = facts.ended()
        say("")
        title = "What shipping costs, 1 thread"
        columns = (Column(""), Column("libconvc", True), Column("Python, TVM's runtime", True))
        size = ("the runtime library", *(mebibytes(n) for n in sizes))
        cells = [
            (c.what, *("" if t is None else seconds(t) for t in (c.libconvc, c.python)))
            for c in costs
        ]
        screen.print(table(title, columns, [size, *cells]))
        for line in (*(c.line() for c in contracts), *facts.lines()):
            screen.print(line, markup=False)
        if given.json is not None:
            parts: dict[str, object] = {
                "costs": costs,
                "runtime_bytes": {"libconvc": sizes[0], "python": sizes[1]},
                "contracts": {c.what: {"limit": c.limit, "found": c.found, "kept": c.kept} for c in contracts},
            }  # fmt: skip
            write_document(given.json, parts, facts)
    return 0 if all(c.kept for c in contracts) else BUG


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code: 0 only if every contract is kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deploy", description=__doc__)
    parser.add_argument(
        "--model", type=Path, default=_RESNET50, metavar="PATH.onnx",
        help="whose loading is timed; default the onnx package's ResNet-50",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="default 15")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON document")
    try:
        return _run(parser.parse_args(words))
    except REPORTED as error:
        return report_error(error, as_json=False)


if __name__ == "__main__":
    sys.exit(main())
