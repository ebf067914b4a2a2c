"""Tensor expressions of every op that is not a convolution or a dense layer: one row each; TOPI computes.

Each row also says which memory orders it can work in. Blocked tensors come as (N, C/b, H, W, b), plain ones in their own
shape, so that H and W are axes 2 and 3 either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tvm import te, tirx, topi

from convc.ir.graph import Node
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes
from convc.ir.types import TensorType
from convc.schedules import scalar

__all__ = ["OPERATORS", "Operator"]

Types = Sequence[TensorType]
Tensors = Sequence[te.Tensor]


@dataclass(frozen=True, slots=True)
class Operator:
    """How one op is computed.

    Attributes:
        compute: (operand tensors, node, operand types, block) -> result; block 0 means plain tensors.
        follows: (node, operand types without literals, block) -> whether it works on operands in that block, leaves its result
            so, and makes zeros of the zeros beyond the last channel (elementwise ops need not).
    """

    compute: Callable[[Tensors, Node, Types, int], te.Tensor]
    follows: Callable[[Node, Types, int], bool] = lambda node, types, block: False


def _is_image(types: Types) -> bool:
    return bool(types) and types[0].rank == 4


def _follow_images(node: Node, types: Types, block: int) -> bool:
    return _is_image(types)


# ---- elementwise ----------------------------------------------------------------------------------------------------


def _unary(name: str) -> Operator:
    def compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
        fields = type(node.attributes).__dataclass_fields__
        arguments = [getattr(node.attributes, field) for field in fields]
        return scalar.UNARY[name](tensors[0], *arguments)

    return Operator(compute, _follow_images)


def _broadcasts_in_blocks(node: Node, types: Types, block: int) -> bool:
    """Whether all operands are images with all channels: then blocks broadcast like channels."""
    return all(t.rank == 4 and t.shape[1] == node.type.shape[1] for t in types)


def _binary(name: str) -> Operator:
    def compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
        return scalar.BINARY[name](*tensors)

    return Operator(compute, _broadcasts_in_blocks)


# ---- windows --------------------------------------------------------------------------------------------------------


def _window(
    x: te.Tensor,
    a: MaxPoolAttributes | AveragePoolAttributes,
    result: TensorType,
    outside: Any,
    reduce: Any,
) -> te.Tensor:
    """Return the reduction over every window; points outside the data read as `outside`."""
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
        element = x(batch, channel, *index, *tail)
        if conditions:
            element = tirx.if_then_else(tirx.all(*conditions), element, outside)
        return reduce(element, axis=taps)

    shape = (*x.shape[:2], *result.shape[2:], *x.shape[2 + n :])
    return te.compute(shape, value, name="window")


def _max_pool(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    attributes = node.attributes
    assert isinstance(attributes, MaxPoolAttributes)
    return _window(tensors[0], attributes, node.type, te.min_value(types[0].dtype), te.max)


def _average_pool(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a = node.attributes
    assert isinstance(a, AveragePoolAttributes)
    dtype = types[0].dtype
    n = len(a.kernel)
    strides, pads = a.strides or (1,) * n, a.pads or (0,) * (2 * n)
    dilations = a.dilations or (1,) * n
    total = _window(tensors[0], a, node.type, tirx.const(0, dtype), te.sum)
    taps = math.prod(a.kernel)

    def count(axis: int, p: Any) -> Any:
        """Return the points under the window on one axis: of the data, or of the padded data."""
        extent = types[0].shape[2 + axis]
        low, high = (-pads[axis], extent + pads[n + axis]) if a.count_include_pad else (0, extent)
        begin = p * strides[axis] - pads[axis]
        d, k = dilations[axis], a.kernel[axis]
        first = tirx.max(0, (low - begin + d - 1) // d)
        last = tirx.min(k, (high - begin + d - 1) // d)
        return last - first

    inside = all(
        (s - 1) * strides[i] + (a.kernel[i] - 1) * dilations[i] - pads[i]
        < types[0].shape[2 + i] + (pads[n + i] if a.count_include_pad else 0)
        and (a.count_include_pad or not pads[i])
        for i, s in enumerate(node.type.shape[2:])
    )
    if inside:
        return scalar.map_elements(total, lambda v: v * tirx.const(1.0 / taps, dtype))

    def mean(batch, channel, *rest):
        points = count(0, rest[0])
        for axis in range(1, n):
            points = points * count(axis, rest[axis])
        return total(batch, channel, *rest) / points.astype(dtype)

    return te.compute(total.shape, mean, name="mean")


def _lrn(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    (x,), dtype = tensors, types[0].dtype
    channels, before = types[0].shape[1], (a.size - 1) // 2
    window = te.reduce_axis((0, a.size), "window")

    def squares(n, c, *at):
        channel = c + window - before
        inside = tirx.all(channel >= 0, channel < channels)
        v = tirx.if_then_else(inside, x(n, channel, *at), tirx.const(0, dtype))
        return te.sum(v * v, axis=window)

    total = te.compute(x.shape, squares, name="squares")
    base = scalar.map_elements(
        total, lambda v: v * tirx.const(a.alpha / a.size, dtype) + tirx.const(a.bias, dtype)
    )
    if a.beta != 0.75:
        return topi.multiply(x, topi.power(base, tirx.const(-a.beta, dtype)))
    # The one beta that networks use: two square roots are vector instructions, a power is a call of libm an element.
    root = topi.sqrt(base)
    return topi.divide(x, topi.multiply(root, topi.sqrt(root)))


# ---- linear ---------------------------------------------------------------------------------------------------------


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
    return _is_image(types) and set(a.axes) <= {2, 3} and a.keepdims


def _reduce(function: Callable[..., te.Tensor], mean: bool = False) -> Operator:
    def compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
        a: Any = node.attributes
        if not a.axes:
            return scalar.map_elements(tensors[0], lambda v: v)
        y = function(tensors[0], axis=list(a.axes), keepdims=a.keepdims)
        if not mean:
            return y
        count = math.prod(types[0].shape[i] for i in a.axes)
        return scalar.map_elements(y, lambda v: v * tirx.const(1.0 / count, types[0].dtype))

    return Operator(compute, _spatial_reduction)


def _softmax(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    return topi.nn.softmax(tensors[0], axis=axis)


def _log_softmax(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    axis %= types[0].rank
    top = topi.max(tensors[0], axis=axis, keepdims=True)
    shifted = topi.subtract(tensors[0], top)
    total = topi.sum(topi.exp(shifted), axis=axis, keepdims=True)
    return topi.subtract(shifted, topi.log(total))


# ---- shape ----------------------------------------------------------------------------------------------------------


def _concat(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    return topi.concatenate(tuple(tensors), axis=axis)


def _whole_blocks(node: Node, types: Types, block: int) -> bool:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    if not _is_image(types):
        return False
    return axis in (2, 3) or (axis == 1 and all(t.shape[1] % block == 0 for t in types))


def _pad(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    n, tail = types[0].rank, [0] * bool(block)
    return topi.nn.pad(tensors[0], [*a.pads[:n], *tail], [*a.pads[n:], *tail], pad_value=a.value)


def _pads_in_plane(node: Node, types: Types, block: int) -> bool:
    a: Any = node.attributes
    whole = a.value == 0 or (_is_image(types) and types[0].shape[1] % block == 0)
    return _is_image(types) and whole and not any((*a.pads[:2], *a.pads[4:6]))


def _slice(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    begins, steps = list(a.begins), list(a.steps)
    shape = list(node.type.shape)
    if block:
        begins[1] //= block
        shape[1] = -(-shape[1] // block)
        begins, steps, shape = [*begins, 0], [*steps, 1], [*shape, block]
    return te.compute(
        shape,
        lambda *i: tensors[0](*(b + s * p for b, s, p in zip(begins, steps, i, strict=True))),
        name="slice",
    )


def _slices_whole_blocks(node: Node, types: Types, block: int) -> bool:
    a: Any = node.attributes
    if not _is_image(types) or a.begins[1] % block or a.steps[1] != 1:
        return False
    return a.ends[1] % block == 0 or a.ends[1] == types[0].shape[1]


def _resize(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    factors = [*node.attributes.factors, *[1] * bool(block)]  # type: ignore[attr-defined]
    x = tensors[0]
    shape = [int(d) * f for d, f in zip(x.shape, factors, strict=True)]
    return te.compute(
        shape, lambda *i: x(*(p // f for p, f in zip(i, factors, strict=True))), name="resize"
    )


def _resizes_in_plane(node: Node, types: Types, block: int) -> bool:
    factors: tuple[int, ...] = node.attributes.factors  # type: ignore[attr-defined]
    return _is_image(types) and factors[:2] == (1, 1)


def _transpose(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    return topi.transpose(tensors[0], list(node.attributes.perm))  # type: ignore[attr-defined]


OPERATORS: Final[dict[str, Operator]] = {
    **{name: _unary(name) for name in scalar.UNARY},
    **{name: _binary(name) for name in scalar.BINARY},
    "max_pool": Operator(_max_pool, _follow_images),
    "average_pool": Operator(_average_pool, _follow_images),
    "lrn": Operator(_lrn),
    "dense": Operator(_dense),
    "matmul": Operator(_matmul),
    "softmax": Operator(_softmax),
    "log_softmax": Operator(_log_softmax),
    "reduce_mean": _reduce(topi.sum, mean=True),
    "reduce_sum": _reduce(topi.sum),
    "reduce_max": _reduce(topi.max),
    "reduce_min": _reduce(topi.min),
    "transpose": Operator(_transpose),
    "concat": Operator(_concat, _whole_blocks),
    "pad": Operator(_pad, _pads_in_plane),
    "slice": Operator(_slice, _slices_whole_blocks),
    "resize": Operator(_resize, _resizes_in_plane),
}
