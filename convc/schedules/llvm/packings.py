"""The orders of CPUs' kernels, into which weights that are known only at run time are brought: see `schedules.packing`.

THE ALGORITHM   packed[...] = w[k, c, r...] or 0, as the algorithm's own `pack` does it to arrays when the model is compiled
                fft: see `fft_filters`
                winograd: half[i, s] = sum over r of G[i, r] w[r, s];  U[i, j] = sum over s of half[i, s] H[j, s]
WHEN            a training step, or any model whose filters are inputs or computed
COST            an element read or written a cycle; nothing beside a layer of some images, more than the layer for a single small one
ACCURACY        exact; winograd, fft: in the operands' precision, where `pack` has float64
"""

from __future__ import annotations

import math
from typing import Final

from tvm import te

from convc.ir.types import Shape
from convc.schedules.algorithm import Problem
from convc.schedules.combine import combine
from convc.schedules.depthwise import sums_over_data
from convc.schedules.fft_model import filter_cycles
from convc.schedules.llvm import fft_filters
from convc.schedules.packing import PLAIN, Packing, Read, named, within
from convc.schedules.phases import phased
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised
from convc.schedules.winograd import transforms
from convc.target import Target

__all__ = ["PACKINGS"]

# Cycles an element moved, one Zen 4 core, 512 x 512 x 3 x 3: filters apart in memory (2.8 to 3.5), filters side by side (1.2 to 1.8).
_MOVE: Final = 3.0
_MOVE_TRANSPOSED: Final = 1.5
# Winograd's two stages: 1.6 in all, of which the transform itself hides behind the moves.
_TRANSFORMED: Final = 1.6

_GEOMETRY: Final = Unsupported("weights of this geometry must be constant, to be packed at compile time")  # fmt: skip


def _direct_shape(problem: Problem, knobs: Knobs) -> Shape:
    spec = raised(problem.spec)
    a, wide = knobs["data_block"], knobs["vectors"] * knobs["block"]
    # Whole groups of vectors, as the kernel counts them.
    groups, blocks = -(-spec.out_channels // wide), -(-(spec.in_channels // spec.group) // a)
    return (groups, blocks, *spec.kernel, a, wide)


def _direct(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec = raised(problem.spec)
    shape = (groups, blocks, *_, a, wide) = _direct_shape(problem, knobs)
    K, C = spec.out_channels, spec.in_channels // spec.group

    def value(o, co, *at):
        *taps, ci, lane = at
        k, c = o * wide + lane, co * a + ci
        return within([(k, K, groups * wide), (c, C, blocks * a)], read(k, c, taps), spec.dtype)

    return te.compute(shape, value, name=named(problem))


def _depthwise_shape(problem: Problem, knobs: Knobs) -> Shape:
    spec, b = raised(problem.spec), knobs["block"]
    return (-(-spec.out_channels // b), *spec.kernel, b)


def _depthwise(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec, K = raised(problem.spec), problem.spec.out_channels
    shape = (blocks, *_, b) = _depthwise_shape(problem, knobs)

    def value(o, *at):
        *taps, lane = at
        k = o * b + lane
        return within([(k, K, blocks * b)], read(k, 0, taps), spec.dtype)

    return te.compute(shape, value, name=named(problem))


def _im2col_shape(problem: Problem, knobs: Knobs) -> Shape:
    spec, t = problem.spec, knobs["channels"]
    terms = spec.in_channels // spec.group * math.prod(spec.kernel)
    return (spec.group, -(-(spec.out_channels // spec.group) // t), terms, t)


def _im2col(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec = problem.spec
    shape = (_, tiles, _, t) = _im2col_shape(problem, knobs)
    group_k, points = spec.out_channels // spec.group, math.prod(spec.kernel)

    def value(g, o, position, i):
        k, taps = o * t + i, []
        rest = position % points
        for extent in reversed(spec.kernel):
            taps.insert(0, rest % extent)
            rest = rest // extent
        element = read(g * group_k + k, position // points, taps)
        return within([(k, group_k, tiles * t)], element, spec.dtype)

    return te.compute(shape, value, name=named(problem, "position"))


def _subpixel_shape(problem: Problem, knobs: Knobs) -> Shape:
    spec = phased(problem.spec)
    (sh, sw), (R, S) = spec.strides, spec.kernel
    a, wide = knobs["data_block"], knobs["vectors"] * knobs["block"]
    groups, blocks = -(-spec.out_channels // wide), -(-spec.in_channels // a)
    return (groups, sh, sw, blocks, -(-R // sh), -(-S // sw), a, wide)


def _subpixel(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec = phased(problem.spec)
    shape = (groups, sh, sw, blocks, tr, ts, a, wide) = _subpixel_shape(problem, knobs)
    (R, S), (top, left) = spec.kernel, spec.pads[:2]
    K, C = spec.out_channels, spec.in_channels

    def value(o, f, g, co, i, j, ci, lane):
        k, c = o * wide + lane, co * a + ci
        r, s = (f + top) % sh + i * sh, (g + left) % sw + j * sw
        bounds = [(k, K, groups * wide), (c, C, blocks * a), (r, R, tr * sh), (s, S, ts * sw)]
        return within(bounds, read(c, k, (r, s)), spec.dtype)

    return te.compute(shape, value, name=named(problem))


def _winograd_shape(problem: Problem, knobs: Knobs) -> Shape:
    spec = raised(problem.spec)
    high, wide = transforms(spec, knobs["m"])
    lanes, a = knobs["vectors"] * knobs["block"], knobs["data_block"]
    groups, channels = -(-spec.out_channels // lanes), -(-spec.in_channels // a) * a
    # One filter, one depth tap and one part: axes that other convolutions have.
    return (1, 1, groups, high.alpha, wide.alpha, 1, 1, channels, lanes)


def _winograd(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec = raised(problem.spec)
    high, wide = transforms(spec, knobs["m"])
    shape = (_, _, groups, *_, channels, lanes) = _winograd_shape(problem, knobs)
    K, C, (R, S) = spec.out_channels, spec.in_channels, spec.kernel

    def taps(o, c, r, s, lane):
        k = o * lanes + lane
        return within([(k, K, groups * lanes), (c, C, channels)], read(k, c, (r, s)), spec.dtype)

    g = te.compute((groups, channels, R, S, lanes), taps, name="taps")
    half = te.compute(
        (groups, channels, high.alpha, S, lanes),
        lambda o, c, i, s, lane: combine(high.G, i, lambda r: g[o, c, r, s, lane]),
        name="half",
    )
    return te.compute(
        shape,
        lambda zh, zw, o, i, j, d, g, c, lane: combine(wide.G, j, lambda s: half[o, c, i, s, lane]),
        name="packed",
    )


def _moved(problem: Problem, target: Target, knobs: Knobs) -> float:
    transposed = problem.dual or problem.spec.transposed
    return (_MOVE_TRANSPOSED if transposed else _MOVE) * math.prod(problem.spec.weight)


def _transformed(problem: Problem, target: Target, knobs: Knobs) -> float:
    return _TRANSFORMED * math.prod(problem.spec.weight)


# The orders above have no groups here, and these two no third axis.
def _direct_refusal(problem: Problem) -> Unsupported | None:
    return _GEOMETRY if problem.spec.group > 1 else None


def _subpixel_refusal(problem: Problem) -> Unsupported | None:
    spec = problem.spec
    return _GEOMETRY if spec.group > 1 or spec.rank > 2 or max(spec.dilations) > 1 else None


def _winograd_refusal(problem: Problem) -> Unsupported | None:
    # Strides, too, make parts of a filter.
    return _subpixel_refusal(problem) or (_GEOMETRY if max(problem.spec.strides) > 1 else None)


def _depthwise_refusal(problem: Problem) -> Unsupported | None:
    if not sums_over_data(problem.spec):
        return None
    return Unsupported(
        "weights larger than the data must be constant, to be packed at compile time"
    )


PACKINGS: Final = {
    "direct": Packing(_direct, _direct_shape, _moved, _direct_refusal),
    "depthwise": Packing(_depthwise, _depthwise_shape, _moved, _depthwise_refusal),
    "im2col": Packing(_im2col, _im2col_shape, _moved),
    "subpixel": Packing(_subpixel, _subpixel_shape, _moved, _subpixel_refusal),
    "winograd": Packing(_winograd, _winograd_shape, _transformed, _winograd_refusal),
    "fft": Packing(fft_filters.transformed, fft_filters.shape, filter_cycles),
    "generic": PLAIN,
}
