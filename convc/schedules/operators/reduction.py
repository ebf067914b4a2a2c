"""Reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from tvm import te, tirx, topi

from convc.ir.graph import Node
from convc.schedules import row_sums, scalar
from convc.schedules.extreme import greatest_of, least_of
from convc.schedules.operators import cudnn
from convc.schedules.operators.operator import OpAlgorithm, Operator, Tensors, Types, is_image
from convc.schedules.operators.single import in_single
from convc.schedules.plan import Knobs, Unsupported
from convc.target import Target

__all__ = ["ROWS", "sum_over"]


def _spatial_reduction(node: Node, types: Types, block: int) -> bool:
    a: Any = node.attributes
    return is_image(types) and 1 not in a.axes and a.keepdims


# Terms from which on a sum is added up axis by axis, and one of a single axis in parts.
_LONG_SUM: Final = 1024

# Rows of 7 elements took 1.4 times as long as by neighbouring rows; from so many elements on threads share the rows.
_LEAST_ROW: Final = 8
_PARALLEL_ELEMENTS: Final = 16 << 10

# Parts are whole vectors of the widest unit.
_LANES: Final = 16

# Of a whole tensor's greatest element: four vectors side by side.
_PARTS: Final = 4 * _LANES


def sum_over(x: te.Tensor, axis: Sequence[int], keepdims: bool) -> te.Tensor:
    """Return the sum; a long one axis by axis, the last first, and in parts: an error of a chain's length, not of all terms.

    Statistics of a batch are sums of 100 000 terms (8 images of 112 x 112). As one chain in float32 they were wrong by 1e-5, which
    changed the sign of some pre-activations of ResNet-18, and with them a gradient by 9 % of its greatest element.
    """
    if math.prod(int(x.shape[i]) for i in axis) < _LONG_SUM:
        return topi.sum(x, axis=list(axis), keepdims=keepdims)
    *rest, last = sorted(axis)
    for i in (last, *reversed(rest)):
        x = _along(x, i)
    if keepdims:
        return x
    return topi.squeeze(x, axis=sorted(axis))


def _along(x: te.Tensor, axis: int) -> te.Tensor:
    """Return the sum along one axis, which stays; of a long one the sum of about as many parts as each has terms.

    A mean of 65 000 elements near 1000 as one chain was wrong by 1e-3 and, a scalar at a time, took 4 cycles for each.
    """
    count = int(x.shape[axis])
    if count < _LONG_SUM:
        return topi.sum(x, axis=[axis], keepdims=True)
    parts = _LANES * round(math.sqrt(count) / _LANES)

    def summed(begin: int, steps: int, extent: int, name: str) -> te.Tensor:
        """Return `extent` sums of every so manieth of the elements behind `begin`."""
        k = te.reduce_axis((0, steps), "k")

        def value(*i: Any) -> Any:
            return te.sum(x(*i[:axis], begin + k * extent + i[axis], *i[axis + 1 :]), axis=k)

        return te.compute((*x.shape[:axis], extent, *x.shape[axis + 1 :]), value, name=name)

    steps, rest = divmod(count, parts)
    total = topi.sum(summed(0, steps, parts, "parts"), axis=[axis], keepdims=True)
    return topi.add(total, summed(steps * parts, rest, 1, "rest")) if rest else total


def _extreme_over(
    one: Callable[..., te.Tensor], of_two: Callable[..., te.Tensor]
) -> Callable[..., te.Tensor]:
    """Return the greatest or least element along some axes; of a whole tensor that of vectors of parts first.

    One element after the other takes the latency of a comparison: 37824 elements, a transformer's tokens, took 36 us, in parts 2.5.
    """

    def over(x: te.Tensor, axis: Sequence[int], keepdims: bool) -> te.Tensor:
        count = math.prod(int(n) for n in x.shape)
        if len(axis) < len(x.shape) or count < _LONG_SUM:
            return one(x, axis, keepdims)
        flat = topi.reshape(x, (count,))
        steps, rest = divmod(count, _PARTS)
        whole = topi.reshape(topi.strided_slice(flat, [0], [steps * _PARTS], [1]), (steps, _PARTS))
        y = one(one(whole, [0]), [0])
        if rest:
            y = of_two(y, one(topi.strided_slice(flat, [steps * _PARTS], [count], [1]), [0]))
        return topi.reshape(y, (1,) * len(x.shape)) if keepdims else y

    return over


def _reduce(
    function: Callable[..., te.Tensor],
    mean: bool = False,
    algorithms: tuple[OpAlgorithm, ...] = (),
) -> Operator:
    def compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
        a: Any = node.attributes
        if not a.axes:
            return scalar.map_elements(tensors[0], lambda v: v)
        y = function(tensors[0], axis=list(a.axes), keepdims=a.keepdims)
        if not mean:
            return y
        count = math.prod(types[0].shape[i] for i in a.axes)
        return scalar.map_elements(y, lambda v: v * tirx.const(1.0 / count, types[0].dtype))

    return Operator(compute, _spatial_reduction, algorithms)


def _by_rows(mean: bool) -> OpAlgorithm:
    """Return sums along the last axis in vectors of it; `mean` divides them by their terms.

    Images in blocks of channels have no such rows, and are left to the op's own computation, in blocks.
    """
    own = _reduce(sum_over, mean)

    def compute(tensors: Tensors, node: Node, types: Types, block: int, target: Target) -> te.Tensor:  # fmt: skip
        if block:
            return own.compute(tensors, node, types, block)
        count = types[0].shape[-1]
        lanes = row_sums.lanes_of(count, target.lanes)
        return row_sums.compute(tensors[0], node.type.shape, lanes, 1.0 / count if mean else 1.0)

    def knobs(node: Node, types: Types, target: Target) -> Knobs:
        return {"parallel": int(types[0].size >= _PARALLEL_ELEMENTS)}

    return OpAlgorithm("rows", "row_sums", compute, knobs, _no_rows, _spatial_reduction)


def _no_rows(node: Node, types: Types) -> Unsupported | None:
    a: Any = node.attributes
    x = types[0]
    if not x.is_float or x.dtype == "float64":
        return Unsupported(f"its sums are of float32; got {x.dtype}")
    if tuple(a.axes) != (x.rank - 1,):
        return Unsupported(f"the axis must be the last alone, {x.rank - 1}; got {list(a.axes)}")
    if not _LEAST_ROW <= x.shape[-1] <= row_sums.LONGEST or not node.type.size or not node.type.rank:  # fmt: skip
        return Unsupported(f"rows must be some, of {_LEAST_ROW} to {row_sums.LONGEST} elements; got {x}")  # fmt: skip
    return None


ROWS: Final[dict[str, Operator]] = {
    "reduce_mean": in_single(
        _reduce(sum_over, mean=True, algorithms=(cudnn.REDUCE_MEAN, _by_rows(mean=True)))
    ),
    "reduce_sum": in_single(_reduce(sum_over, algorithms=(_by_rows(mean=False),))),
    "reduce_max": _reduce(_extreme_over(greatest_of, topi.maximum)),
    "reduce_min": _reduce(_extreme_over(least_of, topi.minimum)),
    "reduce_prod": in_single(Operator(_reduce(topi.prod).compute)),
}
