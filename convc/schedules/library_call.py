"""A call of a library as a tensor expression: a function of the module's shim in place of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tvm import te, tirx

__all__ = ["CALL_BLOCK", "library_call"]

# Name of the block that is the call; schedules leave it as it is.
CALL_BLOCK: Final = "library_call"


def library_call(
    symbol: str, text: str, operands: Sequence[te.Tensor], shape: Sequence[int], dtype: str
) -> te.Tensor:
    """Return the last argument of `symbol(text, operands..., result)`, a function that is linked into the module."""

    def call(inputs: list[Any], outputs: list[Any]) -> Any:
        return tirx.call_cpacked(symbol, text, *inputs, outputs[0])

    return te.extern(tuple(shape), list(operands), call, name=CALL_BLOCK, dtype=dtype)
