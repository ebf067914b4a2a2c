"""Layers that one kernel computes (see `bottleneck`) as the tuner sees them: strips and tiles to choose, all weights from memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from convc.errors import UnsupportedConvError
from convc.ir.epilogue import apply_epilogue
from convc.ir.ops.conv import convolve
from convc.ir.types import numpy_dtype
from convc.lowering.kernels import bottleneck_kernel
from convc.lowering.stored import narrowed, widened
from convc.schedules import bottleneck, bottleneck_model
from convc.schedules.backend import backend_of
from convc.schedules.bottleneck import Bottleneck
from convc.schedules.chains import NAME
from convc.schedules.layout import Layout
from convc.schedules.plan import Knobs
from convc.schedules.policy import Policy
from convc.schedules.properties import direct_error
from convc.target import Target
from convc.tuning.setting import Setting
from convc.tuning.subjects.subject import Expected, Ready, blocked_vector, in_blocks, shaped

__all__ = ["ChainCase", "LayerChain"]


@dataclass(frozen=True)
class LayerChain:
    """Two or three layers, of which one is depthwise; see `Subject`."""

    problem: Bottleneck

    @property
    def key(self) -> str:
        return self.problem.key

    @property
    def flops(self) -> int:
        return self.problem.flops

    @property
    def nbytes(self) -> int:
        first, *_, last = (layer.spec for layer in self.problem.layers)
        weights = sum(math.prod(layer.spec.weight) for layer in self.problem.layers)
        width = numpy_dtype(self.dtype).itemsize
        return width * (math.prod(first.data) + math.prod(last.output) + weights)

    @property
    def dtype(self) -> str:
        return self.problem.depthwise.stored_spec.dtype

    def settings(self, target: Target, policy: Policy) -> list[Setting]:
        """Return every setting that a policy allows, the fastest by estimate first."""
        if not policy.allows(NAME):
            return []
        limit, backend = policy.workspace_limit, backend_of(target)
        error = sum(map(direct_error, self.problem.layers))
        found = []
        for knobs in bottleneck_model.space(self.problem, target):
            if limit is not None and bottleneck_model.workspace(self.problem, knobs) > limit:
                continue
            cycles = bottleneck_model.cycles(self.problem, target, knobs)
            found.append(Setting(NAME, knobs, backend.seconds(cycles, target), self.flops, error))
        return sorted(found, key=lambda s: s.seconds)

    def case(self, seed: int) -> ChainCase:
        return ChainCase(self.problem, seed)


class ChainCase:
    """Normal data, weights and epilogue operands of a seed, and the last layer's result in float64."""

    def __init__(self, problem: Bottleneck, seed: int = 0) -> None:
        self.problem, rng = problem, np.random.default_rng(seed)
        self.stored = problem.depthwise.stored
        dtype = numpy_dtype(problem.depthwise.stored_spec.dtype)

        def normal(shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
            return (scale * rng.standard_normal(shape)).astype(np.float32).astype(dtype)

        self.data = normal(problem.layers[0].spec.data)
        self.weights, self.extras = [], []
        y = self.data.astype(np.float64)
        for layer in problem.layers:
            spec = layer.spec
            # Values of one size from layer to layer, as normalised networks have them.
            self.weights.append(normal(spec.weight, 1 / math.sqrt(math.prod(spec.weight[1:]))))
            own = [
                normal((spec.out_channels,) if step.name == "bias" else spec.output)
                for step in layer.epilogue
                if step.takes_operand
            ]
            self.extras.append(own)
            y = convolve(y, self.weights[-1].astype(np.float64), spec)
            wide = [extra.astype(np.float64) for extra in own]
            y = apply_epilogue(y, layer.epilogue, wide, channel_axis=1)
        self.expected = Expected(y, problem.depthwise.stored_spec.dtype)

    def ready(self, target: Target, algorithm: str, knobs: Knobs) -> Ready:
        """Return the kernel and its arguments.

        Raises:
            UnsupportedConvError: if `algorithm` is not the one that takes several layers.
        """
        if algorithm != NAME:
            raise UnsupportedConvError(
                f"algorithm for {self.problem.key} must be '{NAME}'; got '{algorithm}'."
            )
        by_threads = backend_of(target).threads(
            lambda t: bottleneck_model.cycles(self.problem, t, knobs), target
        )
        used = {**knobs, **by_threads}
        wants = bottleneck.operands(self.problem, used)
        arrays = [in_blocks(self.data, wants.data.block, wants.border)]
        packed = bottleneck.pack([widened(w) for w in self.weights], self.problem, used)
        weights = []
        for layer, weight, extras in zip(self.problem.layers, packed, self.extras, strict=True):
            weights.append(len(arrays))
            arrays.append(narrowed(weight, self.stored))
            last = layer is self.problem.layers[-1]
            block = wants.result.block if last else used["block"]
            arrays += [
                blocked_vector(e, block) if e.ndim == 1 else in_blocks(e, block) for e in extras
            ]
        shapes = [tuple(int(d) for d in t.shape) for t in bottleneck.compute(self.problem, used)]
        arrays.append(np.full(shapes[-1], np.nan, self.data.dtype))
        arrays = shaped(arrays, shapes)
        views = [Layout().view(s, a.dtype.name) for s, a in zip(shapes, arrays, strict=True)]
        kernel = bottleneck_kernel(self.problem, target, used, views)
        return Ready(kernel, arrays, tuple(weights), wants.result.block)

    def error(self, result: np.ndarray, block: int = 0) -> float:
        """Return greatest |error| / greatest |result| of a kernel's result; infinite if a value is missing."""
        return self.expected.error(result, block)
