"""THE SCHEDULE of an image's move between plain order and blocks of channels: tiles that are transposed in registers.

for batch, block of channels, row (parallel):
    for tile of columns:
        v[c] = x[c, columns]                                    a vector of columns for each channel of the block
        log2(b) times: v[2i], v[2i + 1] = interleaved(v[i], v[i + b/2])
        y[columns, channels] = v                                and back alike, the vectors being points

The last tile of a row reaches back into the one before it and writes the same once more. A cycle an element, as loads and stores of
single ones take, becomes a quarter of one: the interleavings are one permutation of two registers each. Of rows that are shorter than a
block the tiles are narrower: vectors of fewer columns grow by being interleaved whole, and back alike their parts are stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from tvm import DataType, tirx

from convc.schedules.llvm import elementwise
from convc.schedules.llvm.elementwise import PARALLEL_ELEMENTS
from convc.target import Target

__all__ = ["schedule"]

# Bytes of a vector of columns where a block of channels is narrower.
_NARROW: Final = 16

# Columns of the narrowest tile.
_LEAST: Final = 4

# Element types whose vectors LLVM interleaves in registers; bools and wider ones move one by one.
_MOVED: Final = ("float32", "int32", "uint8", "int8", "uint16", "float16")


def schedule(func: tirx.PrimFunc, block: int, target: Target) -> tirx.PrimFunc:
    """Return the move of an image between plain order and blocks of so many channels, scheduled.

    Args:
        func: whose parameters are the image and the result.
        block: channels in a block.
        target: a CPU.
    """
    x, y = func.params
    dtype = DataType(str(x.dtype))
    read, written = ([int(extent) for extent in param.ty.shape] for param in (x, y))
    # Blocks of one channel are plain order with an axis of one element behind it.
    ones = len(read) == len(written)
    to_blocks = written[-1] > 1 if ones else len(written) > len(read)
    plain = read if to_blocks else written
    plain = plain[:-1] if ones else plain
    columns = max(block, _NARROW // dtype.itemsize) if to_blocks else block
    while columns > max(_LEAST, plain[-1]):
        columns //= 2
    if str(dtype) not in _MOVED or plain[-1] < columns or block & (block - 1):
        return elementwise.schedule_transpose(func, block, target)
    move = _Move(x, y, plain, block, columns, to_blocks=to_blocks, ones=ones)
    return func.with_body(move.body(target))


class _Move:
    """The loops of one move."""

    def __init__(
        self,
        x: Any,
        y: Any,
        plain: Sequence[int],
        block: int,
        columns: int,
        *,
        to_blocks: bool,
        ones: bool,
    ) -> None:
        self.x, self.y, self.block, self.columns = x, y, block, columns
        # Lanes of a vector on the blocked side: one point's channels, or several points' of narrow blocks.
        self.wide = max(block, columns)
        self.to_blocks, self.ones = to_blocks, ones
        self.batch, self.channels, *self.rows, self.width = plain
        self.dtype = str(x.dtype)

    def body(self, target: Target) -> Any:
        """Return all loops."""
        whole, rest = divmod(self.channels, self.block)
        moves = []
        if whole:
            moves.append(self._blocks("whole", 0, whole, self.block, target))
        if rest:
            moves.append(self._blocks("rest", whole, 1, rest, target))
        return tirx.SeqStmt(moves) if len(moves) > 1 else moves[0]

    def _blocks(self, name: str, first: int, blocks: int, channels: int, target: Target) -> Any:
        """Return the move of `blocks` blocks, of which each has so many channels."""
        number = tirx.Var(f"{name}_row", "int32")
        at, left = [], number
        for extent in reversed(self.rows):
            at.append(tirx.floormod(left, extent))
            left = tirx.floordiv(left, extent)
        n, block = tirx.floordiv(left, blocks), tirx.floormod(left, blocks) + first
        place = (n, block, *reversed(at))
        tile = tirx.Var(f"{name}_tile", "int32")
        tiles = self.width // self.columns
        inner = [
            tirx.For(
                tile,
                0,
                tiles,
                tirx.ForKind.SERIAL,
                self._tile(name, place, tile * self.columns, channels),
            )
        ]
        if self.width % self.columns:
            last = tirx.const(self.width - self.columns, "int32")
            inner.append(self._tile(f"{name}_last", place, last, channels))
        count = self.batch * blocks * math.prod(self.rows)
        elements = count * self.width * self.block
        parallel = target.cores > 1 and count > 1 and elements >= PARALLEL_ELEMENTS
        kind = tirx.ForKind.PARALLEL if parallel else tirx.ForKind.SERIAL
        return tirx.For(number, 0, count, kind, tirx.SeqStmt(inner) if len(inner) > 1 else inner[0])

    def _tile(self, name: str, place: Sequence[Any], column: Any, channels: int) -> Any:
        """Return the move of one tile: loads, interleavings and stores, each vector a variable."""
        b, lanes = self.block, self.columns if self.to_blocks else self.wide
        made: list[Any] = []

        def bound(stage: int, i: int, value: Any) -> Any:
            var = tirx.Var(f"{name}_{stage}_{i}", f"{self.dtype}x{lanes}")
            made.append(tirx.Bind(var, value))
            return var

        vectors = []
        for i in range(b if self.to_blocks else self.columns):
            zero = tirx.Broadcast(tirx.const(0, self.dtype), lanes)
            value = self._load(place, column, i) if not self.to_blocks or i < channels else zero
            vectors.append(bound(0, i, value))
        for stage in range(1, len(vectors).bit_length()):
            half = len(vectors) // 2
            pairs = zip(vectors[:half], vectors[half:], strict=True)
            if lanes < self.wide:
                made_of = [tirx.Shuffle([u, v], _turns(0, lanes, lanes)) for u, v in pairs]
                lanes *= 2
            else:
                halves = [_turns(at, lanes // 2, lanes) for at in (0, lanes // 2)]
                made_of = [tirx.Shuffle([u, v], half) for u, v in pairs for half in halves]
            vectors = [bound(stage, i, value) for i, value in enumerate(made_of)]
        if not self.to_blocks:
            parts = range(0, lanes, self.columns)
            vectors = [_part(v, at, self.columns, lanes) for v in vectors for at in parts][
                :channels
            ]
        made += [self._store(place, column, i, v) for i, v in enumerate(vectors)]
        return tirx.SeqStmt(made)

    def _load(self, place: Sequence[Any], column: Any, i: int) -> Any:
        kind = f"{self.dtype}x{self.columns if self.to_blocks else self.wide}"
        return self.x.vload(self._index(place, column, i, plain=self.to_blocks), kind)

    def _store(self, place: Sequence[Any], column: Any, i: int, value: Any) -> Any:
        return self.y.vstore(self._index(place, column, i, plain=not self.to_blocks), value)

    def _index(self, place: Sequence[Any], column: Any, i: int, *, plain: bool) -> list[Any]:
        """Return where the i-th vector of a tile lies: a channel's columns, or as many points as a vector holds."""
        n, block, *at = place
        if plain:
            # Points of blocks of one lie one behind the other, too.
            last = [column, tirx.Ramp(0, 1, self.columns)] if self.ones else [tirx.Ramp(column, 1, self.columns)]  # fmt: skip
            return [n, block * self.block + i, *at, *last]
        # Points of narrow blocks lie one behind the other.
        points = self.wide // self.block
        return [n, block, *at, column + i * points, tirx.Ramp(0, 1, self.wide)]


def _turns(begin: int, count: int, lanes: int) -> list[int]:
    """Return the order that takes so many elements of two vectors from `begin` on, one of each by turns."""
    return [i for at in range(begin, begin + count) for i in (at, lanes + at)]


def _part(vector: Any, begin: int, count: int, lanes: int) -> Any:
    """Return so many elements of a vector from `begin` on."""
    return vector if count == lanes else tirx.Shuffle([vector], list(range(begin, begin + count)))
