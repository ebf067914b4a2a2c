"""Weights that are known only at run time, in the order in which an algorithm's kernel reads them: a step before the convolution.

A backend has a row for each algorithm that takes such weights; without one an algorithm refuses them. A test holds every row against the
algorithm's own `pack`, which does the same to arrays when a model is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tvm import te, tirx

from convc.ir.types import Shape, numpy_dtype
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.plan import Knobs, Unsupported
from convc.target import Target

__all__ = ["PLAIN", "Packing", "Read", "compute", "cycles", "named", "nbytes", "refusal", "within"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27
# (k, c, taps) -> the weight there.
Read: TypeAlias = Callable[[Expr, Expr, Sequence[Expr]], Expr]


def _as_it_is(read: Read, problem: Problem, knobs: Knobs) -> None:
    return None


def _no_shape(problem: Problem, knobs: Knobs) -> None:
    return None


def _anything(problem: Problem) -> None:
    return None


def _nothing(problem: Problem, target: Target, knobs: Knobs) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Packing:
    """How one algorithm's weights are packed at run time.

    Attributes:
        compute: how the weight is read, the problem and its knobs -> the packed weight; None: it is read as it is.
        shape: its shape alone, which thousands of settings are asked for; None where `compute` returns None.
        cycles: what that takes, in the cycles of the algorithm's own estimate; 0 where `compute` returns None.
        refusal: why weights of this geometry are packed only when a model is compiled, or None.
    """

    compute: Callable[[Read, Problem, Knobs], te.Tensor | None]
    shape: Callable[[Problem, Knobs], Shape | None]
    cycles: Callable[[Problem, Target, Knobs], float]
    refusal: Callable[[Problem], Unsupported | None] = _anything


# Of an algorithm whose kernel reads weights as they are.
PLAIN: Final = Packing(_as_it_is, _no_shape, _nothing)


def refusal(algorithm: str, problem: Problem, target: Target) -> Unsupported | None:
    """Return why an algorithm cannot have the problem's weights at run time, or None."""
    row = backend_of(target).packings.get(algorithm)
    if row is None:
        return Unsupported("weights must be constant, to be packed at compile time")
    return row.refusal(problem)


def compute(
    algorithm: str, problem: Problem, target: Target, knobs: Knobs
) -> list[te.Tensor] | None:
    """Return the plain weight and the packed one, or None for an algorithm that reads it as it is."""
    spec = problem.spec
    shape = spec.weight
    if problem.dual:
        shape = (spec.in_channels, spec.out_channels // spec.group, *spec.kernel)
    w = te.placeholder(shape, spec.dtype, name="weight")
    packed = backend_of(target).packings[algorithm].compute(_reader(problem, w), problem, knobs)
    return None if packed is None else [w, packed]


def cycles(algorithm: str, problem: Problem, target: Target, knobs: Knobs) -> float:
    """Return what packing takes, of an algorithm that has it; 0 for constant weights and where they are read as they are."""
    if problem.constant_weight:
        return 0.0
    return backend_of(target).packings[algorithm].cycles(problem, target, knobs)


def nbytes(algorithm: str, problem: Problem, target: Target, knobs: Knobs) -> int:
    """Return what packed weights take beside the plain ones; 0 for constant weights and where they are read as they are."""
    row = backend_of(target).packings.get(algorithm)
    shape = None if problem.constant_weight or row is None else row.shape(problem, knobs)
    return 0 if shape is None else math.prod(shape) * numpy_dtype(problem.spec.dtype).itemsize


def _reader(problem: Problem, w: te.Tensor) -> Read:
    """Return how the weight of the problem, or of the transposed convolution that it is the dual of, is read."""
    spec = problem.spec
    group_k, group_c = spec.out_channels // spec.group, spec.in_channels // spec.group

    def read(k: Expr, c: Expr, taps: Sequence[Expr]) -> Expr:
        # Raised 1-D filters have an axis more, of one tap.
        at = taps[len(taps) - spec.rank :]
        if not problem.dual:
            return w(k, c, *at)
        flipped = [extent - 1 - r for extent, r in zip(spec.kernel, at, strict=True)]
        if spec.group == 1:
            return w(c, k, *flipped)
        return w(k // group_k * group_c + c, k % group_k, *flipped)

    return read


def within(conditions: Sequence[tuple[Expr, int, int]], value: Expr, dtype: str) -> Expr:
    """Return the value where each index is below its extent, else 0; the third number is one more than the greatest index."""
    needed = [index < extent for index, extent, end in conditions if end > extent]
    return (
        tirx.if_then_else(tirx.all(*needed), value, tirx.const(0, dtype)) if needed else value
    )  # fmt: skip


def named(problem: Problem, stage: str = "packed") -> str:
    """Return a stage's name: a schedule reads off it whether filters or channels are the weight's first axis."""
    return f"transposed_{stage}" if problem.dual or problem.spec.transposed else stage
