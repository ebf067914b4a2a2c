"""Weight gradient of a convolution as a call of cuDNN, on CUDA devices; convc's own unless somebody asks for it.

THE ALGORITHM   cuDNN's: CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER, of the engine that its heuristics rank first
WHEN            1-D, 2-D, 3-D, any stride, dilation and group, the same padding at both ends
COST            as `cudnn`
ACCURACY        as `cudnn`; a fast engine is often one that adds up in whatever order threads come (`deterministic` leaves those out)
SOURCE          NVIDIA cuDNN 9 graph API, cudnn_graph.h
"""

from __future__ import annotations

from typing import Final

from tvm import te

from convc.ir.spec import ConvSpec
from convc.runtime.libraries.cudnn import CALL, POLICIES, Description
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.cuda.cudnn import ALGORITHM, schedule
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.library_call import library_call
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.target import Target

__all__ = ["NAME", "ON_REQUEST", "compute", "cycles", "gradient_layout", "in_way", "knobs", "knobs_within", "operands", "schedule", "supports", "ways", "workspace"]  # fmt: skip

NAME: Final = "cudnn"
ON_REQUEST: Final = (
    "taken by a pin, or a policy that names it: a module with it needs cuDNN where it runs"
)
# The knobs of a convolution that a gradient has: it searches nothing, and its result is plain.
_KNOBS: Final = ("policy", "strict", "deterministic", "workspace_mib")

# See `Ways`.
ways: Final = POLICIES


def supports(spec: ConvSpec, target: Target) -> Unsupported | None:
    """Return why cuDNN does not compute the weight gradient of the convolution, or None.

    Args:
        spec: the forward convolution.
        target: the machine.
    """
    if 0 in (*spec.data, *spec.output, *spec.weight):
        return Unsupported("data and weights must not be empty")
    return ALGORITHM.supports(Problem(spec), target)


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return cuDNN's heuristics among all engines that keep the element type's arithmetic."""
    own = ALGORITHM.knobs(Problem(spec), target)
    return {name: own[name] for name in _KNOBS}


def knobs_within(spec: ConvSpec, target: Target, policy: Policy) -> Knobs:
    """Return them as the policy bounds them: cuDNN itself looks for an engine that keeps to it."""
    found = dict(knobs(spec, target))
    if policy.deterministic:
        found["deterministic"] = 1
    if policy.workspace_limit is not None:
        found["workspace_mib"] = min(found["workspace_mib"], policy.workspace_limit >> 20)
    return found


def in_way(knobs: Knobs, way: str) -> Knobs:
    """Return the knobs with one of cuDNN's or Theano's names for how to choose."""
    return {**knobs, "policy": POLICIES.index(way)}


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return the roofline's clocks: as many products as forward."""
    problem = Problem(spec)
    return ALGORITHM.cycles(problem, target, {**ALGORITHM.knobs(problem, target), **knobs})


def workspace(spec: ConvSpec, knobs: Knobs) -> int:
    """Return the most bytes that cuDNN may take beside the operands."""
    return knobs["workspace_mib"] << 20


def operands(spec: ConvSpec, knobs: Knobs) -> Operands:
    """Return plain layouts."""
    return Operands(PLAIN, Halo(), PLAIN)


def gradient_layout(knobs: Knobs) -> Layout:
    """Return the plain layout."""
    return PLAIN


def compute(spec: ConvSpec, knobs: Knobs) -> list[te.Tensor]:
    """Return data, gradient of the result, gradient of the weights: one call."""
    x = te.placeholder(spec.data, spec.dtype, name="data")
    dy = te.placeholder(spec.output, spec.dtype, name="gradient")
    description = Description(
        "weight_gradient",
        spec.strides,
        spec.pads[: spec.rank],
        spec.dilations,
        policy=POLICIES[knobs["policy"]],
        strict=bool(knobs["strict"]),
        deterministic=bool(knobs["deterministic"]),
        workspace=knobs["workspace_mib"] << 20,
        spec=f"weight gradient of {spec.key}",
    )
    return [x, dy, library_call(CALL, str(description), [x, dy], spec.weight, spec.dtype)]
