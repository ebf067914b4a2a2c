"""Depthwise convolution on a device: a thread adds up a column of a few results, so that rows of data are loaded once for all of them."""

from __future__ import annotations

from collections.abc import Iterator

from convc.schedules.algorithm import Problem
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles, point_cycles
from convc.schedules.generic import Generic
from convc.schedules.plan import Knobs, Unsupported
from convc.target import Target

__all__ = ["ALGORITHM", "Depthwise"]


class Depthwise(Generic):
    """See the module's text."""

    name = "depthwise"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        if spec.transposed:
            return Unsupported("convolution must not be transposed")
        if spec.group != spec.in_channels:
            return Unsupported(
                f"group must equal C; got group = {spec.group}, C = {spec.in_channels}"
            )
        return indexed(spec)

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the setting that the model finds fastest."""
        return min(self.space(problem, target), key=lambda k: self.cycles(problem, target, k))

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield rows of a thread, in two dimensions or more, and threads of a block."""
        spec = problem.spec
        for rows in (1, 2, 4, 8):
            if rows == 1 or (spec.rank > 1 and rows <= spec.output[-2]):
                for threads in (128, 256):
                    yield {"rows": rows, "threads": threads}

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return clocks of the loads, rows of a tile sharing theirs, or of memory if that is slower."""
        spec, gpu = problem.spec, target.gpu
        rows, taps = knobs["rows"], 1.0
        for kernel in spec.kernel:
            taps *= kernel
        if spec.rank > 1 and spec.strides[-2] < spec.kernel[-2]:
            taps *= ((rows - 1) * spec.strides[-2] + spec.kernel[-2]) / (rows * spec.kernel[-2])
        tiles = 1.0
        for axis, extent in enumerate(spec.output):
            tiles *= -(-extent // rows) if axis == len(spec.output) - 2 and rows > 1 else extent
        # Threads at the edge compute rows that nobody reads.
        work = point_cycles(gpu, tiles, tiles * rows * taps)
        return max(work, memory_cycles(gpu, spec.nbytes)) + LAUNCH_SECONDS * gpu.clock_hz


ALGORITHM = Depthwise()
