"""Weight gradients: what a way to compute one is, and what is known of a backend's. A new one is one file, one row and one schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Protocol

from tvm import te

from convc.errors import unknown_name
from convc.ir.ops.conv import accumulator
from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands
from convc.schedules.backend import backend_of
from convc.schedules.layout import Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import Properties, sum_error
from convc.schedules.weight_gradient_problem import WeightGradientProblem
from convc.target import Target

__all__ = [
    "PLAIN_LOOPS",
    "WeightGradient",
    "about_gradients",
    "gradient_properties",
    "gradient_seconds",
    "gradient_space",
    "refused",
    "weight_gradient_named",
]

# What is left where no row applies: the definition, on plain tensors.
PLAIN_LOOPS: Final = "plain"


class WeightGradient(Protocol):
    """A way to compute a weight gradient; the functions are of the forward convolution.

    One whose ON_REQUEST, what is said where nobody has asked for it, is not "" is a library's: a record chooses it, no estimate does.
    """

    @property
    def NAME(self) -> str: ...  # noqa: N802 (a module's constant)
    @property
    def ON_REQUEST(self) -> str: ...  # noqa: N802
    def supports(self, spec: ConvSpec, target: Target, /) -> Unsupported | None: ...
    def knobs(self, spec: ConvSpec, target: Target, /) -> Knobs: ...
    def knobs_within(
        self, spec: ConvSpec, target: Target, policy: Policy, /
    ) -> Knobs | Unsupported: ...
    def space(self, spec: ConvSpec, target: Target, /) -> Iterable[Knobs]: ...
    def operands(self, spec: ConvSpec, knobs: Knobs, /) -> Operands: ...
    def gradient_layout(self, knobs: Knobs, /) -> Layout: ...
    def properties(self, spec: ConvSpec, knobs: Knobs, /) -> Properties: ...
    def cycles(self, spec: ConvSpec, target: Target, knobs: Knobs, /) -> float: ...
    def compute(self, spec: ConvSpec, knobs: Knobs, /) -> list[te.Tensor]: ...


def weight_gradient_named(name: str, target: Target) -> WeightGradient:
    """Return the target's row called `name`, or raise UnknownNameError."""
    rows = backend_of(target).weight_gradients
    for row in rows:
        if name == row.NAME:
            return row
    raise unknown_name("weight gradient", name, [*(r.NAME for r in rows), PLAIN_LOOPS])


def refused(
    row: WeightGradient, problem: WeightGradientProblem, target: Target
) -> Unsupported | None:
    """Return why a row does not compute a problem, or None."""
    refusal, usual = row.supports(problem.spec, target), accumulator(problem.spec.dtype)
    if problem.accumulate not in ("", usual):
        return Unsupported(f"accumulate must be {usual}; got {problem.accumulate}")
    return refusal


def gradient_space(row: WeightGradient, spec: ConvSpec, target: Target) -> tuple[Knobs, ...]:
    """Return the settings of a row that applies, the analytic choice first and each once; as `knob_space`."""
    settings = (row.knobs(spec, target), *row.space(spec, target))
    return tuple({tuple(sorted(knobs.items())): knobs for knobs in settings}.values())


def gradient_properties(name: str, spec: ConvSpec, knobs: Knobs, target: Target) -> Properties:
    """Return the properties of a setting of a row, or of plain loops: one chain of all terms, as the definition reads."""
    if name == PLAIN_LOOPS:
        return Properties(spec.flops, 0, sum_error(_terms(spec)))
    return weight_gradient_named(name, target).properties(spec, knobs)


def gradient_seconds(name: str, spec: ConvSpec, knobs: Knobs, target: Target) -> float:
    """Return the cost model's seconds of a setting of a row, or of plain loops."""
    backend = backend_of(target)
    if name == PLAIN_LOOPS:
        results, rounded = math.prod(spec.weight), accumulator(spec.dtype) != spec.dtype
        cycles = backend.sum_cycles(results, _terms(spec), spec.nbytes, target, rounded=rounded)
    else:
        cycles = weight_gradient_named(name, target).cycles(spec, target, knobs)
    return backend.seconds(cycles, target)


def _terms(spec: ConvSpec) -> int:
    return spec.data[0] * math.prod(spec.output[2:])


def about_gradients(policy: Policy, target: Target) -> Policy:
    """Return the policy as weight gradients see it: a list of what to include that names no row is about convolutions."""
    if any(row.NAME in policy.include for row in backend_of(target).weight_gradients):
        return policy
    return replace(policy, include=())
