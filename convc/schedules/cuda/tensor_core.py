"""Convolution as matrix products on tensor cores: `implicit_gemm` with `fragments`, every rank, stride, dilation, transposed or not.

float16 and bfloat16 are multiplied exactly and added in float32. float32 is split into two TF32 numbers and multiplied three times, which
keeps float32's accuracy (`mma`); products of operands that are only rounded to TF32 are an algorithm of their own, `tf32`, which is
taken by a pin or a policy that names it, never by an estimate or a record.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from tvm import te

from convc.schedules import implicit_gemm, packing
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.cuda import fragments
from convc.schedules.cuda.fragments import CHANNELS
from convc.schedules.cuda.model import launched_cycles
from convc.schedules.cuda.requirements import on_tensor_cores, whole_tiles
from convc.schedules.cuda.warp_tiles import warp_cycles, warp_tiles
from convc.schedules.layout import PLAIN, Halo
from convc.schedules.matrices import Matrices
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties, direct_error
from convc.target import Target

__all__ = ["ALGORITHM", "TensorCore"]

_SPLITS: Final = (1, 2, 4, 8, 16)


class TensorCore:
    """See the module's text."""

    name = "tensor_core"
    types: tuple[str, ...] = ("float32", "float16", "bfloat16")

    def products(self, dtype: str) -> int:
        """Return how many products an operand's type takes: the knob `math`."""
        return 3 if dtype == "float32" else 1

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        refusal = on_tensor_cores(problem, target, self.types)
        return refusal if refusal is not None else whole_tiles(_whole(problem), CHANNELS)

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the tile that the model finds fastest."""
        return min(self.space(problem, target), key=lambda k: self.cycles(problem, target, k))

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield legal tiles, and for sums long enough their parts."""
        dtype, whole = problem.spec.dtype, _whole(problem)
        exact = whole.groups > 1 or whole.phases > 1
        math = self.products(dtype)
        # Words of half precision hold two channels, which never lie together.
        together = implicit_gemm.together(problem.spec) if dtype == "float32" else 1
        for tile in warp_tiles(
            target.gpu,
            whole.channels,
            whole.pixels,
            dtype,
            math=math,
            exact=exact,
            together=together,
        ):
            for split in _SPLITS:
                if split == 1 or (whole.depth >= 2 * tile["step"] * split and not exact):
                    yield {**tile, "split": split}

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return clocks of the products, or of the bytes if those take longer, and of the launches."""
        spec, gpu = problem.spec, target.gpu
        m = Matrices.of(spec, knobs)
        work = warp_cycles(
            gpu, m.products, m.padded_channels, m.padded_pixels, m.padded_depth, knobs, spec.dtype
        )
        return launched_cycles(gpu, work, spec.nbytes, m.partial_bytes(problem.accumulator))

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return the direct method's, and the bytes of split sums and of weights packed at run time."""
        partial = Matrices.of(problem.spec, knobs).partial_bytes(problem.accumulator)
        own = partial + packing.nbytes(self.name, problem, target, knobs)
        return Properties(problem.spec.flops, own, direct_error(problem))

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return plain layouts."""
        return Operands(PLAIN, Halo(), PLAIN)

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return the weights as lanes load them."""
        return fragments.packed(implicit_gemm.pack(weight, problem.spec, knobs))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result."""
        return implicit_gemm.compute(problem, knobs, fragments.product)


def _whole(problem: Problem) -> Matrices:
    return Matrices.of(problem.spec, {"pixels": 1, "channels": 1, "step": 1, "split": 1})


ALGORITHM = TensorCore()
