"""Software prefetch of weights: while a kernel works on one panel of them, it fetches the next one into L2.

A panel is what one run over the reduction reads: the weights of one group of output channels, which lie one behind the other. Tile
after tile of the result reads the same panel, so only the first pass over it waits for memory; the fetches of the next panel are
therefore spread over all passes, evenly, and memory is never idle.

Rewrite:
    for k in panels: for tile in range(T): for c in range(C): for i in range(16): acc += x[...] * w[k, c, i]
    -->
    for k in panels: for tile in range(T): for c in range(C):
        prefetch(&w[k + 1] + (tile * C + c) / (T * C) of a panel)
        for i in range(16): acc += x[...] * w[k, c, i]

The many FMAs of a register tile that wait for one vector of weights fill the core's scheduler, so that too few loads are in flight,
and the hardware's prefetcher does not run far enough ahead. A prefetch beyond the end of the weights is no fault; in a module the next
kernel's weights lie there.

Measured on one core of an Intel Xeon (Emerald Rapids), weights in L3, direct-method GFLOP/s without -> with: 3x3 512 channels 7 x 7
direct 91 -> 136, Winograd F(2, 3) 89 -> 136; 3x3 256 at 14 x 14 Winograd F(5, 3) 144 -> 266; 1x1 512 -> 2048 at 7 x 7 121 -> 150. With
the weights in L1 or L2 already no difference above noise (3x3 64 at 56 x 56: 172, 171), so `direct`, `subpixel`, `winograd`, dense `fft`
and dense layers always fetch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad

from convc.schedules.algorithm import two_panels_fit
from convc.schedules.llvm.update import loops_in, replaced, update_of
from convc.target import Target

__all__ = ["fetch_ahead"]

_LINE_BYTES: Final = 64

_LONGEST_RUN: Final = 64

# From 4 to 32 KiB ahead all are within 3 %; 1 KiB is 10 % slower.
_NEAR_BYTES: Final = 16 << 10

# LLVM's locality: 2 brings the line to L2. To L1 (3) is 2 to 5 % slower: it has too few lines in flight itself.
_READ, _TO_L2, _DATA = 0, 2, 1

Expr = Any  # TVM's scalar expressions and statements have no common public classes in 0.27


def fetch_ahead(
    func: tirx.PrimFunc, buffer: str, tiles: Mapping[int, tuple[int, int]], target: Target
) -> tirx.PrimFunc:
    """Return a scheduled function that fetches its packed weights one panel ahead, or 16 KiB where two panels do not fit L2.

    Args:
        func: with the block `acc_update`, the loops of its reduction around those of the register tile.
        buffer: the parameter that holds the weights, in the order in which they are read.
        tiles: of the block's axes that do not choose the panel: position -> (extent of a tile, tiles of one thread).
        target: the machine.
    """
    realize = update_of(func)
    block, values = realize.block, list(realize.iter_values)
    reduced = [
        i for i, axis in enumerate(block.iter_vars) if axis.iter_type == tirx.IterVar.CommReduce
    ]
    loop = next((values[i] for i in reversed(reduced) if isinstance(values[i], tirx.Var)), None)
    if loop is None:
        return func
    inner = loops_in(func, loop)
    steps = math.prod(int(block.iter_vars[i].dom.extent) for i in reduced)
    # A run over a block of channels fetches its lines before it begins; a long one (dense layers) with every step.
    run = int(inner[loop])
    stepwise = run > _LONGEST_RUN
    if stepwise:
        run = 1
        del inner[loop]
    loads = _loads(block, buffer)
    size = tvm.DataType(loads[0].source.dtype).itemsize
    wide = int(loads[0].source.shape[-1])

    def outside(value: Expr) -> Expr:
        """Return a value at the beginning of the innermost reduction, or of a step of it."""
        return replaced(value, {var: tirx.const(0, "int32") for var in inner})

    at = {axis.var: outside(value) for axis, value in zip(block.iter_vars, values, strict=True)}
    first = {**at, **{block.iter_vars[i].var: tirx.const(0, "int32") for i in reduced}}
    passes, turn = 1, tirx.const(0, "int32")
    for axis, (extent, count) in tiles.items():
        turn = turn * count + tirx.floormod(tirx.floordiv(outside(values[axis]), extent), count)
        passes *= count
    panel = steps * wide
    near = not two_panels_fit(panel * size, target)
    if near:
        passes = 1
    lines = -(-run * wide * size // passes // _LINE_BYTES)
    fetches = []
    for load in loads:
        here, begin = (_position(load, known) for known in (at, first))
        # In elements: the panel behind this one, and as much of it as of all passes over this one is done.
        ahead = begin + panel + tirx.floordiv(turn * panel + (here - begin), passes)
        if near:
            ahead = here + _NEAR_BYTES // size
        fetches += [_fetch(load, ahead + i * (_LINE_BYTES // size)) for i in range(lines)]

    def preceded(statement: Expr) -> Expr:
        if not statement.loop_var.same_as(loop):
            return statement
        if not stepwise:
            return tirx.SeqStmt([*fetches, statement])
        body = tirx.SeqStmt([*fetches, statement.body])
        return tirx.For(
            loop, statement.min, statement.extent, statement.kind, body, None, statement.annotations
        )

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, preceded)))


def _loads(block: Expr, buffer: str) -> list[Expr]:
    """Return what the block reads of a buffer, each place once."""
    found: dict[str, Expr] = {}

    def note(load: Expr) -> None:
        if load.source.name == buffer:
            found.setdefault(str(load), load)

    tvm_ffi.structural_walk(block.body, (TensorLoad, note))
    return list(found.values())


def _position(load: Expr, at: Mapping[Expr, Expr]) -> Expr:
    """Return the row-major position of a load where the block's axes have the given values, its last dimension begun."""
    position = tirx.const(0, "int32")
    *leading, _ = zip(load.indices, load.source.shape, strict=True)
    for index, extent in leading:
        position = position * extent + replaced(index, at)
    return position * load.source.shape[-1]


def _fetch(load: Expr, element: Expr) -> Expr:
    index = [tirx.const(0, "int32")] * (len(load.indices) - 1)
    address = tirx.address_of(tirx.BufferLoad(load.source, [*index, element]))
    return tirx.Evaluate(
        tirx.call_llvm_intrin("void", "llvm.prefetch", address, _READ, _TO_L2, _DATA)
    )
