"""CUTLASS as one candidate among convc's own algorithms: its templates, compiled by nvcc into the module, which needs nothing of it to run.

THE ALGORITHM   implicit GEMM: M = points of the result, N = filters, K = taps and channels
                hopper: patches copied by TMA, multiplied by wgmma; of one tap, a matrix product, cooperative or pingpong
                ampere: patches gathered by cp.async, multiplied by mma.sync; sm 80 and later, all devices named by --sm
WHEN            float16 and bfloat16 with float32 sums, 1-D to 3-D, any stride, dilation and pads; no groups, not transposed
                weights of run time: a kernel of ours packs them before, see `packings`
                few tiles: the sum is split, parts in float32 are added up by a kernel of ours with the epilogue
COST            one launch, two and the parts' bytes where the sum is split
                up to a minute of nvcc for each kernel that this machine has not compiled before
ACCURACY        as `tensor_core`
SOURCE          NVIDIA CUTLASS 4 (BSD): conv/collective/collective_builder.hpp, gemm/collective/collective_builder.hpp,
                conv/kernel/default_conv2d_fprop_with_broadcast.h

Channels last is one block of all channels, filled up to whole eights: (N, 1, H, W, C). Layers in a row that have it hand each other no
copies, cuDNN's among them where channels are whole eights.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from tvm import te, tirx

from convc.errors import ToolchainError
from convc.ir.epilogue import Step
from convc.ir.types import HALVES
from convc.runtime.libraries.cutlass import CALL, FORMS, Description, require_cutlass
from convc.schedules import packing
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.cuda.behind_call import schedule_behind
from convc.schedules.cuda.compiler import LIBRARY
from convc.schedules.cuda.cutlass_objects import BIAS, KERNEL
from convc.schedules.cuda.cutlass_tiles import (
    EIGHT,
    eights,
    kernel_cycles,
    kernel_of,
    refusal,
    sums_bytes,
    tiles,
)
from convc.schedules.layout import Halo, Layout
from convc.schedules.library_call import library_call
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties, direct_error
from convc.schedules.rank import raised, raised_weight
from convc.target import Target

__all__ = ["ALGORITHM", "Cutlass", "schedule"]

_LAST_STEPS: Final = ("relu", "clip")


class Cutlass:
    """See the module's text."""

    name = "cutlass"
    by_record = True
    build_seconds = 300.0
    on_request = "taken by a tuned record, a pin, or a policy that names it: building it needs CUTLASS's headers and minutes of nvcc"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        if spec.dtype not in HALVES:
            return Unsupported(f"element type must be {' or '.join(HALVES)}; got {spec.dtype}")
        if problem.accumulator != "float32":
            return Unsupported(f"sums must be float32; got {problem.accumulator}")
        if spec.transposed:
            return Unsupported("convolution must not be transposed; got a transposed one")
        if spec.group > 1:
            return Unsupported(f"group must be 1; got {spec.group}")
        if 0 in (*spec.data, *spec.output):
            return Unsupported("data must not be empty")
        if (wrong := _outside(problem)) is not None:
            return wrong
        answers = [refusal(form, spec, target.gpu) for form in FORMS]
        return None if None in answers else answers[FORMS.index("ampere")]

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the setting that the model finds fastest."""
        return min(self.space(problem, target), key=lambda k: self.cycles(problem, target, k))

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield the kernels that fit, at most 18: each takes nvcc up to a minute."""
        yield from tiles(problem.spec, target.gpu)

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return clocks by data sheets, not fitted to what was measured."""
        return kernel_cycles(problem.spec, target.gpu, knobs)

    def remark(self, problem: Problem, target: Target, knobs: Knobs) -> str:
        """Return why a setting has Ampere's form where Hopper's could not be had, "" otherwise."""
        refused = refusal("hopper", problem.spec, target.gpu)
        if FORMS[knobs["form"]] != "ampere" or refused is None:
            return ""
        return f"by cp.async and mma.sync, not by TMA and wgmma: {refused.reason}"

    def missing(self) -> str:
        """Return what this machine lacks to build a module with it, "" if nothing."""
        try:
            require_cutlass()
        except ToolchainError as error:
            return str(error)
        return ""

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return the direct method's, and the bytes of a split sum and of weights packed at run time."""
        spec = problem.spec
        own = sums_bytes(spec, knobs) + packing.nbytes(self.name, problem, target, knobs)
        return Properties(spec.flops, own, direct_error(problem))

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return blocks of all channels."""
        spec = problem.spec
        return Operands(Layout(eights(spec.in_channels)), Halo(), Layout(eights(spec.out_channels)))  # fmt: skip

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return the weights as (K, taps..., C), zeros up to whole eights."""
        k, c, *taps = weight.shape
        padded = np.pad(weight, ((0, eights(k) - k), (0, eights(c) - c), *((0, 0) for _ in taps)))
        return np.ascontiguousarray(np.moveaxis(raised_weight(padded), 1, -1))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result: one call, and of a split sum what adds it up."""
        spec = raised(problem.spec)
        order = self.operands(problem, target, knobs)
        result = order.result.physical(spec.output)
        k, c, *taps = spec.weight
        x = te.placeholder(order.data.physical(spec.data), spec.dtype, name="data")
        w = te.placeholder((eights(k), *taps, eights(c)), spec.dtype, name="weight")
        extras = blocked_extras(problem, 1, result[-1], result)
        text = str(_description(problem, knobs))
        operands = [x, w, *extras]
        split = knobs["split"]
        if split == 1:
            return [*operands, library_call(CALL, text, operands, result, spec.dtype)]
        parts = library_call(CALL, text, [x, w], (split, *result), "float32")

        def sums(*i: Any) -> Any:
            # Written out: a reduction would be a kernel of its own before the epilogue's.
            return functools.reduce(operator.add, (parts(s, *i) for s in range(split)))

        return [*operands, blocked_result(te.compute(result, sums, name="sums"), problem, extras)]


def _outside(problem: Problem) -> Unsupported | None:
    """Return why the kernels' epilogue, sums + bias + residual in bounds, is not the problem's."""
    steps = problem.epilogue
    operands = [s.name for s in steps if s.takes_operand]
    ends = steps[len(operands) :]
    if (
        len(set(operands)) < len(operands)
        or [s.name for s in steps[: len(operands)]] != operands
        or len(ends) > 1
        or any(s.name not in _LAST_STEPS for s in ends)
    ):
        # A kernel of ours behind the call would round the sums twice.
        shown = ", ".join(map(str, steps))
        return Unsupported(f"epilogue must be at most one bias and one add, then relu or clip; got {shown}")  # fmt: skip
    if problem.spec.out_channels % EIGHT and any(not _keeps_zero(s) for s in ends):
        return Unsupported(
            f"clip must keep 0 where output channels are no multiple of {EIGHT}; got {', '.join(map(str, ends))} of {problem.spec.out_channels} channels"
        )
    return None


def _keeps_zero(step: Step) -> bool:
    """Whether channels beyond the last one stay zeros."""
    return step.name == "relu" or step.arguments[0] <= 0 <= step.arguments[1]


def _description(problem: Problem, knobs: Knobs) -> Description:
    # Blocks of a line are an image of height 1, see `View.raised`.
    spec = raised(problem.spec)
    return Description(
        kernel_of(spec.rank, spec.dtype, knobs).name,
        spec.pads[: spec.rank],
        spec.pads[spec.rank :],
        spec.strides,
        spec.dilations,
        steps=()
        if knobs["split"] > 1
        else tuple(":".join((s.name, *map(repr, s.arguments))) for s in problem.epilogue),
        slices=knobs["split"],
        spec=problem.key,
    )


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the call as it is, what follows it as one kernel; its attributes say which kernel of CUTLASS the build must make."""
    data = func.params[0]
    kernel = kernel_of(len(data.ty.shape) - 3, str(data.dtype), knobs)
    attributes: dict[str, Any] = {LIBRARY: "cutlass", KERNEL: kernel.name}
    for index, parameter in enumerate(func.params):
        if parameter.name == "bias" and not kernel.sums:
            attributes[BIAS] = index
    return schedule_behind(func, target).with_attr(attributes)


ALGORITHM = Cutlass()
