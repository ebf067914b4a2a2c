"""Weight gradient of a convolution as a call of cuDNN, on CUDA devices; convc's own unless a record has it or somebody asks for it.

THE ALGORITHM   cuDNN's: CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER, of the engine that heuristics rank first or a record names
WHEN            1-D, 2-D, 3-D, any stride, dilation and group, the same padding at both ends; channels first
COST            as `cudnn`
ACCURACY        as `cudnn`; a fast engine is often one that adds up in whatever order threads come (`deterministic` leaves those out)
SOURCE          NVIDIA cuDNN 9 graph API, cudnn_graph.h
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tvm import te

from convc.ir.spec import ConvSpec
from convc.runtime.libraries.cudnn import CALL, CALL_PLAN, POLICIES, Description
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.cuda import cudnn_settings
from convc.schedules.cuda.cudnn import ALGORITHM, schedule, settings_of
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.library_call import library_call
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import Properties, sum_error
from convc.target import Target

__all__ = ["NAME", "ON_REQUEST", "before", "compute", "cycles", "gradient_layout", "in_way", "is_setting", "knobs", "knobs_within", "operands", "properties", "question", "schedule", "searches", "settled", "space", "supports", "ways"]  # fmt: skip

NAME: Final = "cudnn"
ON_REQUEST: Final = "taken by a tuned record, a pin, or a policy that names it: a module with it needs cuDNN where it runs"

# Of the knobs of a convolution the one that a gradient does not have: its operands and its result are plain.
_LAST: Final = "channels_last"

# See `Ways` and `Settles`.
ways: Final = POLICIES
before: Final = {"engine": -1, "rank": 0, "transforms": 0, "compiles": 0}


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
    (found,) = _first({**cudnn_settings.usual(Problem(spec)), _LAST: 0})
    return found


def space(spec: ConvSpec, target: Target) -> Iterator[Knobs]:
    """Yield cuDNN's first choices, with transforms, deterministic ones, by shrinking workspaces."""
    return _first(*cudnn_settings.space(Problem(spec)))


def searches(spec: ConvSpec, target: Target, policy: Policy) -> Sequence[Knobs]:
    """Return cuDNN's own search in three widths, see `cudnn_settings.searches`."""
    return list(_first(*cudnn_settings.searches(Problem(spec), policy)))


def _first(*settings: Knobs) -> Iterator[Knobs]:
    """Yield a convolution's settings with channels first as a gradient's."""
    for setting in settings:
        if not setting[_LAST]:
            yield {name: value for name, value in setting.items() if name != _LAST}


def knobs_within(spec: ConvSpec, target: Target, policy: Policy) -> Knobs:
    """Return them as the policy bounds them: cuDNN itself looks for an engine that keeps to it."""
    found = dict(knobs(spec, target))
    if policy.deterministic:
        found["deterministic"] = 1
    if policy.workspace_limit is not None:
        found["workspace_mib"] = min(found["workspace_mib"], policy.workspace_limit >> 20)
    return found


def properties(spec: ConvSpec, knobs: Knobs) -> Properties:
    """Return what the knobs promise; how cuDNN splits a sum is not known, so the error is that of one chain."""
    return cudnn_settings.promised(
        spec, knobs, sum_error(spec.data[0] * math.prod(spec.output[2:]))
    )


def in_way(knobs: Knobs, way: str) -> Knobs:
    """Return the knobs with one of cuDNN's or Theano's names for how to choose, as of a convolution."""
    return ALGORITHM.in_way(knobs, way)


def settled(knobs: Knobs, words: str) -> Knobs:
    """Return the knobs that name the engine which cuDNN has taken, as of a convolution."""
    return ALGORITHM.settled(knobs, words)


def is_setting(name: str) -> bool:
    """Whether the knob is a setting of an engine."""
    return ALGORITHM.is_setting(name)


def question(spec: ConvSpec, knobs: Knobs, arguments: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return the shim's function that says which engine a call takes, the call's description and its tensors."""
    return CALL_PLAN.removeprefix("__tvm_ffi_"), [str(_description(spec, knobs)), *arguments]


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return the roofline's clocks: as many products as forward."""
    problem = Problem(spec)
    return ALGORITHM.cycles(problem, target, {**ALGORITHM.knobs(problem, target), **knobs})


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
    text = str(_description(spec, knobs))
    return [x, dy, library_call(CALL, text, [x, dy], spec.weight, spec.dtype)]


def _description(spec: ConvSpec, knobs: Knobs) -> Description:
    return Description(
        "weight_gradient",
        spec.strides,
        spec.pads[: spec.rank],
        spec.dilations,
        policy=POLICIES[knobs["policy"]],
        rank=knobs["rank"],
        strict=bool(knobs["strict"]),
        transforms=bool(knobs["transforms"]),
        compiles=bool(knobs["compiles"]),
        deterministic=bool(knobs["deterministic"]),
        workspace=knobs["workspace_mib"] << 20,
        engine=None if knobs["engine"] < 0 else knobs["engine"],
        knobs=settings_of(knobs),
        spec=f"weight gradient of {spec.key}",
    )
