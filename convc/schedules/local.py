"""Unshared convolution and its gradients on CPUs: at each output point a product of that point's own filters, read once for all images.

THE ALGORITHM   patch[p, n, l] = the data under the window at p, l over input channels of a group and taps
                forward   y[n, k, p] = sum over l of patch[p, n, l] w[k, p, l], in vectors of l whose lanes are added up in a tree
                filters   dw[k, p, l] = sum over n of dy[n, k, p] patch[p, n, l]
                data      spread[p, n, l] = sum over k of dy[n, k, p] w[k, p, l];  dx[n, h] = sum of the spreads of the windows that hold h
WHEN            1-D, 2-D, 3-D, every float type, any stride, dilation, padding and group
COST            the filters' way from memory, once; a copy of each window
ACCURACY        forward: chains of l / lanes products and a tree; filters, data: one chain; always in this order
SOURCE          Chen et al., "Compressing Neural Networks with the Hashing Trick" (ICML 2015) calls them locally connected layers; the
                product for each point is theano.tensor.nnet.corr.CorrMM's with unshared=True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvm import te, tirx

from convc.ir.ops.conv_local import local_weight
from convc.ir.spec import ConvSpec
from convc.schedules.narrow import narrowed
from convc.target import Target

__all__ = ["data_gradient", "forward", "vector", "weight_gradient"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def vector(length: int, target: Target) -> int:
    """Return the lanes of a sum over `length` products that leave the fewest steps: vectors, then one product at a time.

    Example:
        >>> zen4 = Target("llvm", "x86_64-linux-gnu", "znver4", (), 16, 32)
        >>> [vector(n, zen4) for n in (576, 75, 27, 3)]
        [16, 8, 8, 2]
    """
    sizes = [v for v in (target.lanes, target.lanes // 2, 4, 2, 1) if v <= max(length, 1)]
    return min(sizes, key=lambda v: length // v + length % v)


def _patch(x: te.Tensor, spec: ConvSpec, wide: str) -> te.Tensor:
    """Return (*points, N, group, C/group, *kernel) of zero-padded data."""
    n, per_c = spec.rank, spec.weight[1]
    source = x
    if any(spec.pads):
        begins = spec.pads[:n]
        ends = [b + e for b, e in zip(begins, spec.data[2:], strict=True)]
        extents = [e + a for e, a in zip(ends, spec.pads[n:], strict=True)]

        def padded(batch: Expr, c: Expr, *at: Expr) -> Expr:
            edges = zip(at, begins, ends, strict=True)
            inside = tirx.all(*(test for i, b, e in edges for test in (i >= b, i < e)))
            index = [i - b for i, b in zip(at, begins, strict=True)]
            return tirx.if_then_else(inside, x(batch, c, *index), tirx.const(0, spec.dtype))

        source = te.compute((*spec.data[:2], *extents), padded, name="pad")

    def value(*i: Expr) -> Expr:
        points, (batch, g, c), taps = i[:n], i[n : n + 3], i[n + 3 :]
        at = [
            p * s + r * d
            for p, r, s, d in zip(points, taps, spec.strides, spec.dilations, strict=True)
        ]
        return source(batch, g * per_c + c, *at).astype(wide)

    shape = (*spec.output[2:], spec.data[0], spec.group, per_c, *spec.kernel)
    return te.compute(shape, value, name="patch")


def _unflattened(index: Expr, shape: Sequence[int]) -> list[Expr]:
    """Return the index into `shape` of an element counted in memory order; TVM puts them together again to a contiguous one."""
    places, size = [], math.prod(shape)
    for extent in shape:
        size //= extent
        places.append(index // size % extent if places else index // size)
    return places


def forward(x: te.Tensor, w: te.Tensor, spec: ConvSpec, wide: str, target: Target) -> te.Tensor:
    """Return y; blocks `patch`, `part` (a vector of sums), `rest` (what no vector holds), `half...` (the tree) and `local`."""
    per_k, (N, K, *points) = spec.weight[0] // spec.group, spec.output
    inner, rank = spec.weight[1:], spec.rank
    length = math.prod(inner)
    lanes = vector(length, target)
    patch = _patch(x, spec, wide)

    def product(p: Sequence[Expr], n: Expr, k: Expr, place: Expr) -> Expr:
        at = _unflattened(place, inner)
        return patch(*p, n, k // per_k, *at) * w(k, *p, *at).astype(wide)

    step = te.reduce_axis((0, length // lanes), "l")

    def vectors(*i: Expr) -> Expr:
        n, k, lane = i[rank:]
        return te.sum(product(i[:rank], n, k, step * lanes + lane), axis=step)

    sums = te.compute((*points, N, K, lanes), vectors, name="part")
    while lanes > 1:
        lanes //= 2
        sums = _halved(sums, lanes)
    rest = None
    if length % vector(length, target):
        begin = length - length % vector(length, target)
        left = te.reduce_axis((0, length - begin), "rest")

        def remaining(*i: Expr) -> Expr:
            n, k = i[rank:]
            return te.sum(product(i[:rank], n, k, begin + left), axis=left)

        rest = te.compute((*points, N, K), remaining, name="rest")

    def value(n: Expr, k: Expr, *p: Expr) -> Expr:
        total = sums(*p, n, k, 0)
        return (total if rest is None else total + rest(*p, n, k)).astype(spec.dtype)

    return te.compute(spec.output, value, name="local")


def _halved(sums: te.Tensor, lanes: int) -> te.Tensor:
    return te.compute(
        (*sums.shape[:-1], lanes),
        lambda *i: sums(*i) + sums(*i[:-1], i[-1] + lanes),
        name=f"half{lanes}",
    )


def weight_gradient(
    x: te.Tensor, dy: te.Tensor, spec: ConvSpec, wide: str, target: Target
) -> te.Tensor:
    """Return dw; blocks `patch`, `sum` and, where sums are of another type, `local`."""
    per_k, rank = spec.weight[0] // spec.group, spec.rank
    patch, n = _patch(x, spec, wide), te.reduce_axis((0, spec.data[0]), "n")

    def value(k: Expr, *rest: Expr) -> Expr:
        p, inner = rest[:rank], rest[rank:]
        return te.sum(patch(*p, n, k // per_k, *inner) * dy(n, k, *p).astype(wide), axis=n)

    return narrowed(te.compute(local_weight(spec), value, name="sum"), spec.dtype, "local")


def data_gradient(
    dy: te.Tensor, w: te.Tensor, spec: ConvSpec, wide: str, target: Target
) -> te.Tensor:
    """Return dx; blocks `spread`, `sum` and, where sums are of another type, `local`."""
    per_c, per_k, rank = spec.weight[1], spec.weight[0] // spec.group, spec.rank
    kk = te.reduce_axis((0, per_k), "k")

    def product(*i: Expr) -> Expr:
        p, (n, g), inner = i[:rank], i[rank : rank + 2], i[rank + 2 :]
        k = g * per_k + kk
        return te.sum(dy(n, k, *p).astype(wide) * w(k, *p, *inner).astype(wide), axis=kk)

    shape = (*spec.output[2:], spec.data[0], spec.group, *spec.weight[1:])
    spread = te.compute(shape, product, name="spread")
    taps = [te.reduce_axis((0, r), f"r{i}") for i, r in enumerate(spec.kernel)]

    def value(n: Expr, c: Expr, *at: Expr) -> Expr:
        points, conditions = [], []
        for axis, (h, r) in enumerate(zip(at, taps, strict=True)):
            scaled, stride = h + spec.pads[axis] - r * spec.dilations[axis], spec.strides[axis]
            conditions += [scaled >= 0, scaled < spec.output[2 + axis] * stride]
            if stride > 1:
                conditions.append(scaled % stride == 0)
            points.append(scaled // stride)
        element = spread(*points, n, c // per_c, c % per_c, *taps)
        inside = tirx.if_then_else(tirx.all(*conditions), element, tirx.const(0, wide))
        return te.sum(inside, axis=taps)

    return narrowed(te.compute(spec.data, value, name="sum"), spec.dtype, "local")
