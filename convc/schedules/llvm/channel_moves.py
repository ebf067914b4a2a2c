"""THE SCHEDULE of `schedules.channel_moves`: each vector of the result is a few vectors of the operands, permuted into one.

for batch, row (parallel):
    for block of channels (unrolled):
        for column:
            y[0:16] = permute(permute(a[0:16], b[0:16]), c[0:16])     one permutation of two vectors for each more that it needs
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvm import tirx

from convc.ir.channel_moves import Picks
from convc.schedules.llvm.elementwise import PARALLEL_ELEMENTS
from convc.target import Target

__all__ = ["schedule"]


def schedule(func: tirx.PrimFunc, picks: Picks, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `channel_moves.compute` as loops of vectors; as it is it would be read element by element.

    Args:
        func: whose parameters are the operands and the result.
        picks: as the function computes them.
        target: a CPU.
    """
    *operands, result = func.params
    batch, blocks, *spatial, lanes = (int(d) for d in result.ty.shape)
    *rows, columns = spatial
    row = tirx.Var("row", "int32")
    outer = _positions(row, (batch, *rows))
    moves = []
    for block in range(blocks):
        column = tirx.Var(f"column{block}", "int32")
        at = (*outer[1:], column)
        wanted = picks[block * lanes : (block + 1) * lanes]
        value = _vector(operands, wanted, outer[0], at, lanes)
        stored = result.vstore([outer[0], block, *at, tirx.Ramp(0, 1, lanes)], value)
        moves.append(_loop(column, columns, stored))
    body = tirx.SeqStmt(moves) if len(moves) > 1 else moves[0]
    count = batch * math.prod(rows)
    parallel = target.cores > 1 and count * columns * len(picks) >= PARALLEL_ELEMENTS
    return func.with_body(_loop(row, count, body, parallel=parallel))


def _loop(var: Any, extent: int, body: Any, *, parallel: bool = False) -> Any:
    kind = tirx.ForKind.PARALLEL if parallel else tirx.ForKind.SERIAL
    return tirx.For(var, 0, extent, kind, body)


def _positions(number: Any, shape: Sequence[int]) -> list[Any]:
    """Return the indices of the `number`-th element of a shape, row-major."""
    indices: list[Any] = []
    for extent in reversed(shape[1:]):
        indices.append(tirx.floormod(number, extent))
        number = tirx.floordiv(number, extent)
    return [number, *reversed(indices)]


def _vector(operands: Sequence[Any], wanted: Picks, n: Any, at: Sequence[Any], lanes: int) -> Any:
    """Return one vector of the result; lanes beyond the last channel are zeros."""
    dtype = str(operands[0].dtype)
    sources: dict[tuple[int, int], dict[int, int]] = {}
    for lane, (operand, channel) in enumerate(wanted):
        sources.setdefault((operand, channel // lanes), {})[lane] = channel % lanes
    value: Any = tirx.Broadcast(tirx.const(0, dtype), lanes) if len(wanted) < lanes else None
    for (operand, block), taken in sources.items():
        ramp = tirx.Ramp(0, 1, lanes)
        vector = operands[operand].vload([n, block, *at, ramp], f"{dtype}x{lanes}")
        if value is None:
            identical = all(taken.get(lane, lane) == lane for lane in range(lanes))
            order = [taken.get(lane, 0) for lane in range(lanes)]
            value = vector if identical else tirx.Shuffle([vector], order)
        else:
            order = [lanes + taken[lane] if lane in taken else lane for lane in range(lanes)]
            value = tirx.Shuffle([value, vector], order)
    return value
