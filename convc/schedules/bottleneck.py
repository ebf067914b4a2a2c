"""Bottleneck: expand 1x1 -> depthwise -> project 1x1 as one kernel, so that what lies between them never leaves the L2 cache.

THE ALGORITHM   e = epilogue1(w1 x)        the expansion (left out in a separable convolution)
                d = epilogue2(w2 * e)      depthwise, e padded with zeros
                y = epilogue3(w3 d)        the projection (left out where something stands between, a squeeze-excitation)
                in strips of result rows; of a strip, e exists for one group of channels at a time, d for all of them
                on x as NCHW[a]c, y as NCHW[b]c, w1 as [C/(v b)][C_in][v b], w2 as [C/b][R][S][b], w3 as [K/(v b)][C][v b]
WHEN            2-D images, constant weights, float32; nobody else reads e or d, whose epilogues add no residual
COST            the layers' FMAs, and rows of e at the edges of a strip once more for the next; x, y and weights are what is moved
ACCURACY        the layers' own, see `direct` and `depthwise`
SOURCE          Sandler et al., arXiv:1801.04381 (inverted bottleneck, its section 5 on memory); Alwani et al., MICRO'16 (fused layers)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import te, tirx

from convc.schedules.algorithm import (
    SEPARATOR,
    Operands,
    Problem,
    gathered_halo,
)
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs

__all__ = ["Bottleneck", "compute", "expanded_rows", "operands", "pack"]


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The convolutions that one kernel computes, first to last.

    Attributes:
        expand: 1x1, or None.
        depthwise: of the channels in between.
        project: 1x1, or None; not both are.
    """

    expand: Problem | None
    depthwise: Problem
    project: Problem | None

    @property
    def layers(self) -> tuple[Problem, ...]:
        """The problems in order."""
        return tuple(p for p in (self.expand, self.depthwise, self.project) if p is not None)

    @property
    def key(self) -> str:
        """Canonical name: the layers', joined; of the types that operands have in memory."""
        return SEPARATOR.join(replace(p, spec=p.stored_spec).key for p in self.layers)

    @property
    def flops(self) -> int:
        """Of all layers."""
        return sum(layer.spec.flops for layer in self.layers)


def expanded_rows(chain: Bottleneck, rows: int) -> int:
    """Return the rows of e that so many rows of results read."""
    spec = chain.depthwise.spec
    return (rows - 1) * spec.strides[0] + (spec.kernel[0] - 1) * spec.dilations[0] + 1


def operands(chain: Bottleneck, knobs: Knobs) -> Operands:
    """Return the layouts of x and y; a residual is like y."""
    result = Layout(knobs["out_block"] if chain.project is not None else knobs["block"])
    if chain.expand is not None:
        return Operands(Layout(knobs["data_block"]), Halo(), result)
    border = gathered_halo(chain.depthwise.spec)
    return Operands(Layout(knobs["block"], border), border, result)


def pack(weights: Sequence[np.ndarray], chain: Bottleneck, knobs: Knobs) -> list[np.ndarray]:
    """Return each layer's weights as the kernel reads them, padded with zeros."""
    packed = []
    for layer, weight in zip(chain.layers, weights, strict=True):
        if layer is chain.depthwise:
            b = knobs["block"]
            whole = np.zeros((-(-weight.shape[0] // b) * b, *weight.shape[2:]), weight.dtype)
            whole[: weight.shape[0]] = weight[:, 0]
            w = np.moveaxis(whole.reshape(-1, b, *whole.shape[1:]), 1, -1)
        else:
            wide = _wide(layer, chain, knobs)
            k, c = weight.shape[:2]
            whole = np.zeros((-(-k // wide) * wide, c), weight.dtype)
            whole[:k] = weight[:, :, 0, 0]
            w = np.moveaxis(whole.reshape(-1, wide, c), 1, -1)
        packed.append(np.ascontiguousarray(w))
    return packed


def _named(extras: list[te.Tensor], layer: int) -> list[te.Tensor]:
    """Return placeholders like these whose names tell the layer."""
    return [te.placeholder(e.shape, e.dtype, name=f"{e.op.name}{layer}") for e in extras]


def _wide(layer: Problem, chain: Bottleneck, knobs: Knobs) -> int:
    """Return the output channels of a register tile of the expansion or the projection."""
    if layer is chain.expand:
        return knobs["group"] * knobs["block"]
    return knobs["out_vectors"] * knobs["out_block"]


def compute(chain: Bottleneck, knobs: Knobs) -> list[te.Tensor]:
    """Return data, then of each layer weight and extras, result; blocks `acc1 E acc2 D acc3`, those of absent layers left out."""
    spec, b = chain.depthwise.spec, knobs["block"]
    (N, C, H, W), (P, Q) = spec.data, spec.output[-2:]
    vectors, rows = -(-C // b), expanded_rows(chain, P)
    top, left = spec.pads[:2]
    arguments: list[te.Tensor] = []
    if chain.expand is not None:
        a = knobs["data_block"]
        c_in = chain.expand.spec.in_channels
        x = te.placeholder((N, -(-c_in // a), H, W, a), spec.dtype, name="data")
        group = knobs["group"]
        w = te.placeholder((vectors // group, c_in, group * b), spec.dtype, name="weight1")
        extras = _named(blocked_extras(chain.expand, vectors, b, ()), 1)
        arguments += [x, w, *extras]
        i = te.reduce_axis((0, c_in), "c1")

        # Rows beyond the data are some row's sums, and zeros then: no test in the sums.
        def expanded(n: Any, k: Any, h: Any, q: Any, lane: Any) -> Any:
            row = tirx.min(tirx.max(h - top, 0), H - 1)
            return te.sum(x(n, i // a, row, q, i % a) * w(k, i, lane), axis=i)

        acc = te.compute((N, vectors // group, rows, W, group * b), expanded, name="acc1")
        e = te.compute(
            (N, vectors, rows, W, b),
            lambda n, k, h, q, lane: acc(n, k // group, h, q, k % group * b + lane),
            name="unpack1",
        )
        e = blocked_result(e, chain.expand, extras)
        zero = tirx.const(0, spec.dtype)
        E = te.compute(
            e.shape,
            lambda n, k, h, *at: tirx.if_then_else(
                tirx.all(h >= top, h < top + H), e(n, k, h, *at), zero
            ),
            name="E",
        )
    else:
        extents = gathered_halo(spec).around(spec.data[2:])
        E = te.placeholder((N, vectors, *extents, b), spec.dtype, name="data")
        arguments.append(E)
    filters = te.placeholder((vectors, *spec.kernel, b), spec.dtype, name="weight2")
    result = (N, vectors, P, Q, b)
    extras = _named(blocked_extras(chain.depthwise, vectors, b, result), 2)
    arguments += [filters, *extras]
    r, s = (te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(spec.kernel))

    def filtered(n: Any, k: Any, p: Any, q: Any, lane: Any) -> Any:
        row = p * spec.strides[0] + r * spec.dilations[0]
        col = q * spec.strides[1] + s * spec.dilations[1]
        if chain.expand is None:
            value = E(n, k, row, col, lane)
        else:
            value = tirx.if_then_else(
                tirx.all(col >= left, col < left + W),
                E(n, k, row, col - left, lane),
                tirx.const(0, spec.dtype),
            )
        return te.sum(value * filters(k, r, s, lane), axis=[r, s])

    acc = te.compute(result, filtered, name="acc2")
    d = te.compute(result, lambda *i: acc(*i), name="unpack2")
    d = blocked_result(d, chain.depthwise, extras)
    if chain.project is None:
        return [*arguments, d]
    D = te.compute(result, lambda *i: d(*i), name="D")
    K, kb, v = chain.project.spec.out_channels, knobs["out_block"], knobs["out_vectors"]
    blocks = -(-K // kb)
    w = te.placeholder((-(-blocks // v), C, v * kb), spec.dtype, name="weight3")
    extras = _named(blocked_extras(chain.project, blocks, kb, (N, blocks, P, Q, kb)), 3)
    j = te.reduce_axis((0, C), "c3")
    acc = te.compute(
        (N, -(-blocks // v), P, Q, v * kb),
        lambda n, k, p, q, lane: te.sum(D(n, j // b, p, q, j % b) * w(k, j, lane), axis=j),
        name="acc3",
    )
    y = te.compute(
        (N, blocks, P, Q, kb),
        lambda n, k, p, q, lane: acc(n, k // v, p, q, k % v * kb + lane),
        name="unpack3",
    )
    return [*arguments, w, *extras, blocked_result(y, chain.project, extras)]
