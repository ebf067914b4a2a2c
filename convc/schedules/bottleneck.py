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

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from tvm import te, tirx

from convc.schedules.algorithm import (
    Operands,
    Problem,
    channel_block,
    gathered_halo,
    shared_out,
    turns,
)
from convc.schedules.direct import blocked_extras, blocked_result
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.register_tile import Tile, best_tile, good_tiles, tile_cycles
from convc.schedules.requirements import float32_throughout
from convc.target import Target

__all__ = [
    "Bottleneck",
    "compute",
    "cycles",
    "cycles_apart",
    "knobs",
    "operands",
    "pack",
    "supports",
    "workspace",
]

# e of a group, d and the strip's part of x and y may take so much of L2; what is streamed needs the rest.
_L2_SHARE: Final = 0.7

# Cycles of one vector's way through an epilogue and its store.
_STORE: Final = 2.0

# A depthwise row's products of one row of taps are unrolled as a whole: more are too much code.
_MOST_PRODUCTS: Final = 800


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
        """Canonical name: the layers', joined."""
        return " > ".join(layer.key for layer in self.layers)

    @property
    def flops(self) -> int:
        """Of all layers."""
        return sum(layer.spec.flops for layer in self.layers)


def supports(chain: Bottleneck, target: Target) -> Unsupported | None:
    """Return why the layers cannot be one kernel, or None; that one reads the other is known."""
    middle = chain.depthwise.spec
    for layer in chain.layers:
        refusal = float32_throughout(layer)
        if refusal is not None:
            return refusal
        if not layer.constant_weight or layer.spec.rank != 2 or layer.spec.transposed:
            return Unsupported("layers must be 2-D convolutions of constant weights")
    for layer in (chain.expand, chain.project):
        if layer is None:
            continue
        spec = layer.spec
        strides, pads = max(spec.strides), max(spec.pads)
        if not spec.is_pointwise or spec.group != 1 or strides > 1 or pads:
            return Unsupported(
                f"expansion and projection must be 1x1 with stride 1 in one group; got {spec.key}"
            )
    if not middle.group == middle.in_channels == middle.out_channels:
        return Unsupported(f"the middle layer must be depthwise; got {middle.key}")
    if any(s.name == "add" for layer in chain.layers[:-1] for s in layer.epilogue):
        return Unsupported("only the last layer may add a residual")
    weights = sum(4 * math.prod(layer.spec.weight) for layer in chain.layers)
    if weights > target.l2_bytes / 4:
        # Each strip reads them all, and nothing fetches them ahead.
        return Unsupported(f"weights must take at most a quarter of L2; got {weights} bytes")
    products = middle.kernel[-1] * middle.output[-1]
    if products > _MOST_PRODUCTS:
        return Unsupported(f"a row must have at most {_MOST_PRODUCTS} products; got {products}")
    if next(_options(chain, target), None) is None:
        return Unsupported("no strip of rows fits the L2 cache")
    return None


def knobs(chain: Bottleneck, target: Target) -> Knobs:
    """Return the strip and the register tiles that the model finds fastest."""
    return min(_options(chain, target), key=lambda k: (cycles(chain, target, k), -k["rows"]))


def _options(chain: Bottleneck, target: Target) -> Iterator[Knobs]:
    """Yield the settings whose strips share out evenly and fit L2."""
    spec = chain.depthwise.spec
    block = channel_block(spec.out_channels, target)
    vectors, W, (P, Q) = -(-spec.out_channels // block), spec.data[-1], spec.output[-2:]
    first: dict[str, int] = {"group": 1}
    if chain.expand is not None:
        wide = [v for v in (2, 3, 4) if vectors % v == 0] or [1]
        tiles = good_tiles(target, 1, W, vectors, block=block, vectors=wide)
        tile = min(
            tiles,
            key=lambda t: (
                tile_cycles(target, t, 1, W, vectors, block),
                abs(t.vectors - 2),
                -t.cols,
            ),
        )
        c = chain.expand.spec.in_channels
        first = {"group": tile.vectors, "cols": tile.cols, "data_block": channel_block(c, target)}
    last: dict[str, int] = {}
    if chain.project is not None:
        k = chain.project.spec.out_channels
        k_block = channel_block(k, target)
        tile = best_tile(target, 1, Q, -(-k // k_block), block=k_block)
        last = {"out_block": k_block, "out_vectors": tile.vectors, "out_cols": tile.cols}
    strip = min(range(1, 15), key=lambda t: (-(-Q // t) * (t + 2), -t))
    for rows in range(1, P + 1):
        if P % rows:
            continue
        setting = {"block": block, "rows": rows, "strip": min(strip, Q), **first, **last}
        fits = _strip_bytes(chain, setting) <= _L2_SHARE * target.l2_bytes
        if fits and (target.cores == 1 or shared_out(spec.data[0] * P // rows, target)):
            yield setting


def _expanded_rows(chain: Bottleneck, rows: int) -> int:
    """Return the rows of e that so many rows of results read."""
    spec = chain.depthwise.spec
    return (rows - 1) * spec.strides[0] + (spec.kernel[0] - 1) * spec.dilations[0] + 1


def workspace(chain: Bottleneck, knobs: Knobs) -> int:
    """Return the bytes of a strip's e of one group and d of all, which each thread has for itself."""
    spec, total = chain.depthwise.spec, 0
    if chain.expand is not None:
        total += (
            knobs["group"] * knobs["block"] * _expanded_rows(chain, knobs["rows"]) * spec.data[-1]
        )
    if chain.project is not None:
        total += spec.out_channels * knobs["rows"] * spec.output[-1]
    return 4 * total


def _strip_bytes(chain: Bottleneck, knobs: Knobs) -> int:
    """Return what a strip touches: its part of x and y, and what lies in between."""
    spec, rows = chain.depthwise.spec, knobs["rows"]
    ends = chain.layers[0].spec.in_channels * _expanded_rows(chain, rows) * spec.data[-1]
    ends += chain.layers[-1].spec.out_channels * rows * spec.output[-1]
    return 4 * ends + workspace(chain, knobs)


def cycles(chain: Bottleneck, target: Target, knobs: Knobs) -> float:
    """Return the cycles of all layers' work and of moving x and y."""
    strips = chain.depthwise.spec.output[-2] // knobs["rows"]
    rows = strips * _expanded_rows(chain, knobs["rows"])
    work = sum(_work(layer, chain, target, knobs, rows) for layer in chain.layers)
    ends = chain.layers[0].spec.data, chain.layers[-1].spec.output
    return _moving(work, ends, target) * turns(ends[0][0] * strips, target)


def cycles_apart(chain: Bottleneck, target: Target, knobs: Knobs) -> float:
    """Return the cycles of the layers by themselves, by the same model and evenly shared out."""
    total = 0.0
    for layer in chain.layers:
        work = _work(layer, chain, target, knobs, layer.spec.data[-2])
        total += _moving(work, (layer.spec.data, layer.spec.output), target)
    return total


def _moving(work: float, ends: Sequence[Sequence[int]], target: Target) -> float:
    """Return the cycles of work and of moving data and result, half of the shorter hidden, unless L2 has held them."""
    nbytes = 4 * sum(map(math.prod, ends))
    moved = nbytes / target.core.data if nbytes > _L2_SHARE * target.l2_bytes else 0.0
    return max(work, moved) + min(work, moved) / 2


def _work(layer: Problem, chain: Bottleneck, target: Target, knobs: Knobs, expanded: int) -> float:
    """Return the cycles of a layer's sums, of its stores to L2 and of the way of its weights; `expanded` rows of e are computed."""
    spec, core, lanes = layer.spec, target.core, target.lanes
    N, K, P, Q = spec.output
    if layer is chain.depthwise:
        block, cols, (R, S) = knobs["block"], knobs["strip"], spec.kernel
        fmas = core.fmas_of(lanes, block)
        loads = ((cols - 1) * spec.strides[-1] + 2 * S) / core.loads_of(lanes, block)
        row = R * max(S * cols / fmas, loads) + cols * _STORE / fmas
        return N * P * -(-Q // cols) * -(-K // block) * row
    if layer is chain.expand:
        P, block, tile = expanded, knobs["block"], Tile(1, knobs["cols"], knobs["group"])
    else:
        block, tile = knobs["out_block"], Tile(1, knobs["out_cols"], knobs["out_vectors"])
    vectors = -(-K // block)
    sums = spec.in_channels * tile_cycles(target, tile, P, Q, vectors, block)
    stores = P * Q * vectors * (_STORE / core.fmas_of(lanes, block) + 4 * block / core.l2)
    return core.together(N * (sums + stores), 4 * math.prod(spec.weight) / target.memory_bytes)


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
    vectors, rows = -(-C // b), _expanded_rows(chain, P)
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
