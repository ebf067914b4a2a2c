"""How fast this machine is just now, beside a reference kernel: what a neighbour on the same core takes is not a setting's fault.

On a shared machine a core is as much as 1.8 times slower for tenths of a second to seconds, as if another tenant ran on its other hardware
thread. Kernels of register tiles are slower alike: the third quartiles of four (two of 1x1, one of 3x3, one strided) were 1.42 to 1.53
of their best. Divided by how long the reference took just before and after, the quartiles of each lie within 3 % of its median.
What waits for memory may be slowed less, and then looks faster than it is; that was not measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import tvm
from tvm import te

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.llvm.compiler import build
from convc.target import Target

__all__ = ["REFERENCE_FLOPS", "Pace", "reference_call", "reference_seconds"]

# 14 MFLOP of 3 x 3 products, in L2: 0.08 ms on a core at 175 GFLOP/s, and so little beside a sample of 3 ms.
_SPEC: Final = ConvSpec.of((1, 64, 14, 14), (64, 64, 3, 3), pads=(1, 1, 1, 1))
REFERENCE_FLOPS: Final = _SPEC.flops
_CALLS: Final = 3
# The best of so long, several times, is what the undisturbed machine takes: a slow phase may last that long once.
_SECONDS: Final = 0.7


class Pace:
    """The reference kernel, on as many threads as the target has.

    Args:
        target: a CPU.
        undisturbed: what `reference_seconds` found when the machine was calibrated.
    """

    def __init__(self, target: Target, undisturbed: float) -> None:
        self._call, self._undisturbed = reference_call(target), undisturbed

    def now(self) -> float:
        """Return how many times as long as undisturbed the reference takes.

        The least of a few calls: another program may take the core during one.
        """
        return min(self._call() for _ in range(_CALLS)) / self._undisturbed


def reference_seconds(target: Target) -> float:
    """Return what the reference takes at best, in seconds."""
    call, until = reference_call(target), time.perf_counter() + _SECONDS
    best = call()
    while time.perf_counter() < until:
        best = min(best, call())
    return best


def reference_call(target: Target) -> Callable[[], float]:
    """Return a call of the reference kernel that returns its seconds; it runs in the calling thread's pool."""
    backend, problem = backend_of(target), Problem(_SPEC)
    direct = backend.algorithm("direct")
    knobs = dict(direct.knobs(problem, target)) | {"parallel": int(target.cores > 1)}
    tensors = direct.compute(problem, target, knobs)
    func = backend.schedules["direct"](te.create_prim_func(list(tensors)), knobs, target)
    named = func.with_attr("global_symbol", "reference")
    kernel: Any = build(tvm.IRModule({"reference": named}), target)["reference"]
    shapes = [tuple(int(d) for d in t.shape) for t in tensors]
    arguments = [tvm.runtime.tensor(np.ones(shape, np.float32)) for shape in shapes]
    kernel(*arguments)

    def call() -> float:
        begin = time.perf_counter()
        kernel(*arguments)
        return time.perf_counter() - begin

    return call
