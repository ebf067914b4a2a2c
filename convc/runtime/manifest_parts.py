"""What manifests are made of: tensors, steps and their arguments, machines, areas."""

from __future__ import annotations

import math
from typing import TypeAlias

import msgspec

from convc.ir.types import numpy_dtype

__all__ = ["Area", "Argument", "Knob", "Open", "Resampling", "Step", "TargetInfo", "Tensor"]

Knob: TypeAlias = int | float | str | bool


class Tensor(msgspec.Struct, frozen=True):
    """A named input or output of the module; with a symbolic batch `shape` is that of the largest number of samples.

    `rows` is how many rows of the leading axis belong to one sample; 0 where it does not depend on the batch. `count` names an output, an
    int64 scalar, that says how much of `axis` is there after a run; empty where `shape` is the shape.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    rows: int = 0
    count: str = ""
    axis: int = 0

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * numpy_dtype(self.dtype).itemsize


class Argument(msgspec.Struct, frozen=True):
    """One argument of a step: a typed window into an input, an output, the weights or the arena.

    `offset` is in bytes; `strides` are in elements and empty for a compact window.
    """

    space: str
    shape: tuple[int, ...]
    dtype: str
    index: int = 0
    offset: int = 0
    strides: tuple[int, ...] = ()

    @property
    def extent(self) -> int:
        """Number of bytes from the window's first element to behind its last."""
        if 0 in self.shape:
            return 0
        itemsize = numpy_dtype(self.dtype).itemsize
        if not self.strides:
            return math.prod(self.shape) * itemsize
        steps = zip(self.shape, self.strides, strict=True)
        return (1 + sum((size - 1) * stride for size, stride in steps)) * itemsize


class Step(msgspec.Struct, frozen=True):
    """One kernel call, in the order of execution, and why it is this kernel.

    `otherwise` are the steps that run in its place where it is a library's and that refuses it on a device; it then returns 1.
    """

    symbol: str
    node: str
    op: str
    algorithm: str = ""
    reason: str = ""
    knobs: dict[str, Knob] = {}
    key: str = ""
    flops: int = 0
    nbytes: int = 0
    arguments: tuple[Argument, ...] = ()
    otherwise: tuple[Step, ...] = ()


class TargetInfo(msgspec.Struct, frozen=True):
    """The machine that the code was made for.

    `features` are LLVM's names of what the CPU's instructions need; `device` lists a device's code, "sm_90" or "ptx_80", and the CPU then
    only launches it. `options` are what else was asked of the device's code, as a target's words: "-fast-math", "-early=off".
    """

    kind: str
    triple: str
    mcpu: str
    features: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Open(msgspec.Struct, frozen=True):
    """What depends on height and width: valid rows and columns for each height and width of the inputs, from 1 on."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]


class Resampling(msgspec.Struct, frozen=True, kw_only=True):
    """Two inputs, `places` and `weights`, of which each height (axis 2) or width (axis 3) of the inputs has its own.

    `extents` and `results` are those of operand and result, from a height or width of 1 on; the rest is `convc.ir.resampling`'s rule.
    """

    places: str
    weights: str
    axis: int
    coordinate: str
    mode: str
    rounding: str
    cubic: float
    antialias: bool
    exclude_outside: bool
    scale: float
    extents: tuple[int, ...]
    results: tuple[int, ...]


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """The code of a module with an open height and width for areas up to one, see `convc.ir.area`.

    `inputs` are its function's; those that a caller does not give are filled for each size: `masks`, and places and weights of
    `resamplings`. `crops` are the outputs that have height and width.
    """

    height: int
    width: int
    entry: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    masks: dict[str, Open]
    crops: dict[str, Open]
    resamplings: tuple[Resampling, ...] = ()
    arena_bytes: int = 0
    workspace_bytes: int = 0
    steps: tuple[Step, ...] = ()

    @property
    def filled(self) -> frozenset[str]:
        """The inputs that no caller gives."""
        return frozenset(self.masks).union(*((r.places, r.weights) for r in self.resamplings))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width
