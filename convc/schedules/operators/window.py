"""Pools, and local response normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from tvm import te, tirx, topi

from convc.ir.graph import Node
from convc.ir.ops.conv import accumulator
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes, MaxPoolIndicesAttributes
from convc.ir.types import Shape, TensorType
from convc.schedules import scalar
from convc.schedules.extreme import greatest, lowest
from convc.schedules.operators import cudnn
from convc.schedules.operators.operator import Operator, Tensors, Types, follow_images

__all__ = ["ROWS", "mean_of", "window"]


def window(
    x: te.Tensor,
    a: MaxPoolAttributes | MaxPoolIndicesAttributes | AveragePoolAttributes,
    result: TensorType,
    outside: Any,
    reduce: Any,
    element_of: Callable[..., Any] | None = None,
) -> te.Tensor:
    """Return the reduction over every window; points outside the data read as `outside`.

    `element_of(place in the data, place in the result)` is reduced instead of the data's element, if it is given.
    """
    n = len(a.kernel)
    strides, pads = a.strides or (1,) * n, a.pads or (0,) * (2 * n)
    dilations = a.dilations or (1,) * n
    taps = [te.reduce_axis((0, k), f"r{i}") for i, k in enumerate(a.kernel)]
    extents = [int(d) for d in x.shape[2 : 2 + n]]

    def value(batch, channel, *rest):
        at, tail = rest[:n], rest[n:]
        index, conditions = [], []
        for i in range(n):
            position = at[i] * strides[i] + taps[i] * dilations[i] - pads[i]
            index.append(position)
            reach = (result.shape[2 + i] - 1) * strides[i] + (a.kernel[i] - 1) * dilations[i]
            if pads[i]:
                conditions.append(position >= 0)
            if reach - pads[i] >= extents[i]:
                conditions.append(position < extents[i])
        place = (batch, channel, *index, *tail)
        element = x(*place) if element_of is None else element_of(place, (batch, channel, *rest))
        if conditions:
            element = tirx.if_then_else(tirx.all(*conditions), element, outside)
        return reduce(element, axis=taps)

    shape = (*x.shape[:2], *result.shape[2:], *x.shape[2 + n :])
    return te.compute(shape, value, name="window")


def _max_pool(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    attributes = node.attributes
    assert isinstance(attributes, MaxPoolAttributes)
    return window(tensors[0], attributes, node.type, lowest(types[0].dtype), greatest)


def _max_pool_indices(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    """Return the least place, counted in row order, whose element is the window's greatest; the last of all, where there is none."""
    a = node.attributes
    assert isinstance(a, MaxPoolIndicesAttributes)
    (x,), shape = tensors, types[0].shape
    extents = shape[2:]
    top = window(x, a, node.type, lowest(types[0].dtype), greatest)
    beyond = tirx.const(math.prod(shape) - 1, "int64")

    def flat(place: Sequence[Any], sizes: Sequence[int]) -> Any:
        total: Any = tirx.const(0, "int64")
        for i, n in zip(place, sizes, strict=True):
            total = total * n + i
        return total

    def held(place: Sequence[Any], at: Sequence[Any]) -> Any:
        return tirx.Select(x(*place) == top(*at), flat(place, shape), beyond)

    rows = window(x, a, node.type, beyond, te.min, held)
    if not a.column_major:
        return rows
    size = math.prod(extents)

    def by_columns(p: Any) -> Any:
        rest, digits = p % size, []
        for n in reversed(extents):
            digits.append(rest % n)
            rest = rest // n
        return p // size * size + flat(digits, extents[::-1])

    return scalar.map_elements(rows, by_columns)


def _average_pool(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a = node.attributes
    assert isinstance(a, AveragePoolAttributes)
    dtype, (x,) = types[0].dtype, tensors
    wide = accumulator(dtype)
    total = window(
        x, a, node.type, tirx.const(0, wide), te.sum, lambda place, _: x(*place).astype(wide)
    )
    return mean_of(total, a, types[0].shape[2:], node.type)


def mean_of(
    total: te.Tensor, a: AveragePoolAttributes, extents: Shape, result: TensorType
) -> te.Tensor:
    """Return the sums over every window divided by its points, of the data or of the padded data.

    Args:
        total: the sums, (N, C, *output) or in blocks of channels.
        a: of the pool.
        extents: of the data.
        result: type of the pool's result.
    """
    wide, dtype, n = str(total.dtype), result.dtype, len(a.kernel)
    strides, pads = a.strides or (1,) * n, a.pads or (0,) * (2 * n)
    dilations = a.dilations or (1,) * n
    taps = math.prod(a.kernel)

    def count(axis: int, p: Any) -> Any:
        """Return the points under the window on one axis: of the data, or of the padded data."""
        extent = extents[axis]
        low, high = (-pads[axis], extent + pads[n + axis]) if a.count_include_pad else (0, extent)
        begin = p * strides[axis] - pads[axis]
        d, k = dilations[axis], a.kernel[axis]
        first = tirx.max(0, (low - begin + d - 1) // d)
        last = tirx.min(k, (high - begin + d - 1) // d)
        return last - first

    inside = all(
        (s - 1) * strides[i] + (a.kernel[i] - 1) * dilations[i] - pads[i]
        < extents[i] + (pads[n + i] if a.count_include_pad else 0)
        and (a.count_include_pad or not pads[i])
        for i, s in enumerate(result.shape[2:])
    )
    if inside:
        return scalar.map_elements(
            total, lambda v: (v * tirx.const(1.0 / taps, wide)).astype(dtype)
        )

    def mean(batch, channel, *rest):
        points = count(0, rest[0])
        for axis in range(1, n):
            points = points * count(axis, rest[axis])
        return (total(batch, channel, *rest) / points.astype(wide)).astype(dtype)

    return te.compute(total.shape, mean, name="mean")


def _lrn(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    (x,), dtype = tensors, accumulator(types[0].dtype)
    channels, before = types[0].shape[1], (a.size - 1) // 2
    window = te.reduce_axis((0, a.size), "window")

    def squares(n, c, *at):
        channel = c + window - before
        inside = tirx.all(channel >= 0, channel < channels)
        v = tirx.if_then_else(inside, x(n, channel, *at).astype(dtype), tirx.const(0, dtype))
        return te.sum(v * v, axis=window)

    total = te.compute(x.shape, squares, name="squares")
    base = scalar.map_elements(
        total, lambda v: v * scalar.factor(a.alpha / a.size, dtype) + tirx.const(a.bias, dtype)
    )
    wide = topi.cast(x, dtype)
    if a.beta != 0.75:
        y = topi.multiply(wide, topi.power(base, tirx.const(-a.beta, dtype)))
    else:
        # The one beta that networks use: two square roots are vector instructions, a power is a call of libm an element.
        root = topi.sqrt(base)
        y = topi.divide(wide, topi.multiply(root, topi.sqrt(root)))
    return y if dtype == types[0].dtype else topi.cast(y, types[0].dtype)


ROWS: Final[dict[str, Operator]] = {
    "max_pool": Operator(_max_pool, follow_images, (cudnn.MAX_POOL,)),
    "max_pool_indices": Operator(_max_pool_indices),
    "average_pool": Operator(_average_pool, follow_images, (cudnn.AVERAGE_POOL,)),
    "lrn": Operator(_lrn),
}
