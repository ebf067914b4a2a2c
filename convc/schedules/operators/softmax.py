"""Softmax, its logarithm and their gradients."""

from __future__ import annotations

from typing import Final

from tvm import te, topi

from convc.ir.graph import Node
from convc.schedules import softmax
from convc.schedules.extreme import greatest_of
from convc.schedules.operators import cudnn
from convc.schedules.operators.by_rows import LONGEST_ROW, row_knobs
from convc.schedules.operators.operator import OpAlgorithm, Operator, Tensors, Types
from convc.schedules.operators.reduction import sum_over
from convc.schedules.operators.single import in_single
from convc.schedules.plan import Knobs, Unsupported
from convc.target import Target

__all__ = ["ROWS"]


# Of the widest vectors.
_MOST_LANES: Final = 16


def _axis(node: Node) -> int:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    return axis % node.type.rank


def _softmax(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    return topi.nn.softmax(tensors[0], axis=_axis(node))


def _log_softmax(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    top = greatest_of(tensors[0], _axis(node), keepdims=True)
    shifted = topi.subtract(tensors[0], top)
    total = topi.sum(topi.exp(shifted), axis=_axis(node), keepdims=True)
    return topi.subtract(shifted, topi.log(total))


def _softmax_grad(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    y, dy = tensors
    total = _along(topi.multiply(dy, y), node)
    return topi.multiply(y, topi.subtract(dy, total))


def _log_softmax_grad(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    y, dy = tensors
    return topi.subtract(dy, topi.multiply(topi.exp(y), _along(dy, node)))


def _along(x: te.Tensor, node: Node) -> te.Tensor:
    return sum_over(x, (_axis(node),), keepdims=True)


def _by_rows(*, log: bool) -> OpAlgorithm:
    def compute(
        tensors: Tensors, node: Node, types: Types, block: int, target: Target
    ) -> te.Tensor:
        return softmax.compute(
            tensors[0], _axis(node), knobs(node, types, target)["lanes"], log=log
        )

    def knobs(node: Node, types: Types, target: Target) -> Knobs:
        return row_knobs(types[0], _axis(node), target)

    def supports(node: Node, types: Types) -> Unsupported | None:
        (x,) = types
        if x.dtype == "float64":
            return Unsupported("its exponential is one of float32")
        axis = _axis(node)
        # As many neighbouring rows as a vector has lanes are side by side.
        longest = (
            LONGEST_ROW if axis == x.rank - 1 else LONGEST_ROW // min(_MOST_LANES, x.shape[-1])
        )
        if not 0 < x.shape[axis] <= longest:
            return Unsupported(f"rows must have from 1 to {longest} elements; got {x.shape[axis]}")
        return None

    return OpAlgorithm("rows", "rows", compute, knobs, supports)


ROWS: Final[dict[str, Operator]] = {
    "softmax": in_single(Operator(_softmax, algorithms=(_by_rows(log=False), cudnn.SOFTMAX))),
    "log_softmax": in_single(
        Operator(_log_softmax, algorithms=(_by_rows(log=True), cudnn.LOG_SOFTMAX))
    ),
    "softmax_grad": in_single(Operator(_softmax_grad, algorithms=(cudnn.SOFTMAX_GRAD,))),
    "log_softmax_grad": in_single(
        Operator(_log_softmax_grad, algorithms=(cudnn.LOG_SOFTMAX_GRAD,))
    ),
}
