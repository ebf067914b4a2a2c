"""THE SCHEDULE of `schedules.fft`: every transform is the straight-line program that computes its sum, on vectors of channels.

for batch, block of tile rows (parallel when there are enough):
    for channel block, tile, row:   S = row transforms          kept by columns: each column's part of all tiles is contiguous
    for column h:                                               U is streamed once a block of tile rows
        for channel block, tile:    V = column transforms
        for group of output channels:
            for each of t_h bins, each product: M = U V         the register tile, tiles as its points
            for vector, tile:       Z = inverse column transforms
    for vector, tile, row:          y = epilogue(inverse row transforms of Z)
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir, tirx

from convc.schedules.fft_transform import (
    column_forward,
    column_inverse,
    column_product,
    row_forward,
    row_inverse,
)
from convc.schedules.llvm.prefetch import fetch_ahead
from convc.schedules.llvm.tiling import (
    blocks_of,
    inline_between,
    own_loops,
    parallelize,
    share_evenly,
    tile_product,
)
from convc.schedules.plan import Knobs
from convc.schedules.sharing import shared_out
from convc.schedules.straight_line import Program
from convc.schedules.tracing import begin
from convc.schedules.written_out import as_program, with_programs
from convc.target import Target

__all__ = ["schedule"]

_STAGES = ("S", "V", "acc", "M", "Z", "Y")

_LINE = 16  # float32 elements of one cache line

Loop = Any
Block = Any


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.fft` scheduled."""
    sch = begin(func)
    out = inline_between(sch, _STAGES)
    Y = sch.get_sblock("Y")
    m_h, m_w = (int(sch.get(loop).extent) for loop in sch.get_loops(Y)[4:6])
    n, k, p, q, lane = sch.get_loops(out)
    images = [int(count) for count in sch.get(Y).annotations["convc.images"]]
    sch.unannotate(Y, "convc.images")
    # Phase images of a dilated filter: their tiles lie side by side; along a row the results of all images are written together.
    po, pi, image = sch.split(p, [None, m_h, images[0]])
    qo, qi = sch.split(q, [None, m_w * images[1]])
    block, row = sch.split(po, [None, knobs["rows"] // images[0]])
    sch.reorder(n, block, k, row, image, qo, pi, qi, lane)
    if images[1] == 1:
        sch.unroll(qi)
    sch.vectorize(lane)
    sch.compute_at(Y, pi, preserve_unit_loops=True)
    sch.set_scope(Y, 0, "local")
    dense = any(sch.get(stage).name_hint == "acc" for stage in blocks_of(sch))
    if dense:
        programs = _dense(sch, [n, block, k, row], knobs, target, m_h)
    else:
        sch.reorder(n, k, block)
        programs = _depthwise(sch, [n, k, block], qo, knobs, m_h)
    as_program(sch, Y, (0, 1, 2, 3, 4), (5, 6, 7, 8))
    programs["Y"] = row_inverse(knobs["t_w"], m_w)
    func = sch.mod["main"]
    if dense:
        # Of four products, real and imaginary part read the same panel one after the other.
        planes, points = (1 if knobs["products"] == 3 else 2), knobs["points"]
        tiles = knobs["rows"] * int(sch.get(qo).extent) * images[1]
        func = fetch_ahead(func, "U", {2: (1, planes), 5: (points, -(-tiles // points))}, target)
    return with_programs(func, programs, vectors=True, steps={"S": images[1]})


def _dense(
    sch: s_tir.Schedule, loops: list[Loop], knobs: Knobs, target: Target, m_h: int
) -> dict[str, Program]:
    """Schedule everything before `Y` for group 1, and return the programs of its transforms; `loops`: of images to tile rows."""
    n, block, k, row = loops
    S, V, acc, M, Z = (sch.get_sblock(name) for name in _STAGES[:-1])
    sch.compute_at(Z, block, preserve_unit_loops=True)
    h, zn, zk, *inner = own_loops(sch, Z)
    ko, ki = sch.split(zk, [None, min(knobs["vectors"], int(sch.get(zk).extent))])
    sch.reorder(h, zn, ko, ki, *inner)
    # Before a tail is split off: TVM would take it for tiles of this block, and compute the tiles of V and S from the wrong one on.
    for stage, loop in ((M, ko), (acc, ko), (V, h), (S, block)):
        sch.compute_at(stage, loop, preserve_unit_loops=True)
    first = tile_product(sch, acc, M, knobs, (0, 3, 4, 1, 2))
    for stage in (V, M):
        # A tile touches all planes of a column at once: an odd number of cache lines from plane to plane spreads them over L1.
        sch.storage_align(stage, 0, axis=2, factor=2 * _LINE, offset=_LINE)
    whole = shared_out(math.prod(int(sch.get(loop).extent) for loop in (n, block)), target)
    if knobs.get("parallel", 1):
        if whole:
            sch.parallel(sch.fuse(n, block))
        else:
            # Too few blocks to share out: the three parts of a block are shared out instead.
            sch.parallel(h)
            share_evenly(sch, [k, row], target)
    sch.decompose_reduction(acc, first)
    _, channels, tile, _ = as_program(sch, S, (1, 2, 3, 4), (0, 5, 6, 7))
    if knobs.get("parallel", 1) and not whole:
        share_evenly(sch, [channels, tile], target)
    as_program(sch, V, (0, 3, 4, 5), (1, 2, 6, 7, 8))
    as_program(sch, Z, (), (4, 5, 6, 7, 8))
    t_h, products = knobs["t_h"], knobs["products"]
    return {
        "S": row_forward(knobs["t_w"]),
        "V": column_forward(t_h, products),
        "Z": column_inverse(t_h, m_h, products),
    }


def _depthwise(
    sch: s_tir.Schedule, loops: list[Loop], tile: Loop, knobs: Knobs, m_h: int
) -> dict[str, Program]:
    """Schedule everything before `Y` for depthwise convolution: one tile of one block of channels from end to end."""
    S, Z = sch.get_sblock("S"), sch.get_sblock("Z")
    sch.compute_at(Z, tile, preserve_unit_loops=True)
    sch.compute_at(S, tile, preserve_unit_loops=True)
    for stage in (S, Z):
        sch.set_scope(stage, 0, "local")
    parallelize(sch, loops, knobs)
    as_program(sch, S, (1, 2, 3, 4), (0, 5, 6, 7))
    as_program(sch, Z, (0, 1, 2, 3), (4, 5, 6, 7, 8, 9, 10))
    return {"S": row_forward(knobs["t_w"]), "Z": column_product(knobs["t_h"], m_h)}
