"""Time a module's steps one by one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tvm_ffi

from convc.errors import PackageError
from convc.runtime.manifest import Step
from convc.runtime.memory import Window, window

__all__ = ["StepTimes", "time_steps"]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """A step, how long it took each time, and when each began on `time.perf_counter`'s clock.

    Units:
        seconds
    """

    step: Step
    seconds: tuple[float, ...]
    starts: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def time_steps(
    steps: Sequence[Step],
    library: tvm_ffi.Module,
    addresses: Mapping[str, Sequence[int]],
    owner: object,
    repeats: int,
) -> tuple[StepTimes, ...]:
    """Return each step's times over `repeats` rounds; a round runs all steps in order.

    Args:
        steps: in the order of execution; their windows are checked already.
        library: exports each step's symbol.
        addresses: of the buffers, by space and index.
        owner: keeps those buffers alive.
        repeats: rounds that are timed, after one that is not.

    Raises:
        PackageError: if the library lacks a step's symbol.
    """
    calls = [(_function(library, step.symbol), _windows(step, addresses, owner)) for step in steps]
    tensors = [tuple(argument.tensor for argument in windows) for _, windows in calls]
    times: list[list[float]] = [[] for _ in steps]
    begun: list[list[float]] = [[] for _ in steps]
    for round_number in range(repeats + 1):
        for (function, _), arguments, seconds, starts in zip(
            calls, tensors, times, begun, strict=True
        ):
            start = time.perf_counter()
            function(*arguments)
            elapsed = time.perf_counter() - start
            if round_number:
                seconds.append(elapsed)
                starts.append(start)
    return tuple(
        StepTimes(step, tuple(seconds), tuple(starts))
        for step, seconds, starts in zip(steps, times, begun, strict=True)
    )


def _function(library: tvm_ffi.Module, symbol: str) -> tvm_ffi.Function:
    try:
        return library.get_function(symbol)
    except AttributeError:
        raise PackageError(f"module must export its step '{symbol}'; got no such symbol.") from None


def _windows(step: Step, addresses: Mapping[str, Sequence[int]], owner: object) -> list[Window]:
    return [
        window(
            owner,
            addresses[argument.space][argument.index] + argument.offset,
            argument.shape,
            argument.dtype,
            argument.strides,
        )
        for argument in step.arguments
    ]
