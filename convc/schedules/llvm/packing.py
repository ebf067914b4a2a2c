"""THE SCHEDULE of `schedules.packing`: reads run along the weight's memory, one element a cycle; transforms in vectors of filters.

Rewrite:
    packed[o, co, r, s, ci, lane] = w[o v b + lane, co a + ci, r, s]
    -->
    for o, co (parallel): for lane, ci, r, s: packed[...] = w[...]

The other order, vectors of lanes gathered from as many filters, took 2 to 3 times as long.
"""

from __future__ import annotations

import math

from tvm import s_tir, tirx

from convc.schedules.llvm import fft_filter_transforms
from convc.schedules.llvm.tiling import blocks_of, parallelize
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule", "schedule_dense"]

_TILE = 16


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of a packing scheduled, by its stages: of `fft` rows `S`, of Winograd `half`, of all others one."""
    sch = begin(func)
    blocks = blocks_of(sch)
    if any(sch.get(block).name_hint == "S" for block in blocks):
        return fft_filter_transforms.schedule(sch, knobs, target)
    if len(blocks) == 1:
        weight = tuple(int(extent) for extent in func.params[0].shape)
        _move(sch, blocks[0], weight, knobs)
    else:
        _transform(sch, knobs)
    return sch.mod["main"]


def schedule_dense(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.dense.packing` scheduled: packed[..., block, depth, lane]."""
    sch = begin(func)
    (packed,) = blocks_of(sch)
    *outer, depth, lane = sch.get_loops(packed)
    if sch.get(packed).name_hint.startswith("transposed"):
        sch.vectorize(sch.split(lane, [None, knobs["block"]])[1])
    else:
        # A tile of both axes stays in L1; whole rows of 1024 took three times as long.
        rest, inner = sch.split(depth, [None, min(_TILE, int(sch.get(depth).extent))])
        sch.reorder(*outer, rest, lane, inner)
    parallelize(sch, outer, knobs)
    return sch.mod["main"]


def _move(sch: s_tir.Schedule, packed, weight: tuple[int, ...], knobs: Knobs) -> None:
    """Order the loops as the weight's axes lie in memory; its first axis is the filter's, or the channel's if transposed."""
    loops = sch.get_loops(packed)
    if "position" in sch.get(packed).name_hint:
        # im2col: (group, tile, position of channel and taps, filter of the tile)
        group, tile, position, filters = loops
        channel, taps = sch.split(position, [None, math.prod(weight[2:])])
        inner = [filters, channel, taps]
        if sch.get(packed).name_hint.startswith("transposed"):
            inner = [channel, filters, taps]
        sch.reorder(group, tile, *inner)
        parallelize(sch, [group, tile], knobs)
        return
    if len(loops) < 5:  # depthwise: (block, taps, lane)
        if sch.get(packed).name_hint.startswith("transposed"):
            sch.vectorize(sch.split(loops[-1], [None, knobs["block"]])[1])
        else:
            sch.reorder(loops[0], loops[-1], *loops[1:-1])
        parallelize(sch, loops[:1], knobs)
        return
    # (vector of filters, phases, block of channels, taps, channel, lane)
    phases = len(loops) - len(weight) - 2 if len(loops) > 6 else 0
    out, *middle, channel, lane = loops
    phase, (blocks, *taps) = middle[:phases], middle[phases:]
    inner = (
        [channel, lane] if sch.get(packed).name_hint.startswith("transposed") else [lane, channel]
    )
    sch.reorder(out, blocks, *inner, *phase, *taps)
    parallelize(sch, [out, blocks], knobs)


def _transform(sch: s_tir.Schedule, knobs: Knobs) -> None:
    packed, half, taps = (sch.get_sblock(name) for name in ("packed", "half", "taps"))
    _, _, o, i, j, _, _, c, lane = sch.get_loops(packed)
    sch.reorder(o, c, i, j, lane)
    for stage in (half, taps):
        sch.compute_at(stage, c, preserve_unit_loops=True)
        sch.set_scope(stage, 0, "local")
    _vectors(sch, [i, j], lane, knobs["block"])
    *_, a, b, inner = sch.get_loops(half)
    _vectors(sch, [a, b], inner, knobs["block"])
    *_, r, s, inner = sch.get_loops(taps)
    sch.reorder(inner, r, s)
    parallelize(sch, [o, c], knobs)


def _vectors(sch: s_tir.Schedule, axes, lane, block: int) -> None:
    """Unroll the transform's axes, whose Selects then vanish, inside a loop over vectors of lanes."""
    vector, lanes = sch.split(lane, [None, block])
    sch.reorder(vector, *axes, lanes)
    for axis in axes:
        sch.unroll(axis)
    sch.vectorize(lanes)
