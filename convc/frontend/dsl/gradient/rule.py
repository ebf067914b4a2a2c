"""What the rule of one op is: from the gradient of its result, those of its operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from convc.frontend.dsl.tensor import Tensor, apply
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.shape import ReshapeAttributes, ResizeAttributes
from convc.ir.types import Shape

__all__ = ["Call", "Gradients", "Rule", "broadcast", "sum_to"]


@dataclass(frozen=True, slots=True)
class Call:
    """One op of the forward graph.

    Attributes:
        y: its result.
        dy: the gradient of the loss with respect to that.
        needed: for each operand, whether its gradient is asked for.
    """

    y: Tensor
    dy: Tensor
    needed: tuple[bool, ...]

    @property
    def operands(self) -> tuple[Tensor, ...]:
        return self.y.producers

    @property
    def x(self) -> Tensor:
        """The first operand."""
        return self.y.producers[0]

    @property
    def attributes(self) -> Any:
        # Any: the class depends on the op, which the table of rules knows and a type checker does not.
        return self.y.node.attributes


# One gradient for each operand; None is zero, or was not needed.
Gradients: TypeAlias = Sequence[Tensor | None]
Rule: TypeAlias = Callable[[Call], Gradients]


def sum_to(gradient: Tensor, shape: Shape) -> Tensor:
    """Return the gradient of an operand that was broadcast from `shape`: the sum over every axis that repeated it.

    Example:
        >>> from convc.frontend.dsl.tensor import input
        >>> sum_to(input("dy", (2, 3, 4)), (3, 1)).shape
        (3, 1)
    """
    if gradient.shape == shape:
        return gradient
    lead = len(gradient.shape) - len(shape)
    axes = [
        i
        for i, n in enumerate(gradient.shape)
        if i < lead or (shape[i - lead] == 1 and n != 1)
    ]  # fmt: skip
    if axes:
        gradient = apply("reduce_sum", [gradient], ReduceAttributes(tuple(axes), keepdims=True))
    if gradient.shape == shape:
        return gradient
    return apply("reshape", [gradient], ReshapeAttributes(shape))


def broadcast(x: Tensor, shape: Shape, axes: Sequence[int], *, keepdims: bool) -> Tensor:
    """Return a reduction's result repeated along the `axes` that were reduced, up to the data's `shape`."""
    if not keepdims:
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        x = apply("reshape", [x], ReshapeAttributes(kept))
    factors = tuple(n if i in axes else 1 for i, n in enumerate(shape))
    return apply("resize", [x], ResizeAttributes(factors)) if set(factors) != {1} else x
