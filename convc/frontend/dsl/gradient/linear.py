"""Rules of matrix products, reductions and softmax."""

from __future__ import annotations

import math
from typing import Final

from convc.frontend.dsl.gradient.rule import Call, Gradients, Rule, broadcast, sum_to
from convc.frontend.dsl.tensor import Tensor, apply
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.shape import TransposeAttributes

__all__ = ["ROWS", "dense", "matmul"]


def _transposed(x: Tensor) -> Tensor:
    """Return the matrices on the last two axes transposed."""
    rank = len(x.shape)
    return apply("transpose", [x], TransposeAttributes((*range(rank - 2), rank - 1, rank - 2)))


def matmul(call: Call) -> Gradients:
    """Return the gradients of a b."""
    a, b = call.operands
    da = apply("matmul", [call.dy, _transposed(b)]) if call.needed[0] else None
    db = apply("matmul", [_transposed(a), call.dy]) if call.needed[1] else None
    return [da and sum_to(da, a.shape), db and sum_to(db, b.shape)]


def dense(call: Call) -> Gradients:
    """Return the gradients of x weight^T."""
    x, w = call.operands
    return [
        apply("matmul", [call.dy, w]) if call.needed[0] else None,
        apply("matmul", [_transposed(call.dy), x]) if call.needed[1] else None,
    ]


def _reduce_sum(call: Call) -> Gradients:
    a = call.attributes
    return [broadcast(call.dy, call.x.shape, a.axes, keepdims=a.keepdims)]


def _reduce_mean(call: Call) -> Gradients:
    a = call.attributes
    count = math.prod(call.x.shape[i] for i in a.axes)
    return [broadcast(call.dy * (1 / count), call.x.shape, a.axes, keepdims=a.keepdims)]


def _reduce_extreme(call: Call) -> Gradients:
    # As for max_pool: every element that equals the extreme gets the whole gradient.
    a = call.attributes
    y = broadcast(call.y, call.x.shape, a.axes, keepdims=a.keepdims)
    chosen = 1.0 - apply("abs", [apply("sign", [call.x - y])])
    return [broadcast(call.dy, call.x.shape, a.axes, keepdims=a.keepdims) * chosen]


def _sum_along(x: Tensor, axis: int) -> Tensor:
    return apply("reduce_sum", [x], ReduceAttributes((axis % len(x.shape),), keepdims=True))


def _softmax(call: Call) -> Gradients:
    return [apply("softmax_grad", [call.y, call.dy], call.attributes)]


def _log_softmax(call: Call) -> Gradients:
    return [apply("log_softmax_grad", [call.y, call.dy], call.attributes)]


def _softmax_grad(call: Call) -> Gradients:
    """Return those of y (g - sum g y) for the gradient g of its result: the softmax's own rule is symmetric in dy."""
    y, dy = call.operands
    axis, g = call.attributes.axis, call.dy
    to_y = g * (dy - _sum_along(dy * y, axis)) - dy * _sum_along(g * y, axis)
    return [
        to_y if call.needed[0] else None,
        apply("softmax_grad", [y, g], call.attributes) if call.needed[1] else None,
    ]


def _log_softmax_grad(call: Call) -> Gradients:
    y, dy = call.operands
    axis, p = call.attributes.axis, apply("exp", [y])
    to_y = -(call.dy * p) * _sum_along(dy, axis) if call.needed[0] else None
    return [to_y, call.dy - _sum_along(call.dy * p, axis) if call.needed[1] else None]


ROWS: Final[dict[str, Rule]] = {
    "reduce_sum": _reduce_sum,
    "reduce_mean": _reduce_mean,
    "reduce_max": _reduce_extreme,
    "reduce_min": _reduce_extreme,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "softmax_grad": _softmax_grad,
    "log_softmax_grad": _log_softmax_grad,
}
