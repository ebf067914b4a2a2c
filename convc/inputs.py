"""Arrays to feed a module with: random, ones or zeros, aligned so that the runtime passes them without a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import numpy as np

from convc.errors import unknown_name
from convc.ir.types import FLOATS, Shape, numpy_dtype
from convc.runtime.memory import aligned_empty

__all__ = ["FILLS", "ArraySignature", "fill", "random_inputs"]


class ArraySignature(Protocol):
    """What is known of an input or output: a row of a module's manifest, or anything like it."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> Shape: ...

    @property
    def dtype(self) -> str: ...


def _random(shape: Shape, dtype: str, generator: np.random.Generator) -> np.ndarray:
    """Standard normal floats; integers over the type's range, at most [-128, 127] or [0, 255] (exact in every float)."""
    if dtype in FLOATS:
        return generator.standard_normal(shape)
    if dtype == "bool":
        return generator.integers(0, 2, shape)
    low, high = (0, 255) if dtype.startswith("u") else (-128, 127)
    return generator.integers(low, high + 1, shape)


FILLS: Final[Mapping[str, Callable[[Shape, str, np.random.Generator], np.ndarray]]] = {
    "random": _random,
    "ones": lambda shape, dtype, generator: np.ones(shape),
    "zeros": lambda shape, dtype, generator: np.zeros(shape),
}


def fill(how: str, shape: Shape, dtype: str, generator: np.random.Generator) -> np.ndarray:
    """Return an aligned array of `shape` filled as one of FILLS says.

    Raises:
        UnknownNameError: if there is no such filling.

    Example:
        >>> fill("ones", (2,), "int8", np.random.default_rng(0))
        array([1, 1], dtype=int8)
    """
    if how not in FILLS:
        raise unknown_name("input filling", how, FILLS)
    array = aligned_empty(tuple(shape), numpy_dtype(dtype))
    array[...] = FILLS[how](tuple(shape), dtype, generator)
    return array


def random_inputs(signatures: Iterable[ArraySignature], seed: int = 0) -> dict[str, np.ndarray]:
    """Return one random array per input; the same seed gives the same arrays on every machine."""
    generator = np.random.default_rng(seed)
    return {s.name: fill("random", tuple(s.shape), s.dtype, generator) for s in signatures}
