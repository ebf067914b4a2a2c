"""What the tuner asks of whatever it tunes, and the parts that the kinds share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from convc.lowering.program import Kernel
from convc.schedules.error_bound import result_rounding
from convc.schedules.layout import Halo
from convc.schedules.library_algorithm import Settles
from convc.schedules.plan import Knobs
from convc.schedules.policy import Policy
from convc.target import Target
from convc.tuning.setting import Setting

__all__ = ["Case", "Expected", "Ready", "Subject", "blocked_vector", "in_blocks", "shaped"]


@dataclass(frozen=True, slots=True)
class Ready:
    """A setting's kernel with the arguments to check and time it on.

    Attributes:
        kernel: what is built.
        arrays: its arguments in order, compact and of its parameters' shapes; the last is the result, NaN everywhere.
        weights: the positions of those that a network reads from memory.
        block: of the result's channels; 0 is plain.
        settles: who can be asked what a library decided, with the problem and the knobs; None where there is no library.
    """

    kernel: Kernel
    arrays: list[np.ndarray]
    weights: tuple[int, ...]
    block: int
    settles: tuple[Settles[Any], Any, Knobs] | None = None


class Case(Protocol):
    """The data of one problem: what candidates are fed and what all of them must compute."""

    def ready(self, target: Target, algorithm: str, knobs: Knobs) -> Ready:
        """Return a setting's kernel and arguments.

        Raises:
            UnsupportedConvError: if the algorithm does not take the problem.
        """
        ...

    def error(self, result: np.ndarray, block: int = 0) -> float:
        """Return greatest |error| / greatest |result| of a kernel's result; infinite if a value is missing."""
        ...


class Subject(Protocol):
    """A problem as the tuner sees it."""

    @property
    def key(self) -> str:
        """Canonical name, the workload of records."""
        ...

    @property
    def flops(self) -> int:
        """Of the direct method."""
        ...

    @property
    def nbytes(self) -> int:
        """Of data, weights and result."""
        ...

    @property
    def dtype(self) -> str: ...

    def settings(self, target: Target, policy: Policy) -> list[Setting]:
        """Return every setting that a policy allows, the fastest by estimate first."""
        ...

    def case(self, seed: int) -> Case:
        """Return data of a seed."""
        ...


class Expected:
    """A result in float64, to be compared with."""

    def __init__(self, result: np.ndarray, dtype: str) -> None:
        self.result, self.dtype = result, dtype
        self._greatest = float(np.abs(result).max(initial=0.0)) or 1.0

    def error(self, result: np.ndarray, block: int = 0) -> float:
        """Return greatest |error| / greatest |result| of a kernel's result; infinite if a value is missing.

        The last rounding, to a half-width type, is the type's and not the kernel's: an error within it counts as none.
        """
        n, k, *extents = self.result.shape
        if block:
            y = result.reshape(n, -(-k // block), *extents, block)
            y = np.moveaxis(y, -1, 2).reshape(n, -1, *extents)[:, :k]
        else:
            y = result.reshape(self.result.shape)
        rounding = result_rounding(self.dtype) * np.abs(self.result)
        error = np.maximum(np.abs(y.astype(np.float64) - self.result) - rounding, 0.0)
        worst = float(error.max(initial=0.0))
        return worst / self._greatest if np.isfinite(worst) else float("inf")


def in_blocks(array: np.ndarray, block: int, border: Halo | None = None) -> np.ndarray:
    """Return (N, C, spatial...) as (N, C/block, spatial + border..., block), zeros around and beyond the last channel."""
    if not block:
        return array
    border = border or Halo()
    n, c, *extents = array.shape
    rank, groups = len(extents), -(-c // block)
    around = list(zip(border.begins(rank), border.ends(rank), strict=True))
    padded = np.pad(array, [(0, 0), (0, groups * block - c), *around])
    split = padded.reshape(n, groups, block, *padded.shape[2:])
    return np.moveaxis(split, 2, -1)


def blocked_vector(vector: np.ndarray, block: int) -> np.ndarray:
    """Return one value a channel, zeros beyond the last channel up to whole blocks."""
    if not block:
        return vector
    padded = np.zeros(-(-len(vector) // block) * block, vector.dtype)
    padded[: len(vector)] = vector
    return padded


def shaped(arrays: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Return the arrays compact and of these shapes."""
    return [np.ascontiguousarray(a).reshape(s) for a, s in zip(arrays, shapes, strict=True)]
