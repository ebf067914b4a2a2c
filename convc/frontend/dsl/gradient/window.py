"""Rules of pools and local response normalisation, and of the pools' gradients."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from convc.frontend.dsl.gradient.rule import Call, Gradients, Rule
from convc.frontend.dsl.tensor import Tensor, apply
from convc.ir.ops.pool import AveragePoolAttributes, pool_counts
from convc.ir.ops.pool_grad import SumPoolGradAttributes
from convc.ir.ops.shape import ReshapeAttributes
from convc.ir.types import Shape

__all__ = ["ROWS"]


def _max_pool(call: Call) -> Gradients:
    return [apply("max_pool_grad", [call.x, call.y, call.dy], call.attributes)]


def _max_pool_grad(call: Call) -> Gradients:
    # Linear in the gradient; where the maxima are does not move with x and y.
    x, y, _ = call.operands
    selected = apply("max_pool_select", [x, y, call.dy], call.attributes)
    return [None, None, selected if call.needed[2] else None]


def _max_pool_select(call: Call) -> Gradients:
    x, y, _ = call.operands
    spread = apply("max_pool_grad", [x, y, call.dy], call.attributes)
    return [None, None, spread if call.needed[2] else None]


def _counts(extents: Shape, a: AveragePoolAttributes) -> float | np.ndarray:
    """Return what each sum of an average pool is divided by: one number if it is the same everywhere."""
    counts = pool_counts(extents, a)
    first = float(counts.reshape(-1)[0])
    return first if np.all(counts == first) else counts


def _spread(dy: Tensor, extents: Shape, a: AveragePoolAttributes) -> Tensor:
    attributes = SumPoolGradAttributes(
        extents, a.kernel, a.strides, a.pads, a.dilations, a.ceil_mode
    )
    return apply("sum_pool_grad", [dy], attributes)


def _average_pool(call: Call) -> Gradients:
    extents, a = call.x.shape[2:], call.attributes
    counts = _counts(extents, a)
    scale = 1 / counts
    return [_spread(call.dy * scale, extents, a)]


def _sum_pool_grad(call: Call) -> Gradients:
    # The adjoint is the sum under each window: the mean times its count.
    a = call.attributes
    mean = apply("average_pool", [call.dy], a.pool)
    return [mean * _counts(a.extents, a.pool)]


def _lrn(call: Call) -> Gradients:
    """Return dx = dy s^-b - 2 alpha/size b x W_T(dy x s^-(b+1)) with s = bias + alpha/size W(x^2), W the window of channels."""
    a, x, dy = call.attributes, call.x, call.dy
    channels, rest = x.shape[1], math.prod(x.shape[2:])
    # Channels as the only axis of an image: the window is a pool's.
    image = ReshapeAttributes((x.shape[0], 1, channels, rest))
    before = (a.size - 1) // 2

    def window(value: Tensor, first: int, last: int) -> Tensor:
        pool = AveragePoolAttributes((a.size, 1), (), (first, 0, last, 0), count_include_pad=True)
        mean = apply("average_pool", [apply("reshape", [value], image)], pool)
        return apply("reshape", [mean], ReshapeAttributes(x.shape)) * float(a.size)

    after = a.size - 1 - before
    scale = a.bias + (a.alpha / a.size) * window(x * x, before, after)
    power = scale**-a.beta
    crossed = window(dy * x * power / scale, after, before)
    return [dy * power - (2 * a.alpha * a.beta / a.size) * x * crossed]


ROWS: Final[dict[str, Rule]] = {
    "max_pool": _max_pool,
    "max_pool_grad": _max_pool_grad,
    "max_pool_select": _max_pool_select,
    "average_pool": _average_pool,
    "sum_pool_grad": _sum_pool_grad,
    "lrn": _lrn,
}
