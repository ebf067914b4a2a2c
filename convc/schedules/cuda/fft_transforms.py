"""THE SCHEDULE of FFT convolution on a device: a thread for each row and each column of a tile, which meet in shared memory.

dense:
kernel 1    for channel, some tiles (one thread block):
                for tile, row (threads, neighbouring tiles):     d in registers;  S = row's transform, to shared memory
                for tile, column (threads):                      V = column's transform, tiles next to each other
kernel 2    M = U V                                              `warps.warp_product`, a bin and plane for each blockIdx.z
kernel 3    for n, some channels, row of tiles, some of them (one thread block):
                for channel, tile, column (threads):             Z = column's transform back, to shared memory
                for channel, tile, row (threads):                y = epilogue(row's transform back)
depthwise:
kernel      for n, some channels, row of tiles, some of them (one thread block):
                d, S as in kernel 1;  Z = column's transform, times U, and back;  y as in kernel 3

Every transform is the straight-line program of `fft_transform`, in the registers of its thread.
"""

from __future__ import annotations

from tvm import s_tir, tirx

from convc.schedules.cuda.product import Block, Loop, inline_all_but
from convc.schedules.cuda.warps import warp_product
from convc.schedules.fft_transform import (
    column_forward,
    column_inverse,
    column_product,
    row_forward,
    row_inverse,
)
from convc.schedules.plan import Knobs
from convc.schedules.tracing import begin
from convc.schedules.written_out import as_program, with_programs
from convc.target import Target

__all__ = ["rows", "schedule", "share"]

_STAGES = ("d", "S", "V", "patch", "acc", "flat", "Z", "Y")


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `cuda.fft` scheduled; knobs: `t_h`, `t_w`, dense also `products` and those of `warps.warp_product`."""
    sch = begin(func)
    out = inline_all_but(sch, _STAGES)
    dense, t_h, t_w = "products" in knobs, knobs["t_h"], knobs["t_w"]
    if dense:
        warp_product(sch, knobs, None)
    Y, Z = (sch.get_sblock(name) for name in ("Y", "Z"))
    m_h, m_w, channels, cols = (int(n) for n in sch.get(Y).annotations["convc.tile"])
    sch.unannotate(Y, "convc.tile")
    n, k, *points = sch.get_loops(out)
    p, q = points if len(points) == 2 else (sch.add_unit_loop(points[0]), points[0])
    ko, ki = sch.split(k, [None, channels])
    row, pi = sch.split(p, [None, m_h])
    co, ci, qi = sch.split(q, [None, cols, m_w])
    sch.reorder(n, ko, row, co, pi, ki, ci, qi)
    block = sch.fuse(n, ko, row, co)
    sch.compute_at(Y, ci, preserve_unit_loops=True)
    sch.set_scope(Y, 0, "local")
    sch.unroll(qi)
    sch.compute_at(Z, block, preserve_unit_loops=True)
    sch.set_scope(Z, 0, "shared")
    # As many as rows of results: more than one turn of them, and TVM would not see that a turn's results are a tile's.
    threads = channels * cols * m_h
    phases = [([pi, ki, ci], threads)]
    programs = {"S": row_forward(t_w), "Y": row_inverse(t_w, m_w)}
    if dense:
        phases += [(_columns(sch, Z, 2), threads), *_forward(sch, knobs)]
        products = knobs["products"]
        programs["V"] = column_forward(t_h, products, negated=False)
        programs["Z"] = column_inverse(t_h, m_h, products)
    else:
        own = rows(sch, block)
        phases += [(_columns(sch, Z, 4), threads), (own, threads)]
        programs["Z"] = column_product(t_h, m_h)
    as_program(sch, Y, (0, 1, 2), (3, 4, 5))
    sch.bind(block, "blockIdx.x")
    # Last: TVM does not see through the conditions of threads that have nothing to do.
    for loops, count in phases:
        share(sch, loops, count)
    return with_programs(sch.mod["main"], programs, vectors=False)


def _columns(sch: s_tir.Schedule, Z: Block, sums: int) -> list[Loop]:
    """Make programs of the columns' transforms back, whose sums run over so many axes; return the loops over columns and tiles."""
    return as_program(sch, Z, (0, 3, 4), (1, 2, *range(5, 5 + sums)))


def _forward(sch: s_tir.Schedule, knobs: Knobs) -> list[tuple[list[Loop], int]]:
    """Schedule the stages before the products as a kernel of their own; return its loops over columns and rows, and their threads."""
    V = sch.get_sblock("V")
    together = int(sch.get(V).annotations["convc.together"])
    sch.unannotate(V, "convc.together")
    h, e, one, other, t, *sums = sch.get_loops(V)
    plane, c = (one, other) if knobs["products"] == 3 else (other, one)
    to, ti = sch.split(t, [None, together])
    sch.reorder(c, to, h, ti, e, plane, *sums)
    block = sch.fuse(c, to)
    own = rows(sch, block)
    sch.blockize(e)
    sch.bind(block, "blockIdx.x")
    threads = together * (knobs["t_w"] // 2)
    return [([h, ti], threads), (own, threads)]


def rows(sch: s_tir.Schedule, block: Loop) -> list[Loop]:
    """Let a block of threads make the rows' transforms S [row][bin][re, im][...] that it needs, data in registers; return its loops."""
    S, d = sch.get_sblock("S"), sch.get_sblock("d")
    last = len(sch.get(S).iter_vars) - 1
    sch.compute_at(S, block, preserve_unit_loops=True)
    sch.set_scope(S, 0, "shared")
    *_, thread = loops = as_program(sch, S, (0, *range(3, last)), (1, 2, last))
    sch.compute_at(d, thread, preserve_unit_loops=True)
    sch.set_scope(d, 0, "local")
    for loop in sch.get_loops(d)[-2:]:
        sch.unroll(loop)
    return loops


def share(sch: s_tir.Schedule, loops: list[Loop], threads: int) -> None:
    """Share out loops among the threads of a block, the last one first."""
    rest, thread = sch.split(sch.fuse(*loops), [None, threads])
    sch.bind(thread, "threadIdx.x")
    if int(sch.get(rest).extent) == 1:
        sch.unroll(rest)
