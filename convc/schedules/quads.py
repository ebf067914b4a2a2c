"""Four products of bytes in one instruction, and the quads of channels that it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Final

import numpy as np
from tvm import tirx

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import row_chunks
from convc.schedules.plan import Knobs
from convc.schedules.register_tile import best_tile
from convc.target import Target

__all__ = ["DOT", "QUAD", "has_dot", "in_quads", "multiply", "quad_of", "seen_as", "tile_knobs"]

# LLVM's name of vpdpbusd on 512 bits: (sums, four unsigned bytes, four signed bytes) -> sums.
DOT: Final = "llvm.x86.avx512.vpdpbusd.512"
QUAD: Final = 4


def has_dot(target: Target) -> bool:
    """Return whether the CPU adds four products of bytes in one instruction."""
    return "avx512vnni" in target.features and target.lanes == 16


def tile_knobs(spec: ConvSpec, target: Target, rows: int, cols: int) -> Knobs:
    """Return blocks and register tile of a layer of bytes.

    Args:
        spec: of two spatial dimensions at least.
        target: the CPU.
        rows: of the result, or of one of its phases, in which the tile lies.
        cols: likewise.
    """
    block = target.lanes
    # A tile of more vectors may read the inputs of more groups.
    most = 4 if spec.group == 1 else 1
    vectors = -(-spec.out_channels // block)
    tile = best_tile(target, rows, cols, vectors, block=block, max_vectors=most)
    return {
        "data_block": QUAD if spec.in_channels <= QUAD else block,
        "block": block,
        "rows": tile.rows,
        "cols": tile.cols,
        "vectors": tile.vectors,
        "chunks": row_chunks(spec, target, tile.rows, rows),
        "dot": int(has_dot(target)),
    }


def seen_as(channels: int, knobs: Knobs) -> tuple[int, tuple[str, str]]:
    """Return (elements of a block of channels, (type of data, of weights)) as a kernel sees them, quads where the knob `dot` says so."""
    if knobs["dot"]:
        return channels // QUAD, ("int32", "int32")
    return channels, ("uint8", "int8")


def in_quads(packed: np.ndarray) -> np.ndarray:
    """Return int8 weights [..][a][v b] as [..][a/4][v b] int32 of four channels each."""
    *outer, a, wide = packed.shape
    quads = np.moveaxis(packed.reshape(*outer, a // QUAD, QUAD, wide), -2, -1)
    return np.ascontiguousarray(quads).view(np.int32)[..., 0]


def quad_of(elements: Sequence[Any]) -> Any:
    """Return four bytes as one int32, the first in its last bits."""
    parts = [x.astype("int32") << tirx.const(8 * i, "int32") for i, x in enumerate(elements[1:], 1)]
    return reduce(lambda left, right: left | right, parts, elements[0].astype("int32"))


def multiply(knobs: Knobs) -> Callable[[Any, Any], Any]:
    """Return the product of two bytes, or what the instruction makes of two quads, in int32."""

    def in_instruction(left: Any, right: Any) -> Any:
        return tirx.call_llvm_pure_intrin("int32", DOT, tirx.const(0, "int32"), left, right)

    def one(left: Any, right: Any) -> Any:
        return left.astype("int32") * right.astype("int32")

    return in_instruction if knobs["dot"] else one
