"""Which layers can be one `bottleneck`, in what strips and register tiles, and how long that takes beside the layers apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

from convc.ir.epilogue import POLYNOMIALS
from convc.ir.types import numpy_dtype
from convc.schedules.algorithm import Problem, channel_block
from convc.schedules.bottleneck import Bottleneck, expanded_rows
from convc.schedules.direct_data import pairs_products
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.register_tile import Tile, best_tile, good_tiles, tile_cycles
from convc.schedules.requirements import float32_throughout
from convc.schedules.sharing import shared_out, turns
from convc.target import Target

__all__ = ["cycles", "cycles_apart", "knobs", "space", "supports", "workspace"]

# e of a group, d and the strip's part of x and y may take so much of L2; what is streamed needs the rest.
_L2_SHARE: Final = 0.7

# Cycles of one vector's way through an epilogue and its store.
_STORE: Final = 2.0

# The same of a function that is a polynomial, and a division, of every element: exp 16, SiLU 14, tanh 13 on an Intel Xeon.
_POLYNOMIAL: Final = 15.0

# A depthwise row's products of one row of taps are unrolled as a whole: more are too much code.
_MOST_PRODUCTS: Final = 800


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


def space(chain: Bottleneck, target: Target) -> tuple[Knobs, ...]:
    """Return the settings worth measuring, the model's first: its strips with the best register tile of each width."""
    best = knobs(chain, target)
    rest = (k for k in _options(chain, target, every_width=True) if k != best)
    return (best, *rest)


def _options(chain: Bottleneck, target: Target, *, every_width: bool = False) -> Iterator[Knobs]:
    """Yield the settings whose strips share out evenly and fit L2, with the best register tiles, or the best of every width."""
    spec = chain.depthwise.spec
    block, (P, Q) = channel_block(spec.out_channels, target), spec.output[-2:]
    firsts, lasts = _expansions(chain, target, block), _projections(chain, target)
    if not every_width:
        firsts, lasts = firsts[:1], lasts[:1]
    strip = min(range(1, 15), key=lambda t: (-(-Q // t) * (t + 2), -t))
    for rows, first, last in itertools.product(range(1, P + 1), firsts, lasts):
        if P % rows:
            continue
        setting = {"block": block, "rows": rows, "strip": min(strip, Q), **first, **last}
        fits = _strip_bytes(chain, setting) <= _L2_SHARE * target.l2_bytes
        if fits and (target.cores == 1 or shared_out(spec.data[0] * P // rows, target)):
            yield setting


def _expansions(chain: Bottleneck, target: Target, block: int) -> list[dict[str, int]]:
    """Return the expansion's knobs, a row for each width of register tile, the fastest by estimate first."""
    if chain.expand is None:
        return [{"group": 1}]
    W, vectors = chain.depthwise.spec.data[-1], -(-chain.depthwise.spec.out_channels // block)
    wide = [v for v in (1, 2, 3, 4) if vectors % v == 0]
    tiles = sorted(
        good_tiles(target, 1, W, vectors, block=block, vectors=wide),
        key=lambda t: (tile_cycles(target, t, 1, W, vectors, block), abs(t.vectors - 2), -t.cols),
    )
    data_block = channel_block(chain.expand.spec.in_channels, target)
    return [
        {"group": t.vectors, "cols": t.cols, "data_block": data_block} for t in _each_width(tiles)
    ]


def _projections(chain: Bottleneck, target: Target) -> list[dict[str, int]]:
    """Return the projection's knobs, a row for each width of register tile, the fastest by estimate first."""
    if chain.project is None:
        return [{}]
    k, Q = chain.project.spec.out_channels, chain.depthwise.spec.output[-1]
    block = channel_block(k, target)
    vectors = -(-k // block)
    best = best_tile(target, 1, Q, vectors, block=block)
    others = sorted(
        good_tiles(target, 1, Q, vectors, block=block),
        key=lambda t: tile_cycles(target, t, 1, Q, vectors, block),
    )
    return [
        {"out_block": block, "out_vectors": t.vectors, "out_cols": t.cols}
        for t in _each_width([best, *others])
    ]


def _each_width(tiles: Sequence[Tile]) -> list[Tile]:
    """Return the first tile of every width, in order."""
    found: dict[int, Tile] = {}
    for tile in tiles:
        found.setdefault(tile.vectors, tile)
    return list(found.values())


def workspace(chain: Bottleneck, knobs: Knobs) -> int:
    """Return the bytes of a strip's e of one group and d of all, which each thread has for itself."""
    spec, total = chain.depthwise.spec, 0
    if chain.expand is not None:
        total += (
            knobs["group"] * knobs["block"] * expanded_rows(chain, knobs["rows"]) * spec.data[-1]
        )
    if chain.project is not None:
        total += spec.out_channels * knobs["rows"] * spec.output[-1]
    return 4 * total


def _strip_bytes(chain: Bottleneck, knobs: Knobs) -> int:
    """Return what a strip touches: its part of x and y, and what lies in between."""
    spec, rows = chain.depthwise.spec, knobs["rows"]
    ends = chain.layers[0].spec.in_channels * expanded_rows(chain, rows) * spec.data[-1]
    ends += chain.layers[-1].spec.out_channels * rows * spec.output[-1]
    return 4 * ends + workspace(chain, knobs)


def cycles(chain: Bottleneck, target: Target, knobs: Knobs) -> float:
    """Return the cycles of all layers' work and of moving x and y, which layers before and behind hide nothing of."""
    strips = chain.depthwise.spec.output[-2] // knobs["rows"]
    rows = strips * expanded_rows(chain, knobs["rows"])
    first, last = chain.layers[0], chain.layers[-1]
    held = _bytes(first, first.spec.data, last.spec.output) <= _L2_SHARE * target.l2_bytes
    total = 0.0
    for layer in chain.layers:
        ends = [*([layer.spec.data] if layer is first else []), *([layer.spec.output] if layer is last else [])]  # fmt: skip
        moved = 0.0 if held else _bytes(layer, *ends) / target.core.data
        total += _together(_work(layer, chain, target, knobs, rows), moved, target)
    return total * turns(first.spec.data[0] * strips, target)


def cycles_apart(chain: Bottleneck, target: Target, knobs: Knobs) -> float:
    """Return the cycles of the layers by themselves, by the same model and evenly shared out; in pairs of bfloat16 where `direct` is."""
    total = 0.0
    for layer in chain.layers:
        work = _work(layer, chain, target, knobs, layer.spec.data[-2], alone=True)
        nbytes = _bytes(layer, layer.spec.data, layer.spec.output)
        moved = nbytes / target.core.data if nbytes > _L2_SHARE * target.l2_bytes else 0.0
        total += _together(work, moved, target)
    return total


def _bytes(layer: Problem, *shapes: Sequence[int]) -> int:
    """Return the bytes of values in the type that the layer's are stored in."""
    return numpy_dtype(layer.stored_spec.dtype).itemsize * sum(map(math.prod, shapes))


def _together(work: float, moved: float, target: Target) -> float:
    """Return the cycles of work and of moving data, which partly hide each other."""
    return max(work, moved) + target.core.data_uncovered * min(work, moved)


def _end(layer: Problem, target: Target, block: int, kept: int = 0) -> float:
    """Return the cycles of one vector's way through a layer's epilogue and, of so many bytes, to L2."""
    core, polynomials = target.core, sum(step.name in POLYNOMIALS for step in layer.epilogue)
    fmas = core.fmas_of(target.lanes, block)
    return core.ends * (_STORE / fmas + kept / core.l2) + _POLYNOMIAL * polynomials / fmas


def _work(
    layer: Problem,
    chain: Bottleneck,
    target: Target,
    knobs: Knobs,
    expanded: int,
    *,
    alone: bool = False,
) -> float:
    """Return the cycles of a layer's sums, of its stores to L2 and of the way of its weights; `expanded` rows of e are computed."""
    spec, core, lanes = layer.spec, target.core, target.lanes
    N, K, P, Q = spec.output
    if layer is chain.depthwise:
        block, cols, (R, S) = knobs["block"], knobs["strip"], spec.kernel
        fmas = core.fmas_of(lanes, block)
        loads = ((cols - 1) * spec.strides[-1] + 2 * S) / core.loads_of(lanes, block)
        row = R * max(S * cols / fmas, loads) + cols * _end(layer, target, block)
        return N * P * -(-Q // cols) * -(-K // block) * row
    if layer is chain.expand:
        P, block, tile = expanded, knobs["block"], Tile(1, knobs["cols"], knobs["group"])
    else:
        block, tile = knobs["out_block"], Tile(1, knobs["out_cols"], knobs["out_vectors"])
    vectors = -(-K // block)
    sums = spec.in_channels * tile_cycles(target, tile, P, Q, vectors, block)
    if alone and pairs_products(layer, target):
        sums *= min(1.0, core.fmas / core.bf16_dots / 2)
    stores = P * Q * vectors * _end(layer, target, block, 4 * block)
    return core.together(N * (sums + stores), 4 * math.prod(spec.weight) / target.memory_bytes)
