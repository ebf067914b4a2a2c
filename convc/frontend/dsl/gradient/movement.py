"""Rules of the ops that move elements: each moves its gradient back."""

from __future__ import annotations

from typing import Final

import numpy as np

from convc.frontend.dsl.gradient.rule import Call, Gradients, Rule
from convc.frontend.dsl.tensor import Tensor, apply
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.shape import (
    PadAttributes,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)
from convc.ir.types import Shape

__all__ = ["ROWS"]


def _reshape(call: Call) -> Gradients:
    return [apply("reshape", [call.dy], ReshapeAttributes(call.x.shape))]


def _transpose(call: Call) -> Gradients:
    inverse = tuple(map(int, np.argsort(call.attributes.perm)))
    return [apply("transpose", [call.dy], TransposeAttributes(inverse))]


def _cut(x: Tensor, begins: Shape, ends: Shape) -> Tensor:
    return apply("slice", [x], SliceAttributes(begins, ends, (1,) * len(begins)))


def _concat(call: Call) -> Gradients:
    axis, at, gradients = call.attributes.axis, 0, []
    for operand, needed in zip(call.operands, call.needed, strict=True):
        begins, ends = [0] * len(call.dy.shape), list(call.dy.shape)
        begins[axis], ends[axis] = at, at + operand.shape[axis]
        at = ends[axis]
        gradients.append(_cut(call.dy, tuple(begins), tuple(ends)) if needed else None)
    return gradients


def _flip(call: Call) -> Gradients:
    return [apply("flip", [call.dy], call.attributes)]


def _pad(call: Call) -> Gradients:
    begins = call.attributes.pads[: len(call.x.shape)]
    ends = tuple(b + n for b, n in zip(begins, call.x.shape, strict=True))
    return [_cut(call.dy, begins, ends)]


def _padded(x: Tensor, before: Shape, after: Shape) -> Tensor:
    return apply("pad", [x], PadAttributes((*before, *after))) if any((*before, *after)) else x


def _slice(call: Call) -> Gradients:
    a, gradient, shape = call.attributes, call.dy, call.x.shape
    if max(a.steps, default=1) > 1:
        # Zeros between the elements: every axis n becomes (n, 1), is padded to (n, step) and joined again.
        pairs = tuple(e for n in gradient.shape for e in (n, 1))
        gradient = apply("reshape", [gradient], ReshapeAttributes(pairs))
        gaps = tuple(e for s in a.steps for e in (0, s - 1))
        gradient = _padded(gradient, (0,) * len(gaps), gaps)
        joined = tuple(n * s for n, s in zip(call.dy.shape, a.steps, strict=True))
        gradient = apply("reshape", [gradient], ReshapeAttributes(joined))
        # The last gap may reach beyond the operand.
        kept = tuple(
            min(n, extent - b) for n, extent, b in zip(joined, shape, a.begins, strict=True)
        )
        if kept != joined:
            gradient = _cut(gradient, (0,) * len(kept), kept)
    after = tuple(
        n - b - e for n, b, e in zip(shape, a.begins, gradient.shape, strict=True)
    )  # fmt: skip
    return [_padded(gradient, a.begins, after)]


def _resize(call: Call) -> Gradients:
    factors = call.attributes.factors
    pairs = tuple(e for n, f in zip(call.x.shape, factors, strict=True) for e in (n, f))
    repeats = tuple(range(1, len(pairs), 2))
    split = apply("reshape", [call.dy], ReshapeAttributes(pairs))
    return [apply("reduce_sum", [split], ReduceAttributes(repeats, keepdims=False))]


ROWS: Final[dict[str, Rule]] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "flip": _flip,
    "concat": _concat,
    "pad": _pad,
    "slice": _slice,
    "resize": _resize,
}
