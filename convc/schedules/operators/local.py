"""Unshared convolution and its gradients: as `schedules.local` where the backend has its schedules, else as the definitions read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from tvm import te, tirx

from convc.ir.graph import Node
from convc.ir.ops.conv import accumulator
from convc.ir.ops.conv_local import (
    LocalAttributes,
    LocalDataGradAttributes,
    LocalWeightGradAttributes,
    local_weight,
    spec_of_local,
)
from convc.ir.spec import ConvSpec
from convc.schedules import local
from convc.schedules.narrow import narrowed
from convc.schedules.operators.operator import OpAlgorithm, Operator, Tensors, Types
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["ROWS"]

# Products from which on threads pay: below, one is done in a few times the 3 us that a launch costs.
_PARALLEL_PRODUCTS: Final = 1 << 17

# A quarter of the smallest L2 there is, 1 MiB.
_ROW_BYTES: Final = 1 << 17

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def _geometry(node: Node, types: Types) -> tuple[ConvSpec, str]:
    """Return the forward convolution and the element type of the sums."""
    a = node.attributes
    assert isinstance(a, LocalAttributes | LocalDataGradAttributes | LocalWeightGradAttributes)
    spec = spec_of_local(types, a)
    return spec, accumulator(spec.dtype, a.accumulate)


def _taps(spec: ConvSpec) -> list[Expr]:
    return [te.reduce_axis((0, r), f"r{i}") for i, r in enumerate(spec.kernel)]


def _if(conditions: Sequence[Expr], value: Expr, dtype: str) -> Expr:
    return (
        tirx.if_then_else(tirx.all(*conditions), value, tirx.const(0, dtype))
        if conditions
        else value
    )


def _read(
    x: te.Tensor, spec: ConvSpec, n: Expr, c: Expr, at: Sequence[Expr], taps: Sequence[Expr]
) -> Expr:
    """Return the data under one tap of the window at `at`; zero outside."""
    index, conditions = [], []
    for axis, (p, r) in enumerate(zip(at, taps, strict=True)):
        place = p * spec.strides[axis] + r * spec.dilations[axis] - spec.pads[axis]
        index.append(place)
        if any((spec.pads[axis], spec.pads[spec.rank + axis])):
            conditions += [place >= 0, place < spec.data[2 + axis]]
    return _if(conditions, x(n, c, *index), spec.dtype)


def _forward(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    x, w = tensors
    spec, wide = _geometry(node, types)
    per_c, per_k = spec.weight[1], spec.weight[0] // spec.group
    c, taps = te.reduce_axis((0, per_c), "c"), _taps(spec)

    def value(n: Expr, k: Expr, *at: Expr) -> Expr:
        element = _read(x, spec, n, k // per_k * per_c + c, at, taps).astype(wide)
        return te.sum(element * w(k, *at, c, *taps).astype(wide), axis=[c, *taps])

    return narrowed(te.compute(spec.output, value, "local"), spec.dtype)


def _data_grad(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    dy, w = tensors
    spec, wide = _geometry(node, types)
    per_c, per_k = spec.weight[1], spec.weight[0] // spec.group
    kk, taps = te.reduce_axis((0, per_k), "k"), _taps(spec)

    def value(n: Expr, c: Expr, *at: Expr) -> Expr:
        k = c // per_c * per_k + kk
        points, conditions = [], []
        for axis, (h, r) in enumerate(zip(at, taps, strict=True)):
            scaled, stride = h + spec.pads[axis] - r * spec.dilations[axis], spec.strides[axis]
            conditions += [scaled >= 0, scaled < spec.output[2 + axis] * stride]
            if stride > 1:
                conditions.append(scaled % stride == 0)
            points.append(scaled // stride)
        product = dy(n, k, *points).astype(wide) * w(k, *points, c % per_c, *taps).astype(wide)
        return te.sum(_if(conditions, product, wide), axis=[kk, *taps])

    return narrowed(te.compute(spec.data, value, "local_data"), spec.dtype)


def _weight_grad(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    x, dy = tensors
    spec, wide = _geometry(node, types)
    rank = spec.rank
    per_c, per_k = spec.weight[1], spec.weight[0] // spec.group
    n = te.reduce_axis((0, spec.data[0]), "n")

    def value(k: Expr, *rest: Expr) -> Expr:
        at, c, taps = rest[:rank], rest[rank], rest[rank + 1 :]
        element = _read(x, spec, n, k // per_k * per_c + c, at, taps).astype(wide)
        return te.sum(element * dy(n, k, *at).astype(wide), axis=[n])

    return narrowed(te.compute(local_weight(spec), value, "local_weight"), spec.dtype)


def _by_rows(spec: ConvSpec, target: Target) -> bool:
    """Whether the windows of a row of points fit L2 beside what streams through it, with rows enough for the threads."""
    *rows, Q = spec.output[2:]
    window = spec.data[0] * spec.in_channels * math.prod(spec.kernel)
    return 4 * window * Q <= _ROW_BYTES and math.prod(rows) >= 2 * target.cores and bool(rows)


def _by_points(
    name: str, compute: Callable[[te.Tensor, te.Tensor, ConvSpec, str, Target], te.Tensor]
) -> tuple[OpAlgorithm]:
    def computed(
        tensors: Tensors, node: Node, types: Types, block: int, target: Target
    ) -> te.Tensor:
        first, second = tensors
        return compute(first, second, *_geometry(node, types), target)

    def knobs(node: Node, types: Types, target: Target) -> Knobs:
        spec, _ = _geometry(node, types)
        length = math.prod(spec.weight[1:])
        return {
            "lanes": local.vector(length, target) if name == "forward" else target.lanes,
            "filters": spec.weight[0] // spec.group,
            "rows": int(_by_rows(spec, target)),
            "parallel": int(spec.flops // 2 >= _PARALLEL_PRODUCTS),
        }

    return (OpAlgorithm("local", f"local_{name}", computed, knobs),)


ROWS: Final = {
    "conv_local": Operator(_forward, algorithms=_by_points("forward", local.forward)),
    "conv_local_data_grad": Operator(
        _data_grad, algorithms=_by_points("data_gradient", local.data_gradient)
    ),
    "conv_local_weight_grad": Operator(
        _weight_grad, algorithms=_by_points("weight_gradient", local.weight_gradient)
    ),
}
