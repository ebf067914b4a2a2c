"""Backend: everything that code generation asks of one kind of target. A new kind is one folder and one row of `_FOLDERS`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import numpy as np

from convc.errors import unknown_name
from convc.ir.channel_moves import Picks
from convc.ir.epilogue import Step
from convc.ir.spec import ConvSpec
from convc.ir.types import Shape, TensorType
from convc.schedules.algorithm import Algorithm, Problem
from convc.schedules.plan import Knobs
from convc.target import Target

if TYPE_CHECKING:
    import tvm
    from tvm import te, tirx

    from convc.schedules.packing import Packing
    from convc.schedules.quantized_algorithm import QuantizedAlgorithm
    from convc.schedules.weight_gradients import WeightGradient

__all__ = [
    "Backend",
    "Dense",
    "Progress",
    "Schedule",
    "backend_of",
    "backend_with",
    "is_known_somewhere",
]

Progress: TypeAlias = Callable[[int, int, str], None]
Schedule: TypeAlias = "Callable[[tirx.PrimFunc, Knobs, Target], tirx.PrimFunc]"


class Dense(Protocol):
    """How dense layers with constant weights are computed; a module may be one."""

    def knobs(self, data: Shape, outputs: int, target: Target) -> Knobs:
        """Return the knobs for data (M, C)."""
        ...

    def pack(self, weight: np.ndarray, knobs: Knobs) -> np.ndarray:
        """Return weights (K, C) as the kernel reads them."""
        ...

    def compute(
        self, data: Shape, outputs: int, dtype: str, epilogue: Sequence[Step], knobs: Knobs
    ) -> list[te.Tensor]:
        """Return data, weight, extras..., result (M, K)."""
        ...


@dataclass(frozen=True, slots=True)
class Backend:
    """One kind of target.

    Attributes:
        kind: the target's.
        algorithms: that compete for convolutions, in order of preference on ties.
        packings: how weights of run time are packed, of each algorithm that takes such, see `packing`.
        weight_gradients: that compete for weight gradients, likewise; no row where nothing but plain loops computes them.
        schedules: THE SCHEDULE of each of them, of "dense", "packing" and, as "weight_gradient_...", of weight gradients; of
            "dense_packing" where dense layers' weights of run time are packed, too.
        quantized: algorithms that compete for layers of bytes, in order of preference on ties; plain loops compute what none takes.
        dense: THE ALGORITHM of dense layers.
        schedule_any: schedules whatever tensor expressions make, one or several results.
        schedule_transpose: schedules the move of an image between plain order and blocks of so many channels.
        schedule_channels: schedules a move of channels, see `channel_moves`.
        seconds: (cycles, target) -> seconds of an algorithm's estimate.
        sum_cycles: (results, products of each, bytes of operands and results, target, rounded) -> cycles of sums that `schedule_any`
            schedules, and that are rounded to another type behind or not.
        copy_seconds: (type, target) -> seconds of a value's copy from one block of channels to another.
        plain_seconds: (convolution, target) -> seconds of copies around one that reads and writes plain images, where others do not; none
            where plain is the rule.
        compile: (scheduled functions, target, progress) -> contents of relocatable object files. Progress is called with (done, in all,
            what is at hand or done) of what another compiler takes long for: kernels of a library, each of them up to a minute, and the
            module's own together; not where there are none.
        parallel_cycles: of one thread, from how many on the knob `parallel` may be 1; None where kernels have no such knob.
        chains: whether expand, depthwise and project layers can be one kernel, see `bottleneck`; a schedule is called so then.
        widens: whether operands stored in half the width are computed as float32, see `Problem.widened`; else they are algorithms' own.
    """

    kind: str
    algorithms: tuple[Algorithm, ...]
    packings: Mapping[str, Packing]
    weight_gradients: tuple[WeightGradient, ...]
    quantized: tuple[QuantizedAlgorithm, ...]
    schedules: Mapping[str, Schedule]
    dense: Dense
    schedule_any: Callable[[tirx.PrimFunc, Target], tirx.PrimFunc] = field(repr=False)
    schedule_transpose: Callable[[tirx.PrimFunc, int, Target], tirx.PrimFunc] = field(repr=False)
    schedule_channels: Callable[[tirx.PrimFunc, Picks, Target], tirx.PrimFunc] = field(repr=False)
    seconds: Callable[[float, Target], float] = field(repr=False)
    sum_cycles: Callable[..., float] = field(repr=False)
    copy_seconds: Callable[[TensorType, Target], float] = field(repr=False)
    compile: Callable[[tvm.IRModule, Target, Progress], tuple[bytes, ...]] = field(repr=False)
    plain_seconds: Callable[[ConvSpec, Target], float] = field(default=lambda spec, target: 0.0, repr=False)  # fmt: skip
    parallel_cycles: float | None = None
    chains: bool = False
    widens: bool = False

    def computed(self, problem: Problem) -> Problem:
        """Return the problem as the kernels compute it: widened, where operands are stored in half the width."""
        return problem.widened if self.widens else problem

    def threads(self, cycles: Callable[[Target], float], target: Target) -> Knobs:
        """Return the knob `parallel` of a kernel whose estimate on a target is `cycles`; none where kernels have no such knob.

        1 where one thread works longer than `parallel_cycles`, and several are done before it. Estimates for several alone would say
        that a kernel of little work is long, since its one unit leaves all other threads without any.
        """
        if self.parallel_cycles is None:
            return {}
        alone = cycles(target.with_cores(1))
        if alone <= self.parallel_cycles:
            return {"parallel": 0}
        together = cycles(target) / target.cores
        return {"parallel": int(target.cores == 1 or together < alone)}

    def estimate(self, cycles: Callable[[Target], float], target: Target) -> float:
        """Return the seconds of a kernel whose estimate on a target is `cycles`, on one thread if `threads` says so."""
        several = target.cores > 1 and self.threads(cycles, target).get("parallel", 1)
        used = target if several or self.parallel_cycles is None else target.with_cores(1)
        return self.seconds(cycles(used), used)

    def algorithm(self, name: str) -> Algorithm:
        """Return the algorithm called `name`, or raise UnknownNameError."""
        for row in self.algorithms:
            if row.name == name:
                return row
        raise unknown_name("algorithm", name, [row.name for row in self.algorithms])


# Kind -> the folder whose `backend` module offers BACKEND; imported when first asked for.
_FOLDERS: Final = {"llvm": "convc.schedules.llvm", "cuda": "convc.schedules.cuda"}


def backend_of(target: Target) -> Backend:
    """Return the backend of a target's kind.

    Example:
        >>> from convc.target import parse_target
        >>> backend_of(parse_target("llvm", "x86-64-v3")).kind
        'llvm'
    """
    if target.kind not in _FOLDERS:
        raise unknown_name("target kind", target.kind, _FOLDERS)
    return _module(target.kind).BACKEND


def is_known_somewhere(algorithm: str) -> bool:
    """Whether any kind of target has an algorithm of this name: a model may ask for what only some of its targets have."""
    return backend_with(algorithm) is not None


def backend_with(algorithm: str) -> Backend | None:
    """Return a backend of any kind of target that has an algorithm of this name; None if none has."""
    kinds = (_module(kind).BACKEND for kind in _FOLDERS)
    return next((b for b in kinds if any(row.name == algorithm for row in b.algorithms)), None)


@cache
def _module(kind: str) -> Any:
    # The module and not its BACKEND: tests put another one in place.
    return importlib.import_module(f"{_FOLDERS[kind]}.backend")
