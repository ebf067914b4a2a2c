"""A loaded module with a symbolic batch: any number of samples, on code for a few batch sizes.

    module(x) with 19 samples, code for 8 and 1:  8, 8, 1, 1, 1

A run is split into the sizes there are, the largest first. What is then fewer than the smallest one is filled up with repeats
of the last sample, whose results are dropped. Samples do not depend on each other (`ir.batch`), so the parts are the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tvm_ffi
from numpy.typing import NDArray

from convc.errors import InputError
from convc.runtime.library_plans import Preparation, together
from convc.runtime.manifest import ALIGNMENT, Manifest, Step
from convc.runtime.memory import Window, address_of
from convc.runtime.module import Module, NanPolicy
from convc.runtime.ports import ArrayLike
from convc.runtime.profile import StepTimes
from convc.runtime.threads import ThreadPool

__all__ = ["BatchedModule", "split"]


def split(samples: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (first sample, size) of the runs that together hold `samples`; only the last may have room left.

    Args:
        samples: how many there are.
        sizes: of the code, largest first.

    Example:
        >>> list(split(11, (8, 2))), list(split(0, (8, 2)))
        ([(0, 8), (8, 2), (10, 2)], [])
    """
    at = 0
    for size in sizes:
        while samples - at >= size:
            yield at, size
            at += size
    if at < samples:
        yield at, sizes[-1]


class BatchedModule(Module):
    """See the module's text; made by `load`."""

    def __init__(
        self,
        manifest: Manifest,
        parts: Mapping[int, Module],
        library: tvm_ffi.Module,
        entry: tvm_ffi.Function,
        weights: Window,
        pool: ThreadPool,
        nan: NanPolicy,
    ) -> None:
        super().__init__(manifest, library, entry, weights, pool, nan)
        self._parts = dict(parts)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The numbers of samples that there is code for, largest first."""
        return tuple(self._parts)

    @property
    def preparation(self) -> Preparation | None:
        """Of all sizes together."""
        made = [p for p in (part.preparation for part in self._parts.values()) if p is not None]
        return together(made)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Of the largest size, see `Module.steps`."""
        return self._parts[self.batch_sizes[0]].steps

    def profile(self, inputs: Mapping[str, ArrayLike], repeats: int = 10) -> tuple[StepTimes, ...]:
        """Return how long each step takes; see `Module.profile`.

        Args:
            inputs: every input, by name, of a number of samples that there is code for.
            repeats: as there.

        Raises:
            InputError: as there, or for another number of samples, which is several runs.
        """
        samples = self._samples(self._in_order(inputs))
        if samples not in self._parts:
            sizes = ", ".join(map(str, self._parts))
            raise InputError(f"profile must have one of the batch sizes {sizes}; got {samples}.")
        return self._parts[samples].profile({**self.params, **inputs}, repeats)

    def _samples(self, arrays: Sequence[ArrayLike]) -> int:
        keep: list[object] = []
        counts = {
            port.name: port.array(value, keep).shape[0]
            for port, value in zip(self._inputs, arrays, strict=True)
            if port.rows
        }
        if len(set(counts.values())) > 1:
            found = ", ".join(f"'{name}' {count}" for name, count in counts.items())
            raise InputError(f"inputs must have one number of samples; got {found}.")
        return next(iter(counts.values()))

    def _run(self, arrays: Sequence[ArrayLike], targets: list[NDArray]) -> list[NDArray]:
        keep: list[object] = []
        values = [port.array(v, keep) for port, v in zip(self._inputs, arrays, strict=True)]
        samples = self._samples(values)
        for at, size in split(samples, self.batch_sizes):
            count = min(size, samples - at)
            fed = [
                _filled(value[at : at + count], size) if port.rows else value
                for port, value in zip(self._inputs, values, strict=True)
            ]
            rows = [port.rows for port in self._outputs]
            views = [t[at * r : (at + count) * r] for t, r in zip(targets, rows, strict=True)]
            fits = [count == size and address_of(view) % ALIGNMENT == 0 for view in views]
            # A result that ends elsewhere, or begins between two cache lines, where no kernel may write, is copied.
            results = [
                view if whole else port.empty(size)
                for port, view, whole in zip(self._outputs, views, fits, strict=True)
            ]
            self._parts[size]._run(fed, results)
            for view, result, whole in zip(views, results, fits, strict=True):
                if not whole:
                    np.copyto(view, result[: len(view)])
        return targets


def _filled(samples: NDArray, size: int) -> NDArray:
    """Return the samples, and the last one again until there are `size`."""
    missing = size - len(samples)
    return np.concatenate([samples, samples[-1:].repeat(missing, 0)]) if missing else samples
