"""Dense layers: y[m, k] = sum over c of x[m, c] w[k, c], weights packed as [K/(v b)][C][v b]; or a batch of such, each with its weights.

For one row (M = 1) each weight is used once, so this runs at the speed of memory; for more rows the register tile's rule holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from tvm import te, tirx

from convc.ir.epilogue import Step
from convc.ir.types import Shape
from convc.schedules.plan import Knobs
from convc.schedules.register_tile import best_tile
from convc.schedules.scalar import apply_steps
from convc.target import Target

# Weights of one product of a batch that stay in L2 while its rows pass: then each row is written in one go. Panel by panel, 1500 rows of
# 1500 results took 10.8 ms for 36 MB, a page of its own for each row of a panel; row by row 3.1.
_RESIDENT = 0.5

# Bytes after which addresses come to the same set of L1: 64 sets of lines of 64 bytes on every x86-64 CPU since 2006.
_SETS_BYTES = 4096

__all__ = ["compute", "knobs", "pack", "packing"]


def _together(depth: int, target: Target) -> int:
    """Return how many rows of the data L1 keeps at a time: those that lie multiples of 4096 bytes apart share a set, which holds few lines.

    A tile of more rows loads every element from L2. One Zen 4 core, 8 lines a set, 14 rows -> 8: 197 x 3072 by 768 9.6 -> 8.2 ms,
    1500 x 2048 by 512 36.5 -> 28.7, eight heads' 1024 scores by 64 12.4 -> 9.8; by 4, 30 rows -> 8, 12.9 -> 3.0.

    Example:
        >>> zen4 = Target("llvm", "x86_64-linux-gnu", "znver4", (), 16, 32)
        >>> [_together(depth, zen4) for depth in (1024, 512, 768, 1000)]
        [8, 16, 32, 1024]
    """
    lines = target.l1_bytes // _SETS_BYTES
    return lines * (_SETS_BYTES // math.gcd(4 * depth, _SETS_BYTES))


def knobs(data: Shape, outputs: int, target: Target) -> Knobs:
    """Return the tile for data (..., M, C): rows times vectors of outputs."""
    vectors = -(-outputs // target.lanes)
    # With one row the tile is a single chain per vector: 4 vectors cover the FMA latency.
    tile = best_tile(target, 1, data[-2], vectors, max_width=_together(data[-1], target))
    found = {"block": target.lanes, "rows": tile.cols, "vectors": tile.vectors}
    if data[:-2] and target.lanes * vectors * data[-1] * 4 <= _RESIDENT * target.l2_bytes:
        found["rows_first"] = 1
    return found


def pack(weight: np.ndarray, knobs: Knobs) -> np.ndarray:
    """Return weights (K, C) as [K/(v b)][C][v b], padded with zeros."""
    k, c = weight.shape
    wide = knobs["vectors"] * knobs["block"]
    padded = np.zeros((-(-k // wide) * wide, c), weight.dtype)
    padded[:k] = weight
    return np.ascontiguousarray(padded.reshape(-1, wide, c).transpose(0, 2, 1))


def packing(weight: Shape, dtype: str, knobs: Knobs, *, by_columns: bool) -> list[te.Tensor]:
    """Return a weight that is known only at run time, (..., K, C) or by columns (..., C, K), and the packed one, as `pack` does it."""
    *batch, outputs, depth = (*weight[:-2], weight[-1], weight[-2]) if by_columns else weight
    wide = knobs["vectors"] * knobs["block"]
    tiles = -(-outputs // wide)
    w = te.placeholder(weight, dtype, name="weight")

    def value(*i):
        *b, o, c, lane = i
        k = o * wide + lane
        element = w(*b, c, k) if by_columns else w(*b, k, c)
        if tiles * wide == outputs:
            return element
        return tirx.if_then_else(k < outputs, element, tirx.const(0, dtype))

    # The schedule reads off the name along which axis the weight's memory runs.
    name = "transposed_packed" if by_columns else "packed"
    return [w, te.compute((*batch, tiles, depth, wide), value, name=name)]


def compute(
    data: Shape, outputs: int, dtype: str, epilogue: Sequence[Step], knobs: Knobs
) -> list[te.Tensor]:
    """Return data, weight, extras..., result (..., M, K)."""
    *batch, M, C = data
    wide = knobs["vectors"] * knobs["block"]
    x = te.placeholder((*batch, M, C), dtype, name="data")
    w = te.placeholder((*batch, -(-outputs // wide), C, wide), dtype, name="weight")
    extras = []
    for step in epilogue:
        if step.takes_operand:
            shape = (outputs,) if step.name == "bias" else (*batch, M, outputs)
            extras.append(te.placeholder(shape, dtype, name=step.name))
    c = te.reduce_axis((0, C), "c")
    acc = te.compute(
        (*batch, M, -(-outputs // wide), wide),
        lambda *i: te.sum(x(*i[:-2], c) * w(*i[:-3], i[-2], c, i[-1]), axis=c),
        name="acc",
    )
    y = te.compute(
        (*batch, M, outputs), lambda *i: acc(*i[:-1], i[-1] // wide, i[-1] % wide), name="unpack"
    )

    def bias(y: te.Tensor, b: te.Tensor) -> te.Tensor:
        return te.compute(y.shape, lambda *i: y(*i) + b(i[-1]), name="bias_add")

    return [x, w, *extras, apply_steps(y, epilogue, extras, bias)]
