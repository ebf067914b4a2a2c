"""THE SCHEDULE of `schedules.grouped`: strips of one row; each filter row and input channel permutes the strip's data once.

for batch, block of channels, row, strip (parallel):
    for row of the filter:
        for c (unrolled):     spread = permuted data of the strip
            for s, points:    acc += spread * w        all unrolled
    y = epilogue(acc)
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.sym.analyzer import Analyzer

from convc.schedules.llvm.tiling import accumulate, inline_between, parallelize, split_tail
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `schedules.grouped` scheduled."""
    sch = begin(func)
    out = inline_between(sch, ("spread", "acc"))
    n, k, *rows, q, lane = sch.get_loops(out)
    qo, qi = split_tail(sch, q, int(sch.get(q).extent), knobs["cols"])
    spread, acc = sch.get_sblock("spread"), sch.get_sblock("acc")
    reductions = len(rows) + 2
    first = accumulate(sch, acc, qo, reductions, knobs["block"], unroll=2)
    # The lanes are on two loops now, in vectors and in one.
    loops = sch.get_loops(acc)
    own = loops[len(loops) - len(sch.get(acc).iter_vars) - 1 :]
    sch.compute_at(spread, own[reductions - 2], preserve_unit_loops=True)
    sch.set_scope(spread, 0, "local")
    loops = sch.get_loops(spread)
    *outer, vector = loops[len(loops) - len(sch.get(spread).iter_vars) :]
    for loop in outer:
        sch.unroll(loop)
    sch.blockize(vector)
    sch.unroll(qi)
    sch.vectorize(lane)
    parallelize(sch, [n, k, *rows], knobs)
    sch.decompose_reduction(acc, first)
    return _with_permutations(sch.mod["main"], knobs["block"])


def _with_permutations(func: tirx.PrimFunc, lanes: int) -> tirx.PrimFunc:
    """Return the function with the copy of one vector written as a load and a permutation; TVM would load element by element.

    Rewrite:
        for lane: spread[c, j, lane] = x[j, lane // 4 * 4 + c]
        -->
        spread[c, j, 0:16] = shuffle(x[j, 0:16], [c, c, c, c, c + 4, c + 4, ...])     c is a constant once its loop is unrolled
    """

    def replaced(block: Any) -> Any:
        return _permutation(block, lanes) if str(block.name_hint) == "spread_o" else block

    return func.with_body(tvm_ffi.structural_map(func.body, (s_tir.SBlock, replaced)))


def _permutation(block: Any, lanes: int) -> Any:
    inner: list[Any] = []
    tvm_ffi.structural_walk(block.body, (s_tir.SBlock, inner.append))
    (copy,) = inner
    store, lane = copy.body, copy.iter_vars[-1].var
    load = store.value
    # Of the block's own axes the last is the vector; before it the point, the strip and the channel.
    channel = block.iter_vars[-4]
    analyzer = Analyzer()

    def at(number: int) -> Any:
        values = ((lane, number), (channel.var, 0))
        return _substituted(load.indices[-1], values)

    begin = at(0)
    offsets = [int(analyzer.simplify(at(number) - begin)) for number in range(lanes)]
    wide = max(offsets) + int(channel.dom.extent)
    vector = load.source.vload(
        [*load.indices[:-1], tirx.Ramp(begin, 1, wide)], f"{load.source.dtype}x{wide}"
    )
    # TVM wants as many lanes in as out.
    vectors = [vector] * -(-lanes // wide)
    permuted = tirx.Shuffle(vectors, [channel.var + offset for offset in offsets])
    body = store.buffer.vstore([*store.indices[:-1], tirx.Ramp(0, 1, lanes)], permuted)
    return s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        body,
        None,
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )


def _substituted(expression: Any, values: tuple[tuple[Any, int], ...]) -> Any:
    """Return an index with variables replaced by numbers."""

    def value(var: Any) -> Any:
        for name, number in values:
            if var.same_as(name):
                return tirx.IntImm("int32", number)
        return var

    return tvm_ffi.structural_map(expression, (type(values[0][0]), value))
