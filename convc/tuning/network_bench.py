"""Plans of one network as modules of this machine: built together, their steps and whole runs timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Protocol

import numpy as np

from convc.ir.graph import Graph
from convc.ir.types import numpy_dtype
from convc.lowering.build import build_variants
from convc.lowering.emit import emit
from convc.runtime.loading import load_alternatives
from convc.runtime.module import Module
from convc.schedules.plan import Plan
from convc.target import Target
from convc.tuning.attribution import StepName

__all__ = ["LocalNetworkBench", "NetworkBench"]


class NetworkBench(Protocol):
    """Where a network's plans are timed."""

    def steps(self, plan: Plan) -> list[StepName]:
        """Return the steps of a plan's module in order; builds nothing."""
        ...

    def build(self, plans: Sequence[Plan], progress: Callable[[int, int], None]) -> None:
        """Build modules of some plans, in place of those before; `progress` is called with (kernels done, kernels)."""
        ...

    def profile(self, index: int) -> list[float]:
        """Return the seconds of the steps of a module, one by one in order, with its own data in the caches."""
        ...

    def run(self, index: int) -> float:
        """Return the seconds of a whole run of a module, with its own data in the caches."""
        ...


class LocalNetworkBench:
    """This process, on random inputs.

    All modules are one library with one copy of what they have in common. A module's first run, or first run step by step, after
    another's is not timed.
    """

    def __init__(self, graph: Graph, target: Target, seed: int = 0) -> None:
        self._graph, self._target = graph, target
        rng = np.random.default_rng(seed)
        self._inputs = {n.name: _random(rng, n.type.shape, n.type.dtype) for n in graph.inputs}
        self._folder = TemporaryDirectory(prefix="convc-tune-")
        self._modules: tuple[Module, ...] = ()
        self._built = 0

    def __enter__(self) -> LocalNetworkBench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._modules = ()
        self._folder.cleanup()

    def steps(self, plan: Plan) -> list[StepName]:
        calls = emit(self._graph, plan, self._target).calls
        return [StepName(call.node, bool(call.spec)) for call in calls]

    def build(self, plans: Sequence[Plan], progress: Callable[[int, int], None]) -> None:
        self._modules = ()
        parts = [(emit(self._graph, plan, self._target), self._target) for plan in plans]
        built = build_variants(
            parts, alternatives=True, progress=lambda done, total, what: progress(done, total)
        )
        self._built += 1
        path = Path(self._folder.name) / f"network{self._built}.so"
        built.export(path)
        self._modules = load_alternatives(path, self._target.cores)
        # Mapped already.
        path.unlink()

    def profile(self, index: int) -> list[float]:
        return [t.median for t in self._modules[index].profile(self._inputs, _REPEATS)]

    def run(self, index: int) -> float:
        module, times = self._modules[index], []
        for _ in range(1 + _REPEATS):
            begin = time.perf_counter()
            module.run(self._inputs)
            times.append(time.perf_counter() - begin)
        return sorted(times[1:])[_REPEATS // 2]


# Odd, so that the median is one of them.
_REPEATS = 3


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return normal numbers; of integers, which may be indices, zeros and ones."""
    kind = numpy_dtype(dtype)
    if dtype.startswith(("int", "uint", "bool")):
        return rng.integers(0, 2, shape).astype(kind)
    return rng.standard_normal(shape).astype(np.float32).astype(kind)
