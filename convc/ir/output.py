"""Output: what a graph returns, and which of its outputs say how large others are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convc.errors import VerifyError
from convc.ir.types import TensorType

__all__ = ["Output", "check_counts"]


@dataclass(frozen=True, slots=True)
class Output:
    """A graph output: its public name and the value it returns.

    Attributes:
        count: the name of another output, an int64 scalar, which says how much of `axis` is there: the value has room for the most
            there can be. Empty where the shape is the value's.
        axis: of which that is so.
    """

    name: str
    value: str
    count: str = ""
    axis: int = 0


def check_counts(outputs: Sequence[Output], types: Mapping[str, TensorType]) -> None:
    """Raise VerifyError unless what counts is an int64 scalar and what is counted has the axis; `types` are the values'."""
    counts = {o.name: types[o.value] for o in outputs if not o.count}
    for output in outputs:
        if not output.count:
            continue
        if counts.get(output.count) != TensorType((), "int64"):
            raise VerifyError(
                f"output '{output.name}' must be counted by an output of type i64[]; got '{output.count}'."
            )
        rank = types[output.value].rank
        if not 0 <= output.axis < rank:
            raise VerifyError(
                f"output '{output.name}' must be counted along an axis in [0, {rank}); got {output.axis}."
            )
