"""Direct convolution on a device: `schedules.implicit_gemm` on float32, float16 or float64, every rank, stride, dilation and group.

A 1 x 1 filter is a plain matrix product; a small map with long sums is split into parts of the sum, added up by a second kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tvm import te

from convc.ir.types import numpy_dtype
from convc.schedules import implicit_gemm, packing
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.model import launched_cycles, product_cycles
from convc.schedules.cuda.tiles import tiles
from convc.schedules.layout import PLAIN, Halo
from convc.schedules.matrices import Matrices
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties, direct_error
from convc.target import Target

__all__ = ["ALGORITHM", "Direct"]

_SPLITS = (1, 2, 4, 8, 16)

# Float types that the product's kernels are tested with.
_TYPES = ("float32", "float16", "float64")


class Direct:
    """See the module's text."""

    name = "direct"
    transposed = False

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        if spec.transposed != self.transposed:
            return Unsupported(f"convolution must {'' if self.transposed else 'not '}be transposed")
        if spec.dtype not in _TYPES:
            return Unsupported(f"element type must be {', '.join(_TYPES)}; got {spec.dtype}")
        return indexed(spec)

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the tile that the model finds fastest."""
        return min(self.space(problem, target), key=lambda k: self.cycles(problem, target, k))

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield legal tiles, and for sums long enough their parts."""
        spec = problem.spec
        whole = Matrices.of(spec, {"pixels": 1, "channels": 1, "step": 1, "split": 1})
        exact = whole.groups > 1 or whole.phases > 1
        itemsize = numpy_dtype(spec.dtype).itemsize
        together = implicit_gemm.together(spec) if itemsize == 4 else 1
        for tile in tiles(
            target.gpu,
            whole.channels,
            whole.pixels,
            exact=exact,
            itemsize=itemsize,
            together=together,
        ):
            for split in _SPLITS:
                if split == 1 or (whole.depth >= 64 * split and not exact):
                    yield {**tile, "split": split}

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return clocks of the products, or of the bytes if those take longer, and of the launches."""
        spec, gpu = problem.spec, target.gpu
        m = Matrices.of(spec, knobs)
        wide = 2 if problem.accumulator == "float64" else 1
        work = wide * product_cycles(
            gpu, m.products, m.padded_channels, m.padded_pixels, m.padded_depth, knobs
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
        """Return the weights as the products' left sides."""
        return implicit_gemm.pack(weight, problem.spec, knobs)

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result."""
        return implicit_gemm.compute(problem, knobs)


ALGORITHM = Direct()
