"""Moves of channels: results each of whose channels is a channel of some operand, in any order.

WHEN            concatenations and slices along channels, and what `merge_channel_moves` makes of shuffles
THE ALGORITHM   y[n, k, h, w] = x_operand(k)[n, channel(k), h, w]
LAYOUT          blocked, all alike; parts need not fill whole blocks. Where they do nothing is moved at all, see `lowering.places`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tvm import te, tirx

from convc.ir.channel_moves import Picks

__all__ = ["Run", "compute", "runs_of"]

# Shuffles of channels are of a few groups; the search for runs takes time with the square of this.
_LONGEST_STRIDE: Final = 64


@dataclass(frozen=True, slots=True)
class Run:
    """Channels `at`, `at + stride`, ... of the result, `count` of them, that are `begin`, `begin + step`, ... of one operand."""

    operand: int
    at: int
    stride: int
    begin: int
    step: int
    count: int


def runs_of(picks: Picks) -> tuple[Run, ...]:
    """Return picks as few runs, each as long as can be.

    Example:
        >>> runs_of(((0, 0), (1, 4), (0, 1), (1, 5)))
        (Run(operand=0, at=0, stride=2, begin=0, step=1, count=2), Run(operand=1, at=1, stride=2, begin=4, step=1, count=2))
    """
    left, runs = dict(enumerate(picks)), []
    while left:
        at = min(left)
        longest = max(
            (_run(left, at, s) for s in range(1, _LONGEST_STRIDE + 1)), key=lambda r: r.count
        )
        runs.append(longest)
        for i in range(longest.count):
            del left[at + i * longest.stride]
    return tuple(runs)


def _run(left: dict[int, tuple[int, int]], at: int, stride: int) -> Run:
    operand, begin = left[at]
    second = left.get(at + stride)
    if second is None or second[0] != operand:
        return Run(operand, at, stride, begin, 1, 1)
    step, count = second[1] - begin, 2
    while left.get(at + count * stride) == (operand, begin + count * step):
        count += 1
    return Run(operand, at, stride, begin, step, count)


def compute(tensors: Sequence[te.Tensor], picks: Picks, block: int) -> te.Tensor:
    """Return the result, blocked like the operands; channels beyond the last are zeros.

    Args:
        tensors: the operands, (N, ceil(C/b), ..., b), or (N, C, ...) for b = 0.
        picks: of every channel of the result.
        block: b.
    """
    dtype = tensors[0].dtype
    batch, _, *spatial = (int(d) for d in tensors[0].shape)
    runs = runs_of(picks)

    def element(n: Any, channel: Any, at: Sequence[Any]) -> Any:
        value: Any = tirx.const(0, dtype)
        for run in reversed(runs):
            behind = channel - run.at
            source = run.begin + behind // run.stride * run.step
            inside = [channel >= run.at, channel < run.at + run.count * run.stride]
            if run.stride > 1:
                inside.append(behind % run.stride == 0)
            x = tensors[run.operand]
            read = x(n, source // block, *at, source % block) if block else x(n, source, *at)
            value = tirx.if_then_else(tirx.all(*inside), read, value)
        return value

    if not block:
        shape = (batch, len(picks), *spatial)
        return te.compute(shape, lambda n, c, *at: element(n, c, at), name="channels")
    shape = (batch, -(-len(picks) // block), *spatial[:-1], block)
    return te.compute(
        shape, lambda n, cb, *at: element(n, cb * block + at[-1], at[:-1]), name="channels"
    )
