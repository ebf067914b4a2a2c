"""A convolution's weight gradient as the tuner sees it: every row's settings and plain loops; data of the forward pass from memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convc.errors import UnsupportedConvError
from convc.ir import GraphBuilder, TensorType
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes, convolve_weight_grad
from convc.ir.types import Shape, numpy_dtype
from convc.lowering.kernels import unit_kernel, weight_gradient_kernel
from convc.lowering.partition import Unit
from convc.lowering.program import Kernel
from convc.schedules.backend import backend_of
from convc.schedules.layout import Layout, View
from convc.schedules.library_algorithm import Settles
from convc.schedules.plan import Knobs
from convc.schedules.policy import Policy
from convc.schedules.properties import breach
from convc.schedules.weight_gradient_problem import WeightGradientProblem
from convc.schedules.weight_gradients import (
    PLAIN_LOOPS,
    WeightGradient,
    about_gradients,
    gradient_properties,
    gradient_seconds,
    gradient_space,
    refused,
    weight_gradient_named,
)
from convc.target import Target
from convc.tuning.setting import Setting
from convc.tuning.subjects.subject import Expected, Ready, in_blocks, shaped

__all__ = ["GradientOfWeights", "WeightGradientCase"]


@dataclass(frozen=True)
class GradientOfWeights:
    """One weight gradient; see `Subject`."""

    problem: WeightGradientProblem

    @property
    def key(self) -> str:
        return self.problem.key

    @property
    def flops(self) -> int:
        return self.problem.spec.flops

    @property
    def nbytes(self) -> int:
        return self.problem.spec.nbytes

    @property
    def dtype(self) -> str:
        return self.problem.spec.dtype

    def settings(self, target: Target, policy: Policy) -> list[Setting]:
        """Return every setting that a policy allows, the fastest by estimate first; plain loops are always left."""
        policy, spec = about_gradients(policy, target), self.problem.spec
        found = [self._setting(PLAIN_LOOPS, {}, target)]
        for row in backend_of(target).weight_gradients:
            if not policy.allows(row.NAME) or refused(row, self.problem, target) is not None:
                continue
            searches = list(row.searches(spec, target, policy)) if isinstance(row, Settles) else []
            for knobs in (*searches, *gradient_space(row, spec, target)):
                facts = gradient_properties(row.NAME, spec, knobs, target)
                # As of a record: its error is judged when it is measured.
                if breach(facts, policy, measured=True):
                    continue
                # The expected error is a model's, too: what is near the limit is measured.
                always = knobs in searches
                if always or facts.error <= 2 * policy.record_error:
                    found.append(self._setting(row.NAME, knobs, target, always=always))
        return sorted(found, key=lambda s: s.seconds)

    def _setting(self, name: str, knobs: Knobs, target: Target, *, always: bool = False) -> Setting:
        spec = self.problem.spec
        facts = gradient_properties(name, spec, knobs, target)
        seconds = gradient_seconds(name, spec, knobs, target)
        return Setting(name, knobs, seconds, facts.flops, facts.error, always)

    def case(self, seed: int) -> WeightGradientCase:
        return WeightGradientCase(self.problem, seed)


class WeightGradientCase:
    """Normal data and gradients of the result of a seed, and the weight gradient in float64.

    Example:
        >>> from convc.ir.spec import ConvSpec
        >>> case = WeightGradientCase(WeightGradientProblem(ConvSpec.of((2, 3, 6, 6), (4, 3, 3, 3))), seed=0)
        >>> case.expected.result.shape, case.error(case.expected.result.astype("float32")) < 1e-7
        ((4, 3, 3, 3), True)
    """

    def __init__(self, problem: WeightGradientProblem, seed: int = 0) -> None:
        self.problem, spec = problem, problem.spec
        rng, dtype = np.random.default_rng(seed), numpy_dtype(spec.dtype)

        def normal(shape: Shape) -> np.ndarray:
            return rng.standard_normal(shape).astype(np.float32).astype(dtype)

        self.data, self.gradient = normal(spec.data), normal(spec.output)
        x, dy = (array.astype(np.float64) for array in (self.data, self.gradient))
        self.expected = Expected(convolve_weight_grad(x, dy, spec), spec.dtype)

    def ready(self, target: Target, algorithm: str, knobs: Knobs) -> Ready:
        """Return a setting's kernel and arguments.

        The data come from memory at every call, as what the forward pass left there does; the gradient was written just before.

        Raises:
            UnknownNameError: if the target has no such row.
            UnsupportedConvError: if it does not take the problem.
        """
        if algorithm == PLAIN_LOOPS:
            arrays = [self.data, self.gradient, self._result()]
            kernel = self._loops(target, [Layout().view(a.shape, a.dtype.name) for a in arrays])
            return Ready(kernel, arrays, (0,), 0)
        spec, backend = self.problem.spec, backend_of(target)
        row: WeightGradient = weight_gradient_named(algorithm, target)
        refusal = refused(row, self.problem, target)
        if refusal is not None:
            raise UnsupportedConvError(f"weight gradient '{algorithm}' must take {self.problem.key}; got: {refusal.reason}.")  # fmt: skip
        used = {**knobs, **backend.threads(lambda t: row.cycles(spec, t, knobs), target)}
        wants = row.operands(spec, used)
        arrays = [
            in_blocks(self.data, wants.data.block, wants.border),
            in_blocks(self.gradient, row.gradient_layout(used).block),
            self._result(),
        ]
        shapes = [tuple(int(d) for d in t.shape) for t in row.compute(spec, used)]
        arrays = shaped(arrays, shapes)
        views = [Layout().view(s, a.dtype.name) for s, a in zip(shapes, arrays, strict=True)]
        settles = (row, spec, knobs) if isinstance(row, Settles) else None
        return Ready(weight_gradient_kernel(row, spec, target, used, views), arrays, (0,), 0, settles)  # fmt: skip

    def _result(self) -> np.ndarray:
        spec = self.problem.spec
        return np.full(spec.weight, np.nan, numpy_dtype(spec.dtype))

    def _loops(self, target: Target, views: list[View]) -> Kernel:
        spec, builder = self.problem.spec, GraphBuilder("gradient")
        x, dy = (builder.input(n, TensorType(s, spec.dtype)) for n, s in (("x", spec.data), ("dy", spec.output)))  # fmt: skip
        attributes = ConvWeightGradAttributes(
            spec.kernel, spec.strides, spec.pads, spec.dilations, spec.group, self.problem.accumulate
        )  # fmt: skip
        graph = builder.finish({"dw": builder.add("conv_weight_grad", [x, dy], attributes, "dw")})
        return unit_kernel(graph, Unit((graph["dw"],)), 0, target, views, {})

    def error(self, result: np.ndarray, block: int = 0) -> float:
        """Return greatest |error| / greatest |result| of a kernel's result; infinite if a value is missing."""
        return self.expected.error(result, block)
