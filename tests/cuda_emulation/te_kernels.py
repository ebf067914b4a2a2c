"""Small functions scheduled for CUDA with TVM: one for each construct of TVM's CUDA C that the emulation must run."""

from __future__ import annotations

from typing import Any

from tvm import s_tir, te, tirx

__all__ = ["matmul", "row_sums", "scaled_copy"]


def _product(M: int, N: int, K: int, dtype: str) -> Any:
    A = te.placeholder((M, K), dtype, name="A")
    B = te.placeholder((K, N), dtype, name="B")
    k = te.reduce_axis((0, K), "k")
    C = te.compute((M, N), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k), name="C")
    D = te.compute((M, N), lambda i, j: tirx.max(C[i, j], tirx.const(0, dtype)), name="D")
    return te.create_prim_func([A, B, D])


def matmul(
    M: int, N: int, K: int, dtype: str = "float32", *, stages: int = 1, vector: int = 4
) -> Any:
    """Return max(A B, 0) by 32 x 32 tiles in shared memory and 2 x 4 in registers.

    With more than one stage the copies to shared memory are cp.async, `stages` - 1 ahead of their use
    (needs the PassContext option "tirx.use_async_copy").
    """
    s = s_tir.Schedule(_product(M, N, K, dtype))
    D, C = s.get_sblock("D"), s.get_sblock("C")
    s.set_scope(C, 0, "local")
    i, j = s.get_loops(D)
    block_i, thread_i, inner_i = s.split(i, [None, 16, 2])
    block_j, thread_j, inner_j = s.split(j, [None, 8, 4])
    s.reorder(block_i, block_j, thread_i, thread_j, inner_i, inner_j)
    s.bind(block_i, "blockIdx.y")
    s.bind(block_j, "blockIdx.x")
    thread = s.fuse(thread_i, thread_j)
    s.bind(thread, "threadIdx.x")
    s.compute_at(C, thread)
    outer, inner = s.split(s.get_loops(C)[-1], [None, 16])
    rows, columns = s.get_loops(C)[-4:-2]
    s.reorder(outer, inner, rows, columns)
    for operand in (0, 1):
        copy = s.cache_read(C, operand, "shared")
        s.compute_at(copy, outer, preserve_unit_loops=True)
        fused = s.fuse(*s.get_loops(copy)[-2:])
        _, x, v = s.split(fused, [None, 128, vector])
        s.bind(x, "threadIdx.x")
        s.vectorize(v)
    s.decompose_reduction(C, outer)
    if stages > 1:
        s.annotate(outer, "software_pipeline_stage", [0, 0, stages - 1])
        s.annotate(outer, "software_pipeline_order", [0, 1, 2])
        s.annotate(outer, "software_pipeline_async_stages", [0])
    return s.mod["main"]


def row_sums(M: int, N: int, threads: int) -> Any:
    """Return the sum of each row, by shuffles within a warp and through shared memory between warps."""
    A = te.placeholder((M, N), "float32", name="A")
    k = te.reduce_axis((0, N), "k")
    B = te.compute((M,), lambda i: te.sum(A[i, k], axis=k), name="B")
    s = s_tir.Schedule(te.create_prim_func([A, B]))
    i, k = s.get_loops(s.get_sblock("B"))
    outer, inner = s.split(k, [None, threads])
    s.reorder(i, inner, outer)
    s.bind(i, "blockIdx.x")
    s.bind(inner, "threadIdx.x")
    return s.mod["main"]


def scaled_copy(M: int, N: int, dtype: str) -> Any:
    """Return 2 A + 1 by vectors of four."""
    A = te.placeholder((M, N), dtype, name="A")
    one = tirx.const(1, dtype)
    B = te.compute((M, N), lambda i, j: A[i, j] * tirx.const(2, dtype) + one, name="B")
    s = s_tir.Schedule(te.create_prim_func([A, B]))
    block, thread, vector = s.split(s.fuse(*s.get_loops(s.get_sblock("B"))), [None, 64, 4])
    s.bind(block, "blockIdx.x")
    s.bind(thread, "threadIdx.x")
    s.vectorize(vector)
    return s.mod["main"]
