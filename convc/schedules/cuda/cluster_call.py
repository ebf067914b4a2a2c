"""The function by which a cluster's blocks add up their parts, in the place of the block `met` of `rows`."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.ir import Range

from convc.schedules.cuda.cluster import ClusterSum
from convc.schedules.cuda.warp_call import Region, region, window

__all__ = ["meet"]


def meet(sch: s_tir.Schedule, thread: Any, blocks: int, threads: int) -> None:
    """Compute `met` at the loop over threads, by a call that wants of the parts of its sums the block's own alone.

    Args:
        sch: the schedule.
        thread: the loop, which `met`'s consumer is in.
        blocks: of a cluster; parts of a sum.
        threads: of a block.
    """
    met = sch.get_sblock("met")
    sch.set_scope(met, 0, "local")
    sch.compute_at(met, thread, preserve_unit_loops=True)
    outer, *_ = loops = sch.get_loops(met)[-6:]
    del loops
    block = sch.blockize(outer)
    old = sch.get(block)
    (share,), (acc, *_) = old.writes, old.reads
    part, pixels, a, channels, b, pair = share.region
    # Of the whole tile's channels, of which the share is one in `blocks`.
    count = int(channels.extent)
    tile = Range.from_min_extent(channels.min // count * (count * blocks), count * blocks)
    own: Region = region(acc, part, pixels, a, tile, b, pair)
    made = ClusterSum(blocks, threads, 2 * 2 * count * blocks)
    # Where steps lay: what TVM puts into one place has one type.
    dtype = str(sch.get(sch.get_sblock("patch")).writes[0].source.dtype)
    room = tirx.decl_buffer((made.room_bytes // tvm.DataType(dtype).itemsize,), dtype, "room", scope="shared.dyn")  # fmt: skip
    windows = [window(p, f"{n}_window") for p, n in ((share, "met"), (own, "own"))]
    pointers = [w.access_ptr(mode) for w, mode in zip(windows, ("w", "r"), strict=True)]
    call = tirx.Evaluate(cuda_func_call(made.name, *pointers, room.access_ptr("rw"), source_code=made.source))  # fmt: skip
    matched = [s_tir.MatchBufferRegion(w, p) for w, p in zip(windows, (share, own), strict=True)]
    new = s_tir.SBlock(old.iter_vars, [own], [share], old.name_hint, call, None, [room], matched)
    sch.state.replace(sch.get_sref(block), new, {old: new})
