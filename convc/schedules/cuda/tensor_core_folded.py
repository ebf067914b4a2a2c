"""The first layer of a network in half precision: `folded_taps` on plain data, then `tensor_core_blocked` on what that makes.

THE ALGORITHM   kernel 1    x' of `folded_taps`, in blocks of 8 channels, in place of the copy of x into blocks
                kernel 2    `tensor_core_blocked` on x', without pads
WHEN            as `tensor_core_blocked`, one group, not transposed, fewer than 8 input channels
COST            3 channels, 7 x 7, stride 2: 28 blocks of a sum where it was 49, whole sectors of 32 bytes where it was half of each
ACCURACY        as `tensor_core_blocked`
SOURCE          those of `folded_taps` and `vector_gemm`
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from tvm import te

from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules import packing, vector_gemm
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.cuda import rows
from convc.schedules.cuda.folded_taps import Folding, foldings
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles
from convc.schedules.cuda.row_tiles import cluster_of
from convc.schedules.cuda.tensor_core_blocked import ALGORITHM as BLOCKED
from convc.schedules.cuda.tensor_core_blocked import ran
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties, direct_error
from convc.schedules.rank import raised
from convc.schedules.vector_gemm import lanes
from convc.target import Target

__all__ = ["ALGORITHM", "KNOBS", "TensorCoreFolded", "folding_of"]

# Taps of an axis that become channels, per axis from the last on.
KNOBS: Final = ("fold_w", "fold_h", "fold_d")


class TensorCoreFolded:
    """See the module's text."""

    name = "tensor_core_folded"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        if (refusal := BLOCKED.supports(problem, target)) is not None:
            return refusal
        if spec.transposed or spec.group > 1:
            return Unsupported(
                f"convolution must be of one group and not transposed; got group {spec.group}{', transposed' * spec.transposed}"
            )
        if spec.in_channels >= lanes(spec.dtype):
            return Unsupported(
                f"input channels must be fewer than a block's {lanes(spec.dtype)}; got {spec.in_channels}"
            )
        found = foldings(spec)
        if not found:
            return Unsupported(f"taps folded into channels must leave fewer blocks to a sum; got a filter of {spec.kernel}")  # fmt: skip
        return indexed(found[0].folded, lanes(spec.dtype))

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the setting that the model finds fastest, of those whose kind a device ran."""
        return min(
            filter(ran, self.space(problem, target)), key=lambda k: self.cycles(problem, target, k)
        )

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield the foldings with the legal tiles of their products."""
        for folding in foldings(problem.spec):
            if indexed(folding.folded, lanes(folding.spec.dtype)) is None:
                fold = dict(zip(KNOBS, reversed(folding.taps), strict=False))
                for tile in BLOCKED.space(replace(problem, spec=folding.folded), target):
                    # Few blocks of channels lie close together anyway, and first layers' maps are large enough for whole sums.
                    if not tile.get("cached") and cluster_of(tile) == 1:
                        yield {**fold, **{k: v for k, v in tile.items() if k != "cached"}}

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return clocks of the bytes that the first kernel reads and writes, of its launch, and of the second."""
        spec, gpu = problem.spec, target.gpu
        size = numpy_dtype(spec.dtype).itemsize
        folding = folding_of(spec, knobs)
        moved = size * (math.prod(spec.data) + folding.elements)
        copy = memory_cycles(gpu, moved) + LAUNCH_SECONDS * gpu.clock_hz
        return copy + BLOCKED.cycles(replace(problem, spec=folding.folded), target, knobs)

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return the direct method's, and the bytes of folded data, of split sums and of weights packed at run time."""
        spec, folding = problem.spec, folding_of(problem.spec, knobs)
        data = numpy_dtype(spec.dtype).itemsize * folding.elements
        partial = vector_gemm.matrices(folding.folded, knobs).partial_bytes(problem.accumulator)
        own = data + partial + packing.nbytes(self.name, problem, target, knobs)
        return Properties(spec.flops, own, direct_error(problem))

    def remark(self, problem: Problem, target: Target, knobs: Knobs) -> str:
        """Return why warps multiply alone on 9.0, "" where they need not or the device has none."""
        return BLOCKED.remark(problem, target, knobs)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return plain data, and blocks of 16 bytes for the result."""
        return Operands(PLAIN, Halo(), Layout(lanes(problem.spec.dtype)))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return the folded filter in rows of 16 bytes."""
        folding = folding_of(problem.spec, knobs)
        return vector_gemm.pack(folding.weight(weight), folding.folded, knobs)

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result; block `folded` and those of `vector_gemm`."""
        spec, folding = problem.spec, folding_of(problem.spec, knobs)
        x = te.placeholder(spec.data, spec.dtype, name="data")
        posed = replace(problem, spec=folding.folded)
        _, *others = vector_gemm.compute(posed, knobs, rows.product, folding.data(x))
        return [x, *others]


def folding_of(spec: ConvSpec, knobs: Knobs) -> Folding:
    """Return the folding that a setting has.

    Example:
        >>> stem = ConvSpec.of((1, 3, 9, 9), (8, 3, 7, 7), strides=(2, 2), dtype="float16")
        >>> folding_of(stem, {"fold_h": 1, "fold_w": 2}).folded.weight
        (8, 6, 7, 4)
    """
    spec = raised(spec)
    return Folding(spec, tuple(knobs[name] for name in reversed(KNOBS[: spec.rank])))


ALGORITHM = TensorCoreFolded()
