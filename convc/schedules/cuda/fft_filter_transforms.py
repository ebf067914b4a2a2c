"""THE SCHEDULE of `cuda.fft_filters`: a thread for each row and each column of a filter, which meet in shared memory.

for some filters, side by side as the products read them (one thread block):
    for row, filter (threads):          d in registers;  S = row's transform, to shared memory
    for bin of rows, filter (threads):  packed = column's transform, neighbouring threads writing neighbours; T in registers

Transforms are the straight-line programs of `fft_transform`, without what zeros beyond the filter would add.
"""

from __future__ import annotations

import math

from tvm import s_tir, tirx

from convc.schedules.cuda.fft_transforms import rows, share
from convc.schedules.cuda.product import Block, Loop, blocks_of
from convc.schedules.fft_transform import column_filter, row_forward
from convc.schedules.plan import Knobs
from convc.schedules.written_out import with_programs

__all__ = ["schedule"]


def schedule(sch: s_tir.Schedule, knobs: Knobs) -> tirx.PrimFunc:
    """Return the PrimFunc of filters' transforms scheduled; knobs: `t_h`, `t_w`, dense also `products`."""
    t_h, t_w = knobs["t_h"], knobs["t_w"]
    packed = sch.get_sblock("packed")
    together = int(sch.get(packed).annotations["convc.together"])
    sch.unannotate(packed, "convc.together")
    high, wide = (int(sch.get(loop).extent) for loop in sch.get_loops(sch.get_sblock("d"))[-2:])
    own = _dense if "products" in knobs else _depthwise
    block, columns, inner = own(sch, packed, together, t_w // 2)
    sch.blockize(inner)
    if any(sch.get(b).name_hint == "T" for b in blocks_of(sch)):
        T = sch.get_sblock("T")
        sch.compute_at(T, columns[-1], preserve_unit_loops=True)
        sch.set_scope(T, 0, "local")
        for loop in sch.get_loops(T)[-len(sch.get(T).iter_vars) :]:
            sch.unroll(loop)
    made = rows(sch, block)
    sch.bind(block, "blockIdx.x")
    for loops in (columns, made):
        share(sch, loops, together * (t_w // 2))
    programs = {
        "S": row_forward(t_w, wide),
        "packed": column_filter(t_h, high, knobs.get("products", 2)),
    }
    return with_programs(sch.mod["main"], programs, vectors=False)


def _dense(
    sch: s_tir.Schedule, packed: Block, together: int, bins: int
) -> tuple[Loop, list[Loop], Loop]:
    """Return the loop over blocks of filters, those over a block's columns, and the first one of a column."""
    words = math.gcd(together, 4)
    z, step, tile, lane, word, one = sch.get_loops(packed)[:6]
    h, point = sch.split(z, [bins, None])
    outer_lane, inner_lane = sch.split(lane, [None, together // words])
    outer_word, inner_word = sch.split(word, [None, words])
    columns = [h, inner_lane, inner_word, one]
    sch.reorder(step, tile, outer_lane, outer_word, *columns, point)
    return sch.fuse(step, tile, outer_lane, outer_word), columns, point


def _depthwise(
    sch: s_tir.Schedule, packed: Block, together: int, bins: int
) -> tuple[Loop, list[Loop], Loop]:
    """Return the same of filters that each have a channel to itself."""
    k, h, e, _ = sch.get_loops(packed)[:4]
    block, filters = sch.split(k, [None, together])
    sch.reorder(block, h, filters, e)
    return block, [h, filters], e
