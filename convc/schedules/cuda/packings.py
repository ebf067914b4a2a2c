"""The orders of a device's kernels, into which weights that are known only at run time are brought: see `schedules.packing`.

THE ALGORITHM   packed[...] = w[k, c, r...] or 0, as the algorithm's own `pack` does it to arrays when the model is compiled
                fft: see `fft_filters`
                winograd: half[i, s] = sum over r of G[i, r] w[r, s];  U[i, j] = sum over s of half[i, s] H[j, s]
WHEN            a training step, or any model whose filters are inputs or computed
COST            a launch; an element read for each one written, mostly from another sector of L2 than its neighbour's
ACCURACY        exact; winograd, fft: in float32, where `pack` has float64
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tvm import te

from convc.ir.types import Shape, numpy_dtype
from convc.schedules import implicit_gemm, vector_gemm
from convc.schedules.algorithm import Problem
from convc.schedules.combine import combine
from convc.schedules.cuda import fft_filters, fragments
from convc.schedules.cuda.cutlass_tiles import eights
from convc.schedules.cuda.fft_model import filter_cycles
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles
from convc.schedules.cuda.tensor_core_folded import folding_of
from convc.schedules.cuda.winograd import products_of
from convc.schedules.matrices import Matrices
from convc.schedules.packing import PLAIN, Packing, Read, within
from convc.schedules.plan import Knobs
from convc.schedules.rank import raised
from convc.schedules.winograd_tiles import Tiles
from convc.target import Target

__all__ = ["PACKINGS"]

# What L2 hands out at least, and how many times as fast as the memory behind it. Not measured.
_SECTOR: Final = 32
_L2: Final = 2.0


def _cycles(problem: Problem, target: Target, knobs: Knobs) -> float:
    """Return the clocks of a launch that reads a sector for each element."""
    elements, gpu = math.prod(problem.spec.weight), target.gpu
    nbytes = elements * (numpy_dtype(problem.spec.dtype).itemsize + _SECTOR / _L2)
    return memory_cycles(gpu, nbytes) + LAUNCH_SECONDS * gpu.clock_hz


def _product_shape(problem: Problem, knobs: Knobs) -> Shape:
    m = Matrices.of(problem.spec, knobs)
    return (m.products, m.padded_depth, m.padded_channels)


def _product(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    at = implicit_gemm.packed_at(problem.spec, knobs, read)
    return te.compute(_product_shape(problem, knobs), at, name="packed")


def _fragments_shape(problem: Problem, knobs: Knobs) -> Shape:
    return fragments.shape(Matrices.of(problem.spec, knobs), problem.spec.dtype)


def _fragments(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec = problem.spec
    at = fragments.packed_at(spec.dtype, implicit_gemm.packed_at(spec, knobs, read))
    return te.compute(_fragments_shape(problem, knobs), at, name="packed")


def _rows_shape(problem: Problem, knobs: Knobs) -> Shape:
    m = vector_gemm.matrices(problem.spec, knobs)
    return (m.products, m.padded_depth, m.padded_channels, vector_gemm.lanes(problem.spec.dtype))


def _rows(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    at = vector_gemm.packed_at(problem.spec, knobs, read)
    return te.compute(_rows_shape(problem, knobs), at, name="packed")


def _folded_shape(problem: Problem, knobs: Knobs) -> Shape:
    return _rows_shape(replace(problem, spec=folding_of(problem.spec, knobs).folded), knobs)


def _folded(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    folding = folding_of(problem.spec, knobs)
    return _rows(folding.read(read), replace(problem, spec=folding.folded), knobs)


def _depthwise_shape(problem: Problem, knobs: Knobs) -> Shape | None:
    return problem.spec.weight if problem.dual else None


def _depthwise(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor | None:
    """Return the filter as it is, flipped where the convolution stands for a transposed one."""
    shape = _depthwise_shape(problem, knobs)
    if shape is None:
        return None
    return te.compute(shape, lambda k, c, *taps: read(k, c, taps), name="packed")


def _depthwise_blocked_shape(problem: Problem, knobs: Knobs) -> Shape:
    spec, e = raised(problem.spec), vector_gemm.lanes(problem.spec.dtype)
    return (-(-spec.out_channels // e), *spec.kernel, e)


def _depthwise_blocked(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec = raised(problem.spec)
    shape = (blocks, *_, e) = _depthwise_blocked_shape(problem, knobs)

    def value(block, *at):
        *taps, lane = at
        k = block * e + lane
        return within([(k, spec.out_channels, blocks * e)], read(k, 0, taps), spec.dtype)

    return te.compute(shape, value, name="packed")


def _winograd_shape(problem: Problem, knobs: Knobs) -> Shape:
    return fragments.shape(products_of(problem.spec, knobs), problem.spec.dtype)


def _winograd(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec = problem.spec
    tiles, p = Tiles.of(spec, knobs["m"]), products_of(spec, knobs)
    high, wide = tiles.high.transform, tiles.wide.transform
    shape, (R, S) = (p.padded_depth, p.padded_channels), spec.kernel

    def tap(c, k, r, s):
        bounds = [(c, p.depth, p.padded_depth), (k, p.channels, p.padded_channels)]
        return within(bounds, read(k, c, (r, s)), spec.dtype)

    g = te.compute((*shape, R, S), tap, name="taps")
    half = te.compute(
        (*shape, high.alpha, S),
        lambda c, k, i, s: combine(high.G, i, lambda r: g[c, k, r, s]),
        name="half",
    )

    def transformed(z, c, k):
        i, j = z // wide.alpha, z % wide.alpha
        return combine(wide.G, j, lambda s: half[c, k, i, s])

    at = fragments.packed_at(spec.dtype, transformed)
    return te.compute(_winograd_shape(problem, knobs), at, name="packed")


def _channels_last_shape(problem: Problem, knobs: Knobs) -> Shape | None:
    k, c, *taps = raised(problem.spec).weight
    return (k, *taps, c) if knobs["channels_last"] else None


def _channels_last(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor | None:
    """Return the filter with the channels that are summed over last, where the call of cuDNN has images so; else it is read as it is."""
    shape = _channels_last_shape(problem, knobs)
    if shape is None:
        return None
    return te.compute(shape, lambda k, *at: read(k, at[-1], at[:-1]), name="packed")


def _cutlass_shape(problem: Problem, knobs: Knobs) -> Shape:
    k, c, *taps = raised(problem.spec).weight
    return (eights(k), *taps, eights(c))


def _cutlass(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    """Return the filter with the channels that are summed over last, zeros up to whole eights of both."""
    shape = (K, *_, C) = _cutlass_shape(problem, knobs)
    k, c = problem.spec.weight[:2]

    def value(o, *at):
        return within([(o, k, K), (at[-1], c, C)], read(o, at[-1], at[:-1]), problem.spec.dtype)

    return te.compute(shape, value, name="packed")


def _if_any(
    shape: Callable[[Problem, Knobs], Shape | None],
) -> Callable[[Problem, Target, Knobs], float]:
    """Return the cycles of an algorithm that reads some weights as they are."""
    return lambda p, target, k: 0.0 if shape(p, k) is None else _cycles(p, target, k)


PACKINGS: Final = {
    "direct": Packing(_product, _product_shape, _cycles),
    "subpixel": Packing(_product, _product_shape, _cycles),
    "tensor_core": Packing(_fragments, _fragments_shape, _cycles),
    "tf32": Packing(_fragments, _fragments_shape, _cycles),
    "tensor_core_blocked": Packing(_rows, _rows_shape, _cycles),
    "tensor_core_folded": Packing(_folded, _folded_shape, _cycles),
    "depthwise": Packing(_depthwise, _depthwise_shape, _if_any(_depthwise_shape)),
    "depthwise_blocked": Packing(_depthwise_blocked, _depthwise_blocked_shape, _cycles),
    "winograd": Packing(_winograd, _winograd_shape, _cycles),
    "cudnn": Packing(_channels_last, _channels_last_shape, _if_any(_channels_last_shape)),
    "cutlass": Packing(_cutlass, _cutlass_shape, _cycles),
    "fft": Packing(
        fft_filters.transformed, fft_filters.shape, lambda p, t, k: filter_cycles(p, t.gpu, k)
    ),
    "generic": PLAIN,
}
