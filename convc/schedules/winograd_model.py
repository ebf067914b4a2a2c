"""How long `winograd` takes: products, transforms, the streams of U, and V and M where they do not stay in L2."""

from __future__ import annotations

import math
from typing import Final

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.plan import Knobs
from convc.schedules.rank import raised
from convc.schedules.register_tile import Tile, tile_cycles
from convc.schedules.sharing import PARALLEL, launches, shared_out, shares, turns
from convc.schedules.span import Span
from convc.schedules.winograd_tiles import Depth, Tiles
from convc.target import Target

__all__ = ["cycles", "span_of"]

# Cycles of both transforms of one tile of 16 channels in and 16 out, in units of alpha^2, by alpha; the share of the forward one.
# Measured on Zen 4 at 64 channels, 56 x 56 and 256 channels, 14 x 14: stores bind, and from alpha = 7 on registers spill.
_TRANSFORM_CYCLES: Final = {3: 8.0, 4: 10.0, 5: 14.0, 6: 13.0, 7: 16.5, 8: 17.5}
_FORWARD_SHARE: Final = 0.58

# Fitted to 190 settings of ResNet-50's layers on an Intel Xeon, each divided by the machine's pace; 11 % rms. Parts of L2 as `Target`
# counts it: from where on V and M push each other out of it, and from where on they are not in it; times as fast as L3 alone for U
# that is fetched ahead, and for the part of V and M that comes from there.
_CROWDED: Final = 0.65
_BEYOND: Final = 1.5
_FETCHED: Final = 1.6
_EVICTED: Final = 2.4


def span_of(spec: ConvSpec, knobs: Knobs) -> Span:
    """Return which blocks of the data a tile's vectors of results read."""
    return Span.of(spec, knobs["data_block"], knobs["vectors"] * knobs["block"])


def cycles(problem: Problem, target: Target, knobs: Knobs) -> float:
    """Return the cycles of products and transforms, and of what the caches cannot hide."""
    spec, tiles = raised(problem.spec), Tiles.of(raised(problem.spec), knobs["m"])
    depth, alphas, filters = Depth.of(spec, knobs), tiles.alphas, tiles.filters
    points = knobs["rows"] * tiles.high.images * tiles.cols
    blocks = tiles.high.blocks // knobs["rows"] * (depth.slices // depth.together)
    lanes, vectors = knobs["block"], -(-spec.out_channels // knobs["block"])
    # Channels that a result sums over, of all parts and depth taps; those that are transformed; those that are stored.
    C = span_of(spec, knobs).blocks * knobs["data_block"] * tiles.parts * depth.taps
    moved_c = -(-spec.in_channels // knobs["data_block"]) * knobs["data_block"] * tiles.parts
    K = vectors * lanes
    tile = Tile(1, knobs["points"], knobs["vectors"])
    product = alphas * C * tile_cycles(target, tile, 1, points, vectors, lanes)
    product *= blocks * depth.together * filters
    # Each block of tiles streams all of U: from memory the first time, then from where it fits.
    u_bytes, v_bytes = 4 * alphas * C * K * filters, 4 * alphas * moved_c * depth.read * points
    core, memory = target.core, target.memory_bytes
    units, images = spec.data[0] * blocks, spec.data[0]
    whole = target.cores == 1 or shared_out(units, target)
    # Plane by plane, threads that share out a block have a part of U, V and M each.
    l2_bytes = target.l2_bytes * (target.cores if knobs["planes"] and not whole else 1)
    again = core.l2 if u_bytes < l2_bytes / 2 else _FETCHED * core.l3
    if u_bytes > target.l3_bytes / 2:
        again = memory * 2 / 3
    stream = u_bytes / memory + u_bytes * (blocks - 1) / again
    # Beyond all of L2, V is written to L3 and read from there: once for every group of output channels, M staying in L2; or, plane
    # by plane, once, but so is M (512 -> 256 channels at 32 x 32 on an Intel Xeon: 7.6 ms the one way, 6.3 the other).
    groups, m_bytes = -(-vectors // knobs["vectors"]), 4 * alphas * K * points * depth.together
    if v_bytes + m_bytes > _CROWDED * l2_bytes:
        product += (v_bytes + m_bytes) * blocks * filters / (_EVICTED * core.l3)
    if knobs["planes"] and (v_bytes + m_bytes) / 2 > _BEYOND * l2_bytes:
        product += 2 * (v_bytes + m_bytes) * blocks * filters / core.l3
    elif not knobs["planes"] and v_bytes > _BEYOND * l2_bytes:
        product += v_bytes * (1 + groups) * blocks * filters / core.l3
    per_pair = (
        alphas * _TRANSFORM_CYCLES[max(tiles.high.transform.alpha, tiles.wide.transform.alpha)]
    )
    per_pair *= core.transforms
    moved = _FORWARD_SHARE * moved_c * depth.read + (1 - _FORWARD_SHARE) * K * depth.together
    moved *= points * blocks * filters * per_pair / 16
    # The transforms read data and write results while no product runs: from L3 when they do not fit L2.
    image = 4 * (math.prod(spec.data[1:]) + math.prod(spec.output[1:]))
    if image > target.l2_bytes:
        moved += image / core.l3
    order = core.by_planes if knobs["planes"] else 1
    if whole:
        work = core.together(product, stream) * order
        return images * (work + moved) * turns(units, target)
    # What sharing costs would make a kernel of little work seem worth sharing.
    if (alone := cycles(problem, target.with_cores(1), knobs)) <= PARALLEL:
        return alone
    # Few blocks are computed one after another, their parts shared out: each thread reads the others' parts of V, and of M.
    forward, inverse = moved * _FORWARD_SHARE, moved * (1 - _FORWARD_SHARE)
    forward *= shares([moved_c // knobs["data_block"], depth.read, points], target)
    if knobs["planes"]:
        product *= shares([alphas, groups], target)
        # A pool's strip is computed by groups of channels.
        parts = [] if knobs.get("strip") else [knobs["vectors"], depth.together, knobs["rows"]]
        inverse *= shares([groups, *parts], target)
        handed = v_bytes + m_bytes
    else:
        product *= turns(groups, target)
        inverse *= turns(groups, target)
        handed = v_bytes * (target.cores - 1)
    # Threads that have no part leave the memory to the others.
    work = core.together(product, stream) * order
    handed *= blocks * filters / core.l3
    launched = (3 if knobs["planes"] else 2) * units * filters
    return images * (work + forward + inverse + handed) + launches(launched - 1, target)
