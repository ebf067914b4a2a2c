"""Weights that are known only at run time, in the order in which an algorithm's kernel reads them: a step before the convolution.

THE ALGORITHM   packed[...] = w[k, c, r...] or 0, as the algorithm's own `pack` does it to arrays when the model is compiled
                winograd: half[i, s] = sum over r of G[i, r] w[r, s];  U[i, j] = sum over s of half[i, s] H[j, s]
WHEN            a training step, or any model whose filters are inputs or computed
COST            an element read or written a cycle; nothing beside a layer of some images, more than the layer for a single small one
ACCURACY        exact; winograd: in the operands' precision, where `pack` has float64

A row of PACKINGS per algorithm; without one an algorithm refuses such weights. A test holds every row against `pack`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from tvm import te, tirx

from convc.schedules.algorithm import Problem
from convc.schedules.combine import combine
from convc.schedules.depthwise import sums_over_data
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised
from convc.schedules.winograd import transforms

__all__ = ["PACKINGS", "compute", "cycles", "refusal"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27
# (k, c, taps) -> the weight there.
Read: TypeAlias = Callable[[Expr, Expr, Sequence[Expr]], Expr]
Packing: TypeAlias = Callable[[Read, Problem, Knobs], te.Tensor]

# Cycles an element moved, one Zen 4 core, 512 x 512 x 3 x 3: filters apart in memory (2.8 to 3.5), filters side by side (1.2 to 1.8).
_MOVE: Final = 3.0
_MOVE_TRANSPOSED: Final = 1.5
# Winograd's two stages: 1.6 in all, of which the transform itself hides behind the moves.
_TRANSFORMED: Final = 1.6


def _reader(problem: Problem, w: te.Tensor) -> Read:
    """Return how the weight of the problem, or of the transposed convolution that it is the dual of, is read."""
    spec = problem.spec
    group_k, group_c = spec.out_channels // spec.group, spec.in_channels // spec.group

    def read(k: Expr, c: Expr, taps: Sequence[Expr]) -> Expr:
        # Raised 1-D filters have an axis more, of one tap.
        at = taps[len(taps) - spec.rank :]
        if not problem.dual:
            return w(k, c, *at)
        flipped = [extent - 1 - r for extent, r in zip(spec.kernel, at, strict=True)]
        if spec.group == 1:
            return w(c, k, *flipped)
        return w(k // group_k * group_c + c, k % group_k, *flipped)

    return read


def _within(conditions: Sequence[tuple[Expr, int, int]], value: Expr, dtype: str) -> Expr:
    """Return the value where each index is below its extent, else 0; the third number is the greatest that the index reaches."""
    needed = [index < extent for index, extent, most in conditions if most > extent]
    return (
        tirx.if_then_else(tirx.all(*needed), value, tirx.const(0, dtype)) if needed else value
    )  # fmt: skip


def _named(problem: Problem, stage: str = "packed") -> str:
    """Return a stage's name: the schedule reads off it whether filters or channels are the weight's first axis."""
    return f"transposed_{stage}" if problem.dual or problem.spec.transposed else stage


def _direct(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec = raised(problem.spec)
    a, wide = knobs["data_block"], knobs["vectors"] * knobs["block"]
    K, C = spec.out_channels, spec.in_channels // spec.group
    # Whole groups of vectors, as the kernel counts them.
    groups, blocks = -(-K // wide), -(-C // a)

    def value(o, co, *at):
        *taps, ci, lane = at
        k, c = o * wide + lane, co * a + ci
        return _within([(k, K, groups * wide), (c, C, blocks * a)], read(k, c, taps), spec.dtype)

    return te.compute((groups, blocks, *spec.kernel, a, wide), value, name=_named(problem))


def _depthwise(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec, b = raised(problem.spec), knobs["block"]
    K = spec.out_channels
    blocks = -(-K // b)

    def value(o, *at):
        *taps, lane = at
        k = o * b + lane
        return _within([(k, K, blocks * b)], read(k, 0, taps), spec.dtype)

    return te.compute((blocks, *spec.kernel, b), value, name=_named(problem))


def _im2col(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec, t = problem.spec, knobs["channels"]
    group_k, group_c = spec.out_channels // spec.group, spec.in_channels // spec.group
    tiles, points = -(-group_k // t), math.prod(spec.kernel)

    def value(g, o, position, i):
        k, taps = o * t + i, []
        rest = position % points
        for extent in reversed(spec.kernel):
            taps.insert(0, rest % extent)
            rest = rest // extent
        element = read(g * group_k + k, position // points, taps)
        return _within([(k, group_k, tiles * t)], element, spec.dtype)

    shape = (spec.group, tiles, group_c * points, t)
    return te.compute(shape, value, name=_named(problem, "position"))


def _subpixel(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec = raised(problem.spec)
    (sh, sw), (R, S) = spec.strides, spec.kernel
    tr, ts = -(-R // sh), -(-S // sw)
    top, left = spec.pads[:2]
    a, wide = knobs["data_block"], knobs["vectors"] * knobs["block"]
    K, C = spec.out_channels, spec.in_channels
    groups, blocks = -(-K // wide), -(-C // a)

    def value(o, f, g, co, i, j, ci, lane):
        k, c = o * wide + lane, co * a + ci
        r, s = (f + top) % sh + i * sh, (g + left) % sw + j * sw
        bounds = [(k, K, groups * wide), (c, C, blocks * a), (r, R, tr * sh), (s, S, ts * sw)]
        return _within(bounds, read(c, k, (r, s)), spec.dtype)

    shape = (groups, sh, sw, blocks, tr, ts, a, wide)
    return te.compute(shape, value, name=_named(problem))


def _winograd(read: Read, problem: Problem, knobs: Knobs) -> te.Tensor:
    spec = raised(problem.spec)
    high, wide = transforms(spec, knobs["m"])
    lanes, a = knobs["vectors"] * knobs["block"], knobs["data_block"]
    K, C, (R, S) = spec.out_channels, spec.in_channels, spec.kernel
    groups, channels = -(-K // lanes), -(-C // a) * a

    def taps(o, c, r, s, lane):
        k = o * lanes + lane
        return _within([(k, K, groups * lanes), (c, C, channels)], read(k, c, (r, s)), spec.dtype)

    g = te.compute((groups, channels, R, S, lanes), taps, name="taps")
    half = te.compute(
        (groups, channels, high.alpha, S, lanes),
        lambda o, c, i, s, lane: combine(high.G, i, lambda r: g[o, c, r, s, lane]),
        name="half",
    )
    # One filter, one depth tap and one part: axes that other convolutions have.
    return te.compute(
        (1, 1, groups, high.alpha, wide.alpha, 1, 1, channels, lanes),
        lambda zh, zw, o, i, j, d, g, c, lane: combine(wide.G, j, lambda s: half[o, c, i, s, lane]),
        name="packed",
    )


PACKINGS: Final[dict[str, Packing]] = {
    "direct": _direct,
    "depthwise": _depthwise,
    "im2col": _im2col,
    "subpixel": _subpixel,
    "winograd": _winograd,
}

# Read as they are.
_PLAIN: Final = ("generic",)

# The orders above have no groups here; of these, no third axis either.
_ONE_GROUP: Final = ("direct", "subpixel", "winograd")


def refusal(algorithm: str, problem: Problem, *, packs: bool = True) -> Unsupported | None:
    """Return why an algorithm cannot have its weights packed at run time, or None; `packs`: whether the target does that at all."""
    if algorithm in _PLAIN:
        return None
    if algorithm not in PACKINGS or not packs:
        return Unsupported("weights must be constant, to be packed at compile time")
    spec = problem.spec
    if algorithm == "depthwise" and sums_over_data(spec):
        return Unsupported(
            "weights larger than the data must be constant, to be packed at compile time"
        )
    if algorithm in _ONE_GROUP and (
        spec.group > 1
        or (spec.rank > 2 and algorithm != "direct")
        or (algorithm == "winograd" and max((*spec.strides, *spec.dilations)) > 1)
        or (algorithm == "subpixel" and max(spec.dilations) > 1)
    ):
        return Unsupported(
            "weights of this geometry must be constant, to be packed at compile time"
        )
    return None


def compute(algorithm: str, problem: Problem, knobs: Knobs) -> list[te.Tensor] | None:
    """Return the plain weight and the packed one, or None for an algorithm that reads it as it is."""
    if algorithm in _PLAIN:
        return None
    spec = problem.spec
    shape = spec.weight
    if problem.dual:
        shape = (spec.in_channels, spec.out_channels // spec.group, *spec.kernel)
    w = te.placeholder(shape, spec.dtype, name="weight")
    return [w, PACKINGS[algorithm](_reader(problem, w), problem, knobs)]


def cycles(algorithm: str, problem: Problem, knobs: Knobs) -> float:
    """Return what packing takes on one core; 0 for constant weights."""
    if problem.constant_weight or algorithm in _PLAIN:
        return 0.0
    elements = math.prod(problem.spec.weight)
    if algorithm == "winograd":
        return _TRANSFORMED * elements
    transposed = problem.dual or problem.spec.transposed
    return (_MOVE_TRANSPOSED if transposed else _MOVE) * elements
