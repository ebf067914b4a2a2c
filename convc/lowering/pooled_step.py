"""The step of a convolution and the pool behind it, see `schedules.pooled`: what it reads, and its kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm import tirx

from convc.ir.graph import Graph, Node
from convc.lowering.kernels import named_kernel, scheduled
from convc.lowering.partition import Unit
from convc.lowering.program import Kernel
from convc.schedules import pooled, pooled_model
from convc.schedules.algorithm import Algorithm, Operands
from convc.schedules.backend import backend_of
from convc.schedules.layout import Halo, View
from convc.schedules.plan import Chain, Knobs, Plan
from convc.schedules.pooled import Pooled
from convc.schedules.select import problem_of
from convc.target import Target

__all__ = ["PooledStep", "pooled_kernel"]


@dataclass(frozen=True, slots=True)
class PooledStep:
    """One unit of a convolution and a pool.

    Attributes:
        layer, pool: the nodes.
        posed: the two as one problem.
        algorithm: of the convolution.
        knobs: of the kernel.
        wants: layouts of data and result.
        around: rows around a residual that the kernel's view of it includes.
    """

    layer: Node
    pool: Node
    posed: Pooled
    algorithm: Algorithm
    knobs: Knobs
    wants: Operands
    around: Halo

    @staticmethod
    def of(graph: Graph, unit: Unit, chain: Chain, plan: Plan, target: Target) -> PooledStep:
        """Return the step that the plan wants for a chain's unit."""
        (layer, pool), choice = unit.nodes, plan[unit.nodes[0].name]
        window = pooled.window_of(graph, pool)
        assert window is not None, f"'{pool.name}' is no pool"
        posed = Pooled(problem_of(graph, layer).widened, window)
        backend = backend_of(target)
        algorithm = backend.algorithm(choice.algorithm)
        own = {**choice.knobs, **chain.knobs}
        by_threads = backend.threads(
            lambda t: pooled_model.cycles(posed, algorithm, t, own), target
        )
        knobs = {**own, **by_threads}
        wants = pooled.operands(posed, algorithm, target, knobs)
        return PooledStep(layer, pool, posed, algorithm, knobs, wants, pooled.residual_border(posed, knobs))  # fmt: skip

    @property
    def borders(self) -> dict[tuple[str, int], Halo]:
        """The halos that the kernel reads around its data and residuals, by value and block."""
        found = {(self.layer.inputs[0], self.wants.data.block): self.wants.border}
        steps = [s for s in self.posed.layer.epilogue if s.takes_operand]
        for name, step in zip(self.layer.inputs[2:], steps, strict=True):
            if step.name != "bias":
                key = (name, self.wants.result.block)
                found[key] = found.get(key, Halo()).union(self.around)
        return found

    def kernel(self, target: Target, views: Sequence[View]) -> Kernel:
        """Return the kernel for these views of its operands."""
        return pooled_kernel(self.posed, self.algorithm, target, self.knobs, views)


def pooled_kernel(
    posed: Pooled, algorithm: Algorithm, target: Target, knobs: Knobs, views: Sequence[View]
) -> Kernel:
    """Return the kernel of a convolution by an algorithm, and of the pool behind it."""

    def make() -> tirx.PrimFunc:
        tensors = pooled.compute(posed, algorithm, target, knobs)
        return scheduled(algorithm, posed.layer, tensors, target, knobs)

    layer = posed.layer
    stem = f"{algorithm.name}_pooled_{layer.spec.key.split('-pd')[0]}"
    parts = (
        replace(posed, layer=replace(layer, stored="")).key,
        sorted(knobs.items()),
        layer.constant_weight,
        layer.accumulator,
    )
    return named_kernel(stem, parts, views, make)
