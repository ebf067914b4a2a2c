"""Tables of bytes: how they are read, and the mark by which schedules know a block that reads one."""

from __future__ import annotations

from typing import Any, Final

from tvm import te, tirx

__all__ = ["is_looked_up", "looked_up"]

_LOOKED_UP: Final = "looked_up"


def looked_up(x: te.Tensor, table: te.Tensor, channels: int, block: int) -> te.Tensor:
    """Return what a table has for each byte; in blocks, zeros beyond the last channel.

    Schedules leave it in scalars: vectors of places would be gathers of single bytes.
    """

    def value(*i: Any) -> Any:
        found = table(x(*i).astype("int32"))
        if not block or channels % block == 0:
            return found
        inside = i[1] * block + i[-1] < channels
        return tirx.Select(inside, found, tirx.const(0, table.dtype))

    return te.compute(x.shape, value, name="lookup", attrs={_LOOKED_UP: 1})


def is_looked_up(block: Any) -> bool:
    """Return whether a TensorIR block looks up bytes."""
    return _LOOKED_UP in block.annotations
