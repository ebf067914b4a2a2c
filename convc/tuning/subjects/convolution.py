"""A convolution as the tuner sees it: every algorithm's settings, and data laid out as each wants it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convc.errors import UnsupportedConvError
from convc.ir.epilogue import apply_epilogue
from convc.ir.ops.conv import convolve, convolve_transposed
from convc.ir.types import Shape, numpy_dtype
from convc.lowering.kernels import conv_kernel
from convc.lowering.stored import narrowed, widened
from convc.schedules.algorithm import Algorithm, Problem, knob_space
from convc.schedules.backend import backend_of
from convc.schedules.dual import dual_weight, posed
from convc.schedules.layout import Layout
from convc.schedules.library_algorithm import Settles
from convc.schedules.offers import estimated_seconds
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import breach, properties_of
from convc.target import Target
from convc.tuning.setting import Setting
from convc.tuning.subjects.subject import Expected, Ready, blocked_vector, in_blocks, shaped

__all__ = ["Convolution", "ConvolutionCase"]


@dataclass(frozen=True)
class Convolution:
    """One convolution with its epilogue; see `Subject`."""

    problem: Problem

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
        """Return every setting that a policy allows, the fastest by estimate first."""
        found = []
        for algorithm in backend_of(target).algorithms:
            answer = posed(self.problem, algorithm, target)
            if not policy.allows(algorithm.name) or isinstance(answer, Unsupported):
                continue
            searches = (
                algorithm.searches(answer, target, policy) if isinstance(algorithm, Settles) else ()
            )
            for knobs in (*searches, *knob_space(algorithm, answer, target)):
                always = knobs in searches
                facts = properties_of(algorithm, answer, target, knobs)
                # As of a record: its error is judged when it is measured.
                if breach(facts, policy, measured=True):
                    continue
                # The expected error is a model's, too: what is near the limit is measured.
                if not always and facts.error > 2 * policy.record_error:
                    continue
                seconds = estimated_seconds(algorithm, answer, target, knobs)
                found.append(
                    Setting(algorithm.name, knobs, seconds, facts.flops, facts.error, always)
                )
        return sorted(found, key=lambda s: s.seconds)

    def case(self, seed: int) -> ConvolutionCase:
        return ConvolutionCase(self.problem, seed)


class ConvolutionCase:
    """Normal data, weights and epilogue operands of a seed, and the result in float64.

    Example:
        >>> from convc.ir.spec import ConvSpec
        >>> case = ConvolutionCase(Problem(ConvSpec.of((1, 3, 6, 6), (4, 3, 3, 3))), seed=0)
        >>> case.expected.result.shape, case.error(case.expected.result.astype("float32")) < 1e-7
        ((1, 4, 4, 4), True)
    """

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        self.problem = problem
        spec, rng = problem.spec, np.random.default_rng(seed)
        dtype = numpy_dtype(spec.dtype)

        def normal(shape: Shape) -> np.ndarray:
            return rng.standard_normal(shape).astype(np.float32).astype(dtype)

        self.data, self.weight = normal(spec.data), normal(spec.weight)
        self.extras = [
            normal((spec.out_channels,) if step.name == "bias" else spec.output)
            for step in problem.epilogue
            if step.takes_operand
        ]
        function = convolve_transposed if spec.transposed else convolve
        y = function(self.data.astype(np.float64), self.weight.astype(np.float64), spec)
        wide = [extra.astype(np.float64) for extra in self.extras]
        self.expected = Expected(
            apply_epilogue(y, problem.epilogue, wide, channel_axis=1), spec.dtype
        )

    def ready(self, target: Target, algorithm: str, knobs: Knobs) -> Ready:
        """Return a setting's kernel and arguments.

        Raises:
            UnsupportedConvError: if the algorithm does not take the problem.
        """
        backend = backend_of(target)
        row = backend.algorithm(algorithm)
        problem = posed(self.problem, row, target)
        if isinstance(problem, Unsupported):
            raise UnsupportedConvError(
                f"algorithm '{algorithm}' must take {self.problem.key}; got: {problem.reason}."
            )
        used = {**knobs, **backend.threads(lambda t: row.cycles(problem, t, knobs), target)}
        shapes = [tuple(int(d) for d in t.shape) for t in row.compute(problem, target, used)]
        arrays = shaped(self._arguments(row, problem, target, used, shapes[-1]), shapes)
        views = [Layout().view(s, a.dtype.name) for s, a in zip(shapes, arrays, strict=True)]
        block = row.operands(problem, target, used).result.block
        settles = (row, problem, knobs) if isinstance(row, Settles) else None
        kernel = conv_kernel(row, problem, target, used, views)
        return Ready(kernel, arrays, (1,), block, settles)

    def _arguments(
        self, algorithm: Algorithm, problem: Problem, target: Target, knobs: Knobs, result: Shape
    ) -> list[np.ndarray]:
        """Return the kernel's arguments in order.

        `problem` is the case's as the kernel computes it: of float32, where data and result are stored in half the width; the
        convolution that a transposed one equals.
        """
        dtype = numpy_dtype(self.problem.spec.dtype)
        wants = algorithm.operands(problem, target, knobs)
        block = wants.result.block
        data = in_blocks(self.data, wants.data.block, wants.border)
        arrays = [np.ascontiguousarray(data).view(np.int32) if knobs.get("pairs") else data]
        weight = widened(self.weight) if problem.stored else self.weight
        weight = dual_weight(weight, problem.spec.group) if problem.dual else weight
        # Weights of run time are packed by a step before the kernel, to the same array.
        arrays.append(narrowed(algorithm.pack(weight, problem, knobs), problem.stored))
        extras = [
            blocked_vector(e, block) if e.ndim == 1 else in_blocks(e, block) for e in self.extras
        ]
        return [*arrays, *extras, np.full(result, np.nan, dtype)]

    def error(self, result: np.ndarray, block: int = 0) -> float:
        """Return greatest |error| / greatest |result| of a kernel's result; infinite if a value is missing."""
        return self.expected.error(result, block)
