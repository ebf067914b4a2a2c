"""Straight-line programs in the place of the sums that define them: what schedules do with the transforms of `fft`.

A stage is written as the sum that its transform is, so that regions, scopes and loops are an ordinary schedule's; in the end the body of
each such block is replaced by the program that computes the same in far fewer operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm_ffi
from tvm import s_tir, tirx

from convc.schedules.straight_line import Program, evaluate, slots

__all__ = ["as_program", "with_programs"]

Loop = Any  # s_tir's handles of loops and blocks have no public classes
Block = Any


def as_program(
    sch: s_tir.Schedule, stage: Block, outer: tuple[int, ...], inner: tuple[int, ...]
) -> list[Loop]:
    """Make one block of a stage's inner axes, to be replaced by `with_programs`; return its outer loops."""
    loops = sch.get_loops(stage)
    own = loops[len(loops) - len(sch.get(stage).iter_vars) :]
    first = own[inner[0]]
    if outer:
        sch.reorder(*(own[i] for i in (*outer, *inner)))
    sch.blockize(first)
    return [own[i] for i in outer]


def with_programs(
    func: tirx.PrimFunc,
    programs: Mapping[str, Program],
    *,
    vectors: bool,
    steps: Mapping[str, int] = {},
) -> tirx.PrimFunc:
    """Return the function with the body of each stage's block replaced by its program.

    Args:
        func: a scheduled function.
        programs: of the stages, by name; inputs and outputs are the elements of what the block reads and writes, row-major.
        vectors: whether the last axis of all that a block reads and writes is read and written at once.
        steps: by stage, of the last axis but that of vectors, only every so many-th element is read.

    Rewrite:
        with sblock("S_o"): reads(x[i, j:j + 16, 0:16]); writes(S[0:8, i, 0:2, 0:16])
            for h, s, lane, j: S[h, i, s, lane] += x[i, j, lane] * cos(...)
        -->
            v1 = x[i, j, 0:16]; v2 = x[i, j + 8, 0:16]; v3 = v1 * 0.98; ...;  S[0, i, 0, 0:16] = v3 - v4; ...
    """

    def replaced(block: Any) -> Any:
        stage, outer, _ = str(block.name_hint).partition("_o")
        if not outer or stage not in programs:
            return block
        return _written_out(block, programs[stage], vectors, steps.get(stage, 1))

    return func.with_body(tvm_ffi.structural_map(func.body, (s_tir.SBlock, replaced)))


def _elements(region: Any, lanes: int, step: int = 1) -> list[tuple[Any, list[Any]]]:
    """Return (buffer, indices) of every element or vector of a region, row-major; of the last axis of elements every step-th."""
    axes, last = list(region.region), []
    if lanes > 1:
        last = [tirx.Ramp(axes.pop().min, 1, lanes)]
    steps = [1] * (len(axes) - 1) + [step]
    counts = [-(-int(axis.extent) // by) for axis, by in zip(axes, steps, strict=True)]
    return [
        (
            region.source,
            [*(x.min + int(i) * by for x, i, by in zip(axes, at, steps, strict=True)), *last],
        )
        for at in np.ndindex(*counts)
    ]


def _written_out(block: Any, program: Program, vectors: bool, step: int) -> Any:
    """Return the block with the program as its body."""
    lanes = int(block.writes[0].region[-1].extent) if vectors else 1
    # The data before U, wherever analysis put them.
    reads = sorted(block.reads, key=lambda region: region.source.name == "U")
    inputs = [element for region in reads for element in _elements(region, lanes, step)]
    outputs = _elements(block.writes[0], lanes)
    wanted, made = (program.inputs, len(program.outputs)), (len(inputs), len(outputs))
    assert made == wanted, (
        f"{block.name_hint} has {made} inputs and outputs for a program of {wanted}"
    )
    dtype = block.writes[0].source.dtype
    kind = f"{dtype}x{lanes}" if lanes > 1 else dtype
    places = slots(program)
    # A variable for each value would be the natural form, but TVM's passes take minutes for a thousand of those. Compilers promote
    # the elements of this array to registers all the same.
    kept = tirx.decl_buffer(
        (max(places.values(), default=0) + 1, lanes), dtype, "kept", scope="local"
    )
    statements: list[tirx.Stmt] = []

    def read(position: int) -> Any:
        buffer, indices = inputs[position]
        return buffer.vload(indices, kind)

    def write(position: int, value: Any) -> None:
        buffer, indices = outputs[position]
        statements.append(buffer.vstore(indices, value))

    def keep(number: int, value: Any) -> Any:
        at = [places[number], tirx.Ramp(0, 1, lanes) if lanes > 1 else 0]
        statements.append(kept.vstore(at, value))
        return kept.vload(at, kind)

    def factor(value: float) -> Any:
        constant = tirx.const(value, dtype)
        return tirx.Broadcast(constant, lanes) if lanes > 1 else constant

    evaluate(program, read, write, keep=keep, factor=factor)
    return s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        tirx.SeqStmt(statements) if len(statements) > 1 else statements[0],
        None,
        [*block.alloc_buffers, kept],
        block.match_buffers,
        block.annotations,
    )
