"""What follows the sums of a convolution on plain tensors: operands, steps, and one rounding to the result's type."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import te

from convc.schedules.algorithm import Problem
from convc.schedules.scalar import apply_steps, cast

__all__ = ["finish", "plain_extras"]


def plain_extras(problem: Problem) -> list[te.Tensor]:
    """Return placeholders of an epilogue's operands: bias as (K,), residual like the result."""
    spec = problem.spec
    return [
        te.placeholder(
            (spec.out_channels,) if step.name == "bias" else spec.output, spec.dtype, name=step.name
        )
        for step in problem.epilogue
        if step.takes_operand
    ]


def finish(y: te.Tensor, problem: Problem, extras: Sequence[te.Tensor]) -> te.Tensor:
    """Return the epilogue of plain sums `y`, rounded once to the result's type."""

    def bias(y: te.Tensor, b: te.Tensor) -> te.Tensor:
        return te.compute(y.shape, lambda n, k, *p: y(n, k, *p) + b[k], name="bias_add")

    wide = [cast(e, problem.accumulator) for e in extras]
    return cast(apply_steps(y, problem.epilogue, wide, bias), problem.spec.dtype)
