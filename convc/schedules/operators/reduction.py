"""Reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from tvm import te, tirx, topi

from convc.ir.graph import Node
from convc.schedules import scalar
from convc.schedules.extreme import greatest_of, least_of
from convc.schedules.operators import cudnn
from convc.schedules.operators.operator import OpAlgorithm, Operator, Tensors, Types, is_image
from convc.schedules.operators.single import in_single

__all__ = ["ROWS", "sum_over"]


def _spatial_reduction(node: Node, types: Types, block: int) -> bool:
    a: Any = node.attributes
    return is_image(types) and 1 not in a.axes and a.keepdims


# Terms from which on a sum is added up axis by axis.
_LONG_SUM: Final = 1024


def sum_over(x: te.Tensor, axis: Sequence[int], keepdims: bool) -> te.Tensor:
    """Return the sum; a long one axis by axis, the last first: an error of a chain's length, not of all terms.

    Statistics of a batch are sums of 100 000 terms (8 images of 112 x 112). As one chain in float32 they were wrong by 1e-5, which
    changed the sign of some pre-activations of ResNet-18, and with them a gradient by 9 % of its greatest element.
    """
    if math.prod(int(x.shape[i]) for i in axis) < _LONG_SUM:
        return topi.sum(x, axis=list(axis), keepdims=keepdims)
    *rest, last = sorted(axis)
    for i in (last, *reversed(rest)):
        x = topi.sum(x, axis=[i], keepdims=True)
    if keepdims:
        return x
    return topi.squeeze(x, axis=sorted(axis))


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


ROWS: Final[dict[str, Operator]] = {
    "reduce_mean": in_single(_reduce(sum_over, mean=True, algorithms=(cudnn.REDUCE_MEAN,))),
    "reduce_sum": in_single(_reduce(sum_over)),
    "reduce_max": _reduce(greatest_of),
    "reduce_min": _reduce(least_of),
    "reduce_prod": in_single(Operator(_reduce(topi.prod).compute)),
}
