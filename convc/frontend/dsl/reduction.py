"""Reductions and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from convc.frontend.dsl.arguments import axis_numbers, flag, whole
from convc.frontend.dsl.tensor import Operand, Tensor, apply, as_tensor, building
from convc.ir.ops.linear import AxisAttributes, ReduceAttributes

__all__ = ["log_softmax", "max", "mean", "min", "softmax", "sum"]


class Reduction(Protocol):
    """A reduction over some axes, negative ones counted from the end; without `axes`, over all."""

    def __call__(
        self,
        x: Operand,
        axes: int | Sequence[int] | None = None,
        *,
        keepdims: bool = False,
        name: str | None = None,
    ) -> Tensor: ...


def _reduction(function_name: str) -> Reduction:
    def function(
        x: Operand,
        axes: int | Sequence[int] | None = None,
        *,
        keepdims: bool = False,
        name: str | None = None,
    ) -> Tensor:
        x = as_tensor(x)
        rank = len(x.shape)
        over = tuple(range(rank)) if axes is None else axis_numbers("axes", axes, rank)
        attributes = ReduceAttributes(over, flag("keepdims", keepdims))
        return apply(f"reduce_{function_name}", [x], attributes, name=name)

    function.__name__ = function.__qualname__ = function_name
    function.__doc__ = f"Return the {function_name} over `axes` (all axes if left out)."
    return building(function)


mean = _reduction("mean")
sum = _reduction("sum")
max = _reduction("max")
min = _reduction("min")


@building
def softmax(x: Operand, axis: int = -1, *, name: str | None = None) -> Tensor:
    """Return exp(x) / sum(exp(x)) along `axis`."""
    return apply("softmax", [x], AxisAttributes(whole("axis", axis)), name=name)


@building
def log_softmax(x: Operand, axis: int = -1, *, name: str | None = None) -> Tensor:
    """Return log(softmax(x)) along `axis`."""
    return apply("log_softmax", [x], AxisAttributes(whole("axis", axis)), name=name)
