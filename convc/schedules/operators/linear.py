"""Matrix products, reductions and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from tvm import te, tirx, topi

from convc.ir.graph import Node
from convc.ir.types import TensorType
from convc.schedules import scalar
from convc.schedules.operators import cudnn
from convc.schedules.operators.extreme import greatest_of, least_of
from convc.schedules.operators.operator import OpAlgorithm, Operator, Tensors, Types, is_image

__all__ = ["ROWS"]


def _in_single(operator: Operator) -> Operator:
    """Return an operator of half-width floats that computes in float32: a sum of 1024 terms in bfloat16 has 3 bits left.

    TVM cannot store a vector of bfloat16 sums at all.
    """

    def compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
        dtype = node.type.dtype
        if dtype not in ("float16", "bfloat16"):
            return operator.compute(tensors, node, types, block)
        single = [scalar.map_elements(x, lambda v: v.astype("float32")) for x in tensors]
        widened = [TensorType(t.shape, "float32") for t in types]
        result = operator.compute(single, node, widened, block)
        return scalar.map_elements(result, lambda v: v.astype(dtype))

    return replace(operator, compute=compute)


def _matmul(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a, b = tensors
    rank = node.type.rank
    k = te.reduce_axis((0, types[0].shape[-1]), "k")

    def batch_of(t: TensorType, index: Sequence[Any]) -> list[Any]:
        own = index[rank - t.rank : rank - 2]
        return [tirx.const(0, "int32") if n == 1 else i for n, i in zip(t.shape, own, strict=False)]

    def value(*i):
        left = a(*batch_of(types[0], i), i[-2], k)
        return te.sum(left * b(*batch_of(types[1], i), k, i[-1]), axis=k)

    return te.compute(node.type.shape, value, name="matmul")


def _dense(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    (x, w, *extras), attributes = tensors, node.attributes
    c = te.reduce_axis((0, types[0].shape[1]), "c")
    y = te.compute(node.type.shape, lambda m, k: te.sum(x[m, c] * w[k, c], axis=c), name="dense")
    steps: Any = attributes.epilogue  # type: ignore[attr-defined]
    return scalar.apply_steps(y, steps, extras, topi.add)


def _spatial_reduction(node: Node, types: Types, block: int) -> bool:
    a: Any = node.attributes
    return is_image(types) and 1 not in a.axes and a.keepdims


# Terms from which on a sum is added up axis by axis.
_LONG_SUM: Final = 1024


def _sum(x: te.Tensor, axis: Sequence[int], keepdims: bool) -> te.Tensor:
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


def _softmax(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    return topi.nn.softmax(tensors[0], axis=axis)


def _log_softmax(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    axis %= types[0].rank
    top = greatest_of(tensors[0], axis, keepdims=True)
    shifted = topi.subtract(tensors[0], top)
    total = topi.sum(topi.exp(shifted), axis=axis, keepdims=True)
    return topi.subtract(shifted, topi.log(total))


def _softmax_grad(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    y, dy = tensors
    total = _along(topi.multiply(dy, y), node, types)
    return topi.multiply(y, topi.subtract(dy, total))


def _log_softmax_grad(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    y, dy = tensors
    return topi.subtract(dy, topi.multiply(topi.exp(y), _along(dy, node, types)))


def _along(x: te.Tensor, node: Node, types: Types) -> te.Tensor:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    return _sum(x, (axis % types[0].rank,), keepdims=True)


ROWS: Final[dict[str, Operator]] = {
    "dense": _in_single(Operator(_dense)),
    "matmul": _in_single(Operator(_matmul)),
    "softmax": _in_single(Operator(_softmax, algorithms=(cudnn.SOFTMAX,))),
    "log_softmax": _in_single(Operator(_log_softmax, algorithms=(cudnn.LOG_SOFTMAX,))),
    "softmax_grad": _in_single(Operator(_softmax_grad, algorithms=(cudnn.SOFTMAX_GRAD,))),
    "log_softmax_grad": _in_single(
        Operator(_log_softmax_grad, algorithms=(cudnn.LOG_SOFTMAX_GRAD,))
    ),
    "reduce_mean": _in_single(_reduce(_sum, mean=True, algorithms=(cudnn.REDUCE_MEAN,))),
    "reduce_sum": _in_single(_reduce(_sum)),
    "reduce_max": _reduce(greatest_of),
    "reduce_min": _reduce(least_of),
    "reduce_prod": _in_single(Operator(_reduce(topi.prod).compute)),
}
