"""What follows the sums of a convolution on blocks of channels: operands, steps, one rounding to the result's type, zeros beyond."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import te

from convc.ir.types import Shape
from convc.schedules.algorithm import Problem
from convc.schedules.scalar import apply_steps, cast, zero_beyond

__all__ = ["blocked_extras", "blocked_result"]


def blocked_extras(problem: Problem, blocks: int, block: int, result: Shape) -> list[te.Tensor]:
    """Return placeholders of an epilogue's operands: bias as (blocks, block), residual like the result."""
    extras = []
    for step in problem.epilogue:
        if step.takes_operand:
            shape = (blocks, block) if step.name == "bias" else result
            extras.append(te.placeholder(shape, problem.spec.dtype, name=step.name))
    return extras


def blocked_result(y: te.Tensor, problem: Problem, extras: Sequence[te.Tensor]) -> te.Tensor:
    """Return the epilogue of sums `y` (N, K/b, ..., b), rounded once to the result's type."""
    wide = [cast(e, problem.accumulator) for e in extras]

    def bias(y: te.Tensor, b: te.Tensor) -> te.Tensor:
        return te.compute(y.shape, lambda n, k, *i: y(n, k, *i) + b[k, i[-1]], name="bias_add")

    y = cast(apply_steps(y, problem.epilogue, wide, bias), problem.spec.dtype)
    return zero_beyond(y, problem.spec.out_channels, int(y.shape[-1]))
