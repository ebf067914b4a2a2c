"""Dense layers on a device: y[m, k] = sum over c of x[m, c] w[k, c], a convolution of M images of one point.

For one row or a few, a warp adds up each result, its threads reading neighbouring weights: that runs at the speed of memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import s_tir, te, tirx

from convc.ir.epilogue import Step
from convc.ir.types import Shape
from convc.schedules.cuda.product import inline_all_but
from convc.schedules.plan import Knobs
from convc.schedules.scalar import apply_steps
from convc.target import Target

__all__ = ["compute", "knobs", "pack", "schedule"]


def knobs(data: Shape, outputs: int, target: Target) -> Knobs:
    """Return rows that share a load of weights, and the threads that add up one result."""
    rows = next(r for r in (8, 4, 2, 1) if data[0] % r == 0)
    return {"rows": rows, "threads": 128 if data[1] >= 2048 else target.gpu.warp}


def pack(weight: np.ndarray, knobs: Knobs) -> np.ndarray:
    """Return the weights (K, C) as they are."""
    return np.ascontiguousarray(weight)


def compute(
    data: Shape, outputs: int, dtype: str, epilogue: Sequence[Step], knobs: Knobs
) -> list[te.Tensor]:
    """Return data, weight, extras..., result (M, K)."""
    M, C = data
    x = te.placeholder((M, C), dtype, name="data")
    w = te.placeholder((outputs, C), dtype, name="weight")
    extras = []
    for step in epilogue:
        if step.takes_operand:
            shape = (outputs,) if step.name == "bias" else (M, outputs)
            extras.append(te.placeholder(shape, dtype, name=step.name))
    c = te.reduce_axis((0, C), "c")
    acc = te.compute((M, outputs), lambda m, k: te.sum(x[m, c] * w[k, c], axis=c), name="acc")

    def bias(y: te.Tensor, b: te.Tensor) -> te.Tensor:
        return te.compute(y.shape, lambda m, k: y[m, k] + b[k], name="bias_add")

    y = te.compute(acc.shape, lambda *i: acc(*i), name="unpack")
    return [x, w, *extras, apply_steps(y, epilogue, extras, bias)]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `compute` scheduled: a block of threads for each output channel and tile of rows."""
    sch = s_tir.Schedule(func)
    out = inline_all_but(sch, ("acc",))
    acc = sch.get_sblock("acc")
    m, k = sch.get_loops(out)
    m, rows = sch.split(m, [None, knobs["rows"]])
    sch.reorder(m, k, rows)
    block = sch.fuse(m, k)
    sch.bind(block, "blockIdx.x")
    sch.compute_at(acc, block, preserve_unit_loops=True)
    sch.set_scope(acc, 0, "shared")
    *_, row, column, c = sch.get_loops(acc)
    rest, thread = sch.split(c, [None, knobs["threads"]])
    sch.reorder(row, column, thread, rest)
    sch.bind(thread, "threadIdx.x")
    # As many writers as threads, most of them idle: bound to a shorter axis, all threads would write, past the end.
    _, writer = sch.split(rows, [None, knobs["threads"]])
    sch.bind(writer, "threadIdx.x")
    return sch.mod["main"]
