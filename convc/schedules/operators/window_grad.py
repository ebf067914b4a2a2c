"""Gradients of pools, each point gathering from the windows that hold it: no two threads ever add to one element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tvm import te, tirx

from convc.ir.graph import Node
from convc.ir.ops.conv import accumulator
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes
from convc.ir.ops.pool_grad import SumPoolGradAttributes
from convc.ir.types import Shape
from convc.schedules.narrow import narrowed
from convc.schedules.operators import cudnn
from convc.schedules.operators.operator import Operator, Tensors, Types, follow_images

__all__ = ["ROWS"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def _gather(
    shape: Shape,
    windows: Shape,
    a: MaxPoolAttributes | AveragePoolAttributes,
    dtype: str,
    value: Callable[[list[Expr], list[Expr]], Expr],
) -> te.Tensor:
    """Return the sum of `value(point, window)` over the windows that hold each point.

    Without dilation ceil(kernel / stride) windows at most hold a point: only those are tried.
    """
    n, wide = len(a.kernel), accumulator(dtype)
    strides, pads = a.strides or (1,) * n, a.pads or (0,) * (2 * n)
    dilations = a.dilations or (1,) * n
    counts = [
        -(-k // s) if d == 1 else k for k, s, d in zip(a.kernel, strides, dilations, strict=True)
    ]
    axes = [te.reduce_axis((0, count), f"t{i}") for i, count in enumerate(counts)]

    def element(batch, channel, *rest):
        window, conditions = [], []
        for i in range(n):
            position = rest[i] + pads[i]
            if dilations[i] == 1:
                p = position // strides[i] - axes[i]
                conditions += [p >= 0, p < windows[i], position - p * strides[i] < a.kernel[i]]
            else:
                begin = position - axes[i] * dilations[i]
                p = begin // strides[i]
                conditions += [begin >= 0, begin % strides[i] == 0, p < windows[i]]
            window.append(p)
        point = [batch, channel, *rest]
        inside = value(point, [batch, channel, *window, *rest[n:]])
        held = tirx.if_then_else(tirx.all(*conditions), inside, tirx.const(0, dtype))
        return te.sum(held.astype(wide), axis=axes)

    return narrowed(te.compute(shape, element, name="gathered"), dtype)


def _max_pool_grad(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a, dtype = node.attributes, types[0].dtype
    assert isinstance(a, MaxPoolAttributes)
    x, y, dy = tensors

    def value(point: list[Expr], window: list[Expr]) -> Expr:
        return tirx.Select(x(*point) == y(*window), dy(*window), tirx.const(0, dtype))

    return _gather(x.shape, types[1].shape[2:], a, dtype, value)


def _max_pool_select(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a, dtype = node.attributes, types[0].dtype
    assert isinstance(a, MaxPoolAttributes)
    x, y, g = tensors
    n = len(a.kernel)
    strides, pads = a.strides or (1,) * n, a.pads or (0,) * (2 * n)
    dilations = a.dilations or (1,) * n
    taps = [te.reduce_axis((0, k), f"r{i}") for i, k in enumerate(a.kernel)]

    def value(batch, channel, *rest):
        at, conditions = [], []
        for i in range(n):
            position = rest[i] * strides[i] + taps[i] * dilations[i] - pads[i]
            conditions += [position >= 0, position < types[0].shape[2 + i]]
            at.append(position)
        point = (batch, channel, *at, *rest[n:])
        zero = tirx.const(0, dtype)
        chosen = tirx.Select(x(*point) == y(batch, channel, *rest), g(*point), zero)
        held = tirx.if_then_else(tirx.all(*conditions), chosen, zero)
        return te.sum(held.astype(accumulator(dtype)), axis=taps)

    return narrowed(te.compute(y.shape, value, name="selected"), dtype)


def _sum_pool_grad(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a = node.attributes
    assert isinstance(a, SumPoolGradAttributes)
    (dy,) = tensors
    n = len(a.kernel)
    shape = (*dy.shape[:2], *a.extents, *dy.shape[2 + n :])
    return _gather(shape, types[0].shape[2:], a.pool, types[0].dtype, lambda _, w: dy(*w))


ROWS: Final[dict[str, Operator]] = {
    "max_pool_grad": Operator(_max_pool_grad, follow_images, (cudnn.MAX_POOL_GRAD,)),
    "max_pool_select": Operator(_max_pool_select, follow_images),
    "sum_pool_grad": Operator(_sum_pool_grad, follow_images, (cudnn.SUM_POOL_GRAD,)),
}
