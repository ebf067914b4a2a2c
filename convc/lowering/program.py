"""Program: the calls of a compiled graph in order, each with its kernel and the memory it touches. Pure data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from convc.ir.types import Shape
from convc.schedules.layout import View
from convc.schedules.plan import Knobs

if TYPE_CHECKING:
    from tvm import tirx

__all__ = ["Argument", "Buffer", "Call", "Kernel", "Program"]

Space = Literal["input", "output", "weights", "arena"]


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that calls read and write.

    Attributes:
        name: unique in the program.
        space: whose memory it is.
        nbytes: its size.
        index: which input or output.
    """

    name: str
    space: Space
    nbytes: int
    index: int = 0


@dataclass(frozen=True, slots=True)
class Argument:
    """A view into a buffer."""

    buffer: Buffer
    view: View


@dataclass(frozen=True, slots=True)
class Kernel:
    """Code for one shape of work. Kernels with one key are the same code and are made once.

    Attributes:
        key: everything that the code depends on.
        symbol: name in the library.
        make: returns the scheduled PrimFunc, parameters in the order of the call's arguments.
    """

    key: str
    symbol: str
    make: Callable[[], tirx.PrimFunc] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel call and what reports say about it.

    `otherwise` are the calls in its place where it is a library's and that refuses it on a device: its kernel then returns 1.
    """

    kernel: Kernel
    arguments: tuple[Argument, ...]
    node: str
    op: str
    algorithm: str = ""
    reason: str = ""
    knobs: Knobs = field(default_factory=dict)
    spec: str = ""
    flops: int = 0
    otherwise: tuple[Call, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all arguments, each counted once."""
        return sum(
            int(np.prod(a.view.shape)) * np.dtype(_storage(a.view.dtype)).itemsize
            for a in self.arguments
        )


def _storage(dtype: str) -> str:
    return "uint16" if dtype == "bfloat16" else dtype


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled graph before code generation.

    Attributes:
        name: the graph's.
        inputs, outputs: (name, shape, dtype), in order.
        calls: in order.
        weights: packed constants by buffer name, in the order they lie in the blob.
        counts: output -> (the output that counts it, the axis).
    """

    name: str
    inputs: tuple[tuple[str, Shape, str], ...]
    outputs: tuple[tuple[str, Shape, str], ...]
    calls: tuple[Call, ...]
    weights: Mapping[str, np.ndarray]
    counts: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Every kernel once, by its symbol."""
        every = (c for call in self.calls for c in (call, *call.otherwise))
        return {c.kernel.symbol: c.kernel for c in every}
