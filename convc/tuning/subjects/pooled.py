"""A convolution and the pool behind it as the tuner sees them: one kernel in strips, or the two one behind the other in one function.

Both are settings of one problem, so that records say which is faster where they were measured. `strip` 0 is the latter: the whole
result of the convolution, then the pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from convc.errors import UnsupportedConvError
from convc.ir.ops import OPS
from convc.ir.ops.pool import MaxPoolAttributes
from convc.ir.types import numpy_dtype
from convc.lowering.pooled_step import pooled_kernel
from convc.lowering.stored import narrowed, widened
from convc.schedules import pooled, pooled_model
from convc.schedules.backend import backend_of
from convc.schedules.layout import Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.pooled import NAME, Pooled
from convc.schedules.pooled_choice import best_setting
from convc.target import Target
from convc.tuning.setting import Setting
from convc.tuning.subjects.convolution import Convolution, ConvolutionCase
from convc.tuning.subjects.subject import Expected, Ready, blocked_vector, in_blocks, shaped

__all__ = ["PooledCase", "PooledConvolution"]

# Settings of the convolution alone that are tried with a pool, the fastest by estimate of each algorithm; as many of those that are
# expected to be accurate enough as of the others: the eight fastest of 64 channels at 224 x 224 on Zen 4 are all F(6, 3), which are not.
_MOST: Final = 8


@dataclass(frozen=True)
class PooledConvolution:
    """A convolution and its pool; see `Subject`."""

    problem: Pooled

    @property
    def key(self) -> str:
        return self.problem.key

    @property
    def flops(self) -> int:
        return self.problem.layer.spec.flops

    @property
    def nbytes(self) -> int:
        spec = self.problem.layer.spec
        numbers = math.prod(spec.data) + math.prod(spec.weight) + math.prod(self.problem.result)
        return numbers * numpy_dtype(self.dtype).itemsize

    @property
    def dtype(self) -> str:
        return self.problem.layer.stored_spec.dtype

    def settings(self, target: Target, policy: Policy) -> list[Setting]:
        """Return settings that a policy allows, the fastest by estimate first: of each, strips by the model, and both apart."""
        if not policy.allows(NAME):
            return []
        posed, backend = self.problem, backend_of(target)
        # The expected error is a model's: what is near the limit is measured, as of the convolution alone.
        limits = replace(policy, max_error=2 * policy.record_error)
        found: dict[object, Setting] = {}
        layer = replace(posed.layer, spec=posed.layer.stored_spec, stored="")
        tried: dict[tuple[str, bool], int] = {}
        for row in Convolution(layer).settings(target, policy):
            algorithm = backend.algorithm(row.algorithm)
            if pooled_model.supports(posed, algorithm) is not None:
                continue
            kind = (row.algorithm, row.error <= policy.record_error)
            tried[kind] = count = tried.get(kind, 0) + 1
            if count > _MOST:
                continue
            best = best_setting(posed, algorithm, row.knobs, target, limits, others=count == 1)
            apart = pooled_model.cycles_apart(posed, algorithm, target, row.knobs)
            options = [
                ({**row.knobs, "strip": 0}, apart),
                *([] if isinstance(best, Unsupported) else [best]),
            ]
            for knobs, cycles in options:
                facts = pooled_model.properties(posed, algorithm, target, knobs)
                seconds = backend.seconds(cycles, target)
                setting = Setting(row.algorithm, knobs, seconds, facts.flops, facts.error)
                found.setdefault(setting.key, setting)
        return sorted(found.values(), key=lambda s: s.seconds)

    def case(self, seed: int) -> PooledCase:
        return PooledCase(self.problem, seed)


class PooledCase:
    """Normal data, weights and epilogue operands of a seed, and the pool's result in float64."""

    def __init__(self, problem: Pooled, seed: int = 0) -> None:
        self.problem = problem
        layer = replace(problem.layer, spec=problem.layer.stored_spec, stored="")
        self.before = ConvolutionCase(layer, seed)
        op = "max_pool" if isinstance(problem.window, MaxPoolAttributes) else "average_pool"
        result = OPS[op].reference([self.before.expected.result], problem.window)
        self.expected = Expected(result, layer.spec.dtype)

    def ready(self, target: Target, algorithm: str, knobs: Knobs) -> Ready:
        """Return a setting's kernel and arguments.

        Raises:
            UnsupportedConvError: if the algorithm does not take them.
        """
        posed, backend, before = self.problem, backend_of(target), self.before
        row = backend.algorithm(algorithm)
        refusal = pooled_model.supports(posed, row)
        if refusal is not None:
            raise UnsupportedConvError(f"algorithm '{algorithm}' must take {posed.key}; got: {refusal.reason}.")  # fmt: skip
        by_threads = backend.threads(lambda t: pooled_model.cycles(posed, row, t, knobs), target)
        used = {**knobs, **by_threads}
        wants, problem = pooled.operands(posed, row, target, used), pooled.padded(posed, used)
        block, around = wants.result.block, pooled.residual_border(posed, used)
        data = in_blocks(before.data, wants.data.block, wants.border)
        arrays = [np.ascontiguousarray(data).view(np.int32) if used.get("pairs") else data]
        weight = widened(before.weight) if problem.stored else before.weight
        arrays.append(narrowed(row.pack(weight, problem, used), problem.stored))
        arrays += [
            blocked_vector(e, block) if e.ndim == 1 else in_blocks(e, block, around)
            for e in before.extras
        ]
        shapes = [tuple(int(d) for d in t.shape) for t in pooled.compute(posed, row, target, used)]
        arrays.append(np.full(shapes[-1], np.nan, numpy_dtype(before.problem.spec.dtype)))
        arrays = shaped(arrays, shapes)
        views = [Layout().view(s, a.dtype.name) for s, a in zip(shapes, arrays, strict=True)]
        kernel = pooled_kernel(posed, row, target, used, views)
        return Ready(kernel, arrays, (1,), block)

    def error(self, result: np.ndarray, block: int = 0) -> float:
        """Return greatest |error| / greatest |result| of a kernel's result; infinite if a value is missing."""
        return self.expected.error(result, block)
