"""What MetaSchedule is given: the convolution as convc's own kernels read it, one tensor expression, nothing scheduled.

Data with its border and weights lie in blocks of as many channels as a vector holds, so MetaSchedule need not find a layout, nor copy
into one. Depthwise layers are convc's `depthwise` expression, all others `direct`'s: the definition, without Winograd or FFT.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tvm import te

from convc.ir import ConvSpec
from convc.schedules.algorithm import Algorithm, Problem
from convc.schedules.backend import backend_of
from convc.schedules.plan import Knobs
from convc.target import Target, parse_target

if TYPE_CHECKING:
    from tvm import tirx

__all__ = ["Workload"]


@dataclass(frozen=True)
class Workload:
    """One layer on one target."""

    problem: Problem
    target: Target

    @staticmethod
    def of(key: str, threads: int) -> Workload:
        """Return the workload of a convolution by its canonical name, on this machine."""
        return Workload(Problem(ConvSpec.parse(key)), parse_target(cores=threads))

    @property
    def algorithm(self) -> Algorithm:
        name = "depthwise" if self.problem.spec.is_depthwise else "direct"
        return backend_of(self.target).algorithm(name)

    @cached_property
    def knobs(self) -> Knobs:
        """The blocks are convc's choice; a vector of output channels at a time, the tiles are for MetaSchedule to find."""
        chosen = dict(self.algorithm.knobs(self.problem, self.target))
        return chosen | ({"vectors": 1} if "vectors" in chosen else {})

    def function(self) -> tirx.PrimFunc:
        """Return the tensor expression as a function of data, weight and result."""
        return te.create_prim_func(
            list(self.algorithm.compute(self.problem, self.target, self.knobs))
        )
