"""Convolution of any kind on a device, one thread a result: the fallback that takes everything; the algorithm is `schedules.generic`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from convc.schedules.algorithm import Problem
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles, point_cycles
from convc.schedules.generic import Generic
from convc.schedules.plan import Knobs, Unsupported
from convc.target import Target

__all__ = ["ALGORITHM", "CudaGeneric"]


class CudaGeneric(Generic):
    """See the module's text."""

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return None: it takes everything that a kernel can index."""
        return indexed(problem.spec)

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return blocks of 256 threads, or of fewer where there are few results."""
        results = math.prod(problem.spec.output)
        threads = next(t for t in (256, 128, 64, 32) if t == 32 or results >= t * target.gpu.sms)
        return {"rows": 1, "threads": threads}

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield sizes of blocks."""
        for threads in (64, 128, 256, 512):
            yield {"rows": 1, "threads": threads}

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return clocks of two loads a term; transposed, every tap is tried at every result."""
        spec, gpu = problem.spec, target.gpu
        terms = spec.flops / 2
        if spec.transposed:
            terms = float(spec.data[0] * math.prod(spec.output[2:]) * math.prod(spec.weight))
        work = point_cycles(gpu, math.prod(spec.output), 2 * terms)
        return max(work, memory_cycles(gpu, spec.nbytes)) + LAUNCH_SECONDS * gpu.clock_hz


ALGORITHM = CudaGeneric()
