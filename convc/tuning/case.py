"""The data of one problem: what candidates are fed, laid out as each wants it, and what all of them must compute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convc.ir.epilogue import apply_epilogue
from convc.ir.ops.conv import convolve, convolve_transposed
from convc.ir.types import Shape, numpy_dtype
from convc.lowering.stored import narrowed, widened
from convc.schedules.algorithm import Algorithm, Operands, Problem
from convc.schedules.dual import dual_weight
from convc.schedules.error_bound import result_rounding
from convc.schedules.layout import Halo
from convc.schedules.packing import PACKINGS
from convc.schedules.plan import Knobs

__all__ = ["Case"]


class Case:
    """Normal data, weights and epilogue operands of a seed, and the result in float64.

    Example:
        >>> from convc.ir.spec import ConvSpec
        >>> case = Case(Problem(ConvSpec.of((1, 3, 6, 6), (4, 3, 3, 3))), seed=0)
        >>> case.expected.shape, case.error(case.expected.astype("float32")) < 1e-7
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
        self.expected = apply_epilogue(y, problem.epilogue, wide, channel_axis=1)
        self._greatest = float(np.abs(self.expected).max(initial=0.0)) or 1.0

    def arguments(
        self,
        algorithm: Algorithm,
        problem: Problem,
        wants: Operands,
        knobs: Knobs,
        shapes: Sequence[Shape],
    ) -> list[np.ndarray]:
        """Return the kernel's arguments in order, compact and of its parameters' shapes; the last is the result, NaN everywhere.

        `problem` is the case's as the kernel computes it: of float32, where data and result are stored in half the width; the
        convolution that a transposed one equals.
        """
        dtype = numpy_dtype(self.problem.spec.dtype)
        block = wants.result.block
        data = _blocked(self.data, wants.data.block, wants.border)
        arrays = [np.ascontiguousarray(data).view(np.int32) if knobs.get("pairs") else data]
        # Weights of run time are packed by a step before the kernel, to the same array.
        packed = problem.constant_weight or algorithm.name in PACKINGS
        weight = widened(self.weight) if problem.stored else self.weight
        weight = dual_weight(weight, problem.spec.group) if problem.dual else weight
        kept = narrowed(algorithm.pack(weight, problem, knobs), problem.stored)
        arrays.append(kept if packed else self.weight)
        for extra in self.extras:
            if extra.ndim == 1 and block:
                padded = np.zeros(-(-len(extra) // block) * block, extra.dtype)
                padded[: len(extra)] = extra
                arrays.append(padded)
            else:
                arrays.append(extra if extra.ndim == 1 else _blocked(extra, block, Halo()))
        arrays.append(np.full(shapes[-1], np.nan, dtype))
        return [
            np.ascontiguousarray(array).reshape(shape)
            for array, shape in zip(arrays, shapes, strict=True)
        ]

    def error(self, result: np.ndarray, block: int = 0) -> float:
        """Return greatest |error| / greatest |result| of a kernel's result; infinite if a value is missing.

        The last rounding, to a half-width type, is the type's and not the kernel's: an error within it counts as none.
        """
        spec = self.problem.spec
        n, k, *extents = spec.output
        if block:
            y = result.reshape(n, -(-k // block), *extents, block)
            y = np.moveaxis(y, -1, 2).reshape(n, -1, *extents)[:, :k]
        else:
            y = result.reshape(spec.output)
        rounding = result_rounding(spec.dtype) * np.abs(self.expected)
        error = np.maximum(np.abs(y.astype(np.float64) - self.expected) - rounding, 0.0)
        worst = float(error.max(initial=0.0))
        return worst / self._greatest if np.isfinite(worst) else float("inf")


def _blocked(array: np.ndarray, block: int, border: Halo) -> np.ndarray:
    """Return (N, C, spatial...) as (N, C/block, spatial + border..., block), zeros around and beyond the last channel."""
    if not block:
        return array
    n, c, *extents = array.shape
    rank, groups = len(extents), -(-c // block)
    around = list(zip(border.begins(rank), border.ends(rank), strict=True))
    padded = np.pad(array, [(0, 0), (0, groups * block - c), *around])
    split = padded.reshape(n, groups, block, *padded.shape[2:])
    return np.moveaxis(split, 2, -1)
