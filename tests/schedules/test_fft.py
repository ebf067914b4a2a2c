"""FFT convolution: every transform length, dense and depthwise, tiles over every edge, and error against its own bound.

The bound. Rounding in a transform spreads over all points of its tile, so an element's error follows the tile, not the taps that meet
in it. With F unitary up to its scale, |F x| has the Euclidean norm of x, and by Cauchy and Schwarz one tile and channel gives
|F* (V U)| <= |V| |U| = |x| |w|. Errors of V, U and their product, relative to those norms, so change a result in proportion to

    bound[k, p, q] = sum over c of |x[c] in the tile of (p, q)| |w[k, c]|          Euclidean norms

which is also never less than direct's |w| * |x|. The factor 4 eps is measured, not a theorem: a worst case would have log2(t_h t_w)
roundings, and the inverse's own in units of |x| max |U|. Found here: 0.02 to 1.3 eps, most in one-dimensional tiles of one channel.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tvm
from tvm import te
from tvm.runtime import tensor

from convc.ir import ConvSpec, Step
from convc.ir.ops.conv import convolve
from convc.runtime.host import usable_threads
from convc.schedules.algorithm import Problem
from convc.schedules.error_bound import error_bound
from convc.schedules.fft import ALGORITHM
from convc.schedules.overlap_save import LENGTHS, Tiling
from convc.schedules.select import candidates
from convc.target import Target, parse_target
from tests.schedules.conv_module import Case, ConvModule, Result, whole_numbers
from tests.tolerance import EPS, assert_bounded, scalar_error

TARGET = parse_target(cores=1)
ZEN4 = Target("llvm", "x86_64-linux-gnu", "znver4", (), 16, 32)


def fft_bound(result: Result) -> np.ndarray:
    """Return the sum over channels of the norms of tile and filter, for every result."""
    spec = result.case.spec
    alone = spec.group == spec.in_channels == spec.out_channels
    if not (spec.group == 1 or alone) or max(spec.dilations) > 1 or max(spec.kernel) > 64:
        return error_bound("fft", result.data, result.weight, spec, result.knobs)
    tiling = Tiling.of(spec, result.knobs["t_h"], result.knobs["t_w"])
    tall, wide = tiling.high, tiling.wide
    (top, left), (H, W) = spec.pads[:2], spec.data[2:]
    extents = (max(tall.reach, top + H), max(wide.reach, left + W))
    padded = np.zeros((*spec.data[:2], *extents))
    padded[:, :, top : top + H, left : left + W] = result.data.astype(np.float64) ** 2
    windows = np.lib.stride_tricks.sliding_window_view(padded, (tall.t, wide.t), (2, 3))
    windows = windows[:, :, :: tall.m, :: wide.m][:, :, : tall.tiles, : wide.tiles]
    tiles = np.sqrt(windows.sum((-1, -2)))
    filters = np.sqrt((result.weight.astype(np.float64) ** 2).sum((2, 3)))
    if spec.group > 1:
        bound = tiles * filters[:, 0, None, None]
    else:
        bound = np.einsum("kc,ncpq->nkpq", filters, tiles)
    bound = bound.repeat(tall.m, 2).repeat(wide.m, 3)
    return 4 * EPS * bound[:, :, : spec.output[2], : spec.output[3]]


def conv(c, k, extents, kernel, *, n=1, p=None, g=1, d=(1, 1)) -> ConvSpec:
    """Return the convolution; without pads it keeps the extents."""
    reach = [(r - 1) * step for r, step in zip(kernel, d, strict=True)]
    pads = p or (*(r // 2 for r in reach), *((r + 1) // 2 for r in reach))
    return ConvSpec.of((n, c, *extents), (k, c // g, *kernel), pads=pads, group=g, dilations=d)


DENSE = {
    "whole tiles": conv(16, 32, (12, 12), (5, 5)),
    "tiles over both edges, odd channels, asymmetric pads": conv(
        19, 37, (23, 17), (5, 3), p=(1, 2, 0, 1)
    ),
    "batch of 2": conv(8, 16, (9, 11), (3, 3), n=2),
    "no padding": conv(5, 8, (13, 12), (4, 4), p=(0, 0, 0, 0)),
    "pads beyond the filter": conv(8, 8, (5, 5), (3, 3), p=(4, 3, 2, 5)),
    "filter as large as the data": conv(8, 8, (7, 7), (7, 7), p=(0, 0, 0, 0)),
    "1x7": conv(16, 24, (5, 17), (1, 7)),
    "7x1": conv(16, 24, (17, 5), (7, 1)),
    "one channel": conv(1, 1, (9, 9), (5, 5)),
}
DEPTHWISE = {
    "whole tiles": conv(16, 16, (12, 12), (5, 5), g=16),
    "tiles over both edges, odd channels, asymmetric pads": conv(19, 19, (23, 17), (5, 3), p=(1, 2, 0, 1), g=19),
    "batch of 2": conv(24, 24, (9, 11), (7, 7), n=2, g=24),
    "1x7": conv(16, 16, (5, 17), (1, 7), g=16),
    "7x1": conv(16, 16, (17, 5), (7, 1), g=16),
}  # fmt: skip
LARGE = {
    13: conv(17, 17, (20, 20), (13, 13), g=17),
    31: conv(4, 8, (33, 33), (31, 31)),
    64: conv(3, 3, (64, 70), (64, 64), p=(0, 0, 0, 0)),
}
# Phase images that are not full, more of them than results, oblong; groups in a block, of blocks, with more results than inputs; parts
# of the filter on one axis and in groups.
OTHERS = {
    "dilated": (conv(5, 19, (23, 17), (3, 3), d=(2, 3)), (8, 8)),
    "dilated beyond the result": (conv(16, 16, (3, 9), (3, 5), n=2, d=(4, 1)), (8, 8)),
    "dilated depthwise": (conv(19, 19, (23, 17), (3, 3), g=19, d=(2, 2)), (8, 12)),
    "groups in a block": (conv(12, 20, (13, 9), (3, 3), g=4), (8, 8)),
    "groups of blocks": (conv(48, 32, (13, 9), (5, 3), g=2), (8, 8)),
    "a group of each input": (conv(6, 18, (13, 9), (3, 3), g=6), (8, 8)),
    "70 taps": (conv(3, 5, (80, 20), (70, 3)), (24, 8)),
    "100 taps in groups": (conv(4, 8, (2, 120), (1, 100), g=2), (1, 24)),
}


def case(
    spec: ConvSpec, t: tuple[int, int], *, products=3, whole=True, epilogue=(), target=TARGET
) -> Case:
    t_h, t_w = (
        t_axis if r > 1 else 1 + axis
        for axis, (r, t_axis) in enumerate(zip(spec.kernel, t, strict=True))
    )
    high = Tiling.of(spec, t_h, t_w).high
    rows = high.tiles if whole and spec.group == 1 else high.images
    knobs = ALGORITHM.with_lengths(spec, target, t_h, t_w, products, rows)
    return Case("fft", spec, epilogue, tuple(knobs.items()))


@cache
def compiled() -> ConvModule:
    """Return every spec, in turn with square and oblong transforms, three and four products, one block and many."""
    cases = []
    transforms = ((8, 8), (12, 8), (12, 16), (20, 12))
    for index, spec in enumerate([*DENSE.values(), *DEPTHWISE.values()]):
        products, whole = 3 + index // 4 % 2, index // 2 % 2 == 0
        cases.append(case(spec, transforms[index % 4], products=products, whole=whole))
    # Every other length once, dense or depthwise, longer than the map or not.
    for index, t in enumerate(LENGTHS[2:-1]):
        group = (1, 8)[index % 2]
        products = 3 + index // 2 % 2
        cases.append(case(conv(8, 8, (19, 30), (5, 5), g=group), (t, t), products=products))
    cases += [
        case(spec, (max(r + 1, 40), max(r + 1, 48)) if r < 64 else (64, 64))
        for r, spec in LARGE.items()
    ]
    for index, (spec, t) in enumerate(OTHERS.values()):
        cases.append(case(spec, t, products=3 + index % 2, whole=index % 3 == 0))
    return ConvModule(cases, TARGET)


def test_normal_data_stay_within_the_bound():
    results = compiled().run(exact=False)
    assert len(results) == 14 + 6 + 3 + len(OTHERS)
    for result in results:
        assert_bounded(result.actual, result.expected, fft_bound(result))


@pytest.mark.slow
def test_every_length_in_both_forms_stays_within_the_bound():
    """Each spec with a square and an oblong transform, each length dense and depthwise; `compiled` takes them in turn."""
    cases = []
    specs = [*DENSE.values(), *DEPTHWISE.values(), conv(8, 8, (25, 25), (21, 21), g=8)]
    for index, spec in enumerate(specs):
        pair = (((8, 8), (12, 16)), ((12, 8), (20, 12)))[index % 2]
        if max(spec.kernel) > 12:
            pair = ((24, 32), (32, 24))
        for number, t in enumerate(pair):
            turn = index + index // 2 + number
            cases.append(case(spec, t, products=3 + turn % 2, whole=turn % 3 == 0))
    for index, t in enumerate(LENGTHS[2:]):
        cases.append(case(conv(8, 8, (19, 30), (5, 5)), (t, t), products=3 + index % 2))
        cases.append(case(conv(8, 8, (19, 30), (5, 5), g=8), (t, t)))
    for result in ConvModule(cases, TARGET).run(exact=False):
        assert_bounded(result.actual, result.expected, fft_bound(result))


def test_whole_numbers_are_exact_when_rounded():
    for result in compiled().run(exact=True):
        assert_bounded(result.actual, result.expected, fft_bound(result))
        np.testing.assert_array_equal(np.rint(result.actual), result.expected)


def test_the_bound_is_no_less_than_the_direct_ones():
    for result in compiled().run(exact=True):
        assert np.all(fft_bound(result) >= 4 * EPS * np.abs(result.expected) * (1 - 1e-12))


def test_tiles_that_are_left_over_in_a_block_are_computed():
    """A register tile that does not divide a block's tiles: all blocks but the first were wrong."""
    spec, cases = conv(8, 32, (24, 42), (3, 3)), []
    for rows, points in ((1, 4), (2, 3)):
        knobs = {**ALGORITHM.with_lengths(spec, TARGET, 8, 8, 3, rows), "points": points}
        cases.append(Case("fft", spec, (), tuple(knobs.items())))
    for result in ConvModule(cases, TARGET).run(exact=False):
        assert_bounded(result.actual, result.expected, fft_bound(result))


@pytest.mark.parametrize("group", [1, 19], ids=["dense", "depthwise"])
def test_epilogues(group):
    spec = conv(19, 19, (11, 13), (5, 5), n=2, g=group)
    epilogues = [
        (Step("bias"), Step("add"), Step("relu")),
        (Step("bias"), Step("silu")),
        (Step("clip", (0.0, 6.0)), Step("add")),
    ]
    module = ConvModule([case(spec, (12, 16), epilogue=e) for e in epilogues], TARGET)
    for result in module.run(exact=True):
        bound = scalar_error(result.case.epilogue, result.expected) + 1.5 * fft_bound(result)
        assert_bounded(result.actual, result.expected, bound)


@pytest.mark.parametrize("cores", [2, 8])
def test_several_cores_give_the_same_bits_as_one(cores):
    spec = conv(32, 40, (30, 30), (7, 7))
    target = TARGET.with_cores(cores)
    cases = [case(spec, (16, 16), whole=whole) for whole in (True, False)]
    cases.append(case(conv(32, 32, (30, 30), (7, 7), g=32), (16, 16)))
    for one, many in zip(
        ConvModule(cases, TARGET).run(exact=False),
        ConvModule(cases, target, threads=usable_threads()).run(exact=False),
        strict=True,
    ):
        np.testing.assert_array_equal(one.actual, many.actual)


@pytest.mark.parametrize("products", [3, 4])
@pytest.mark.parametrize("group", [1, 8], ids=["dense", "depthwise"])
def test_the_algorithm_as_it_stands_is_right(group, products):
    """Its sums of cosines, compiled without a schedule, give what the schedule's programs give."""
    spec = conv(8, 8, (9, 10), (3, 5), g=group)
    knobs = {
        **ALGORITHM.with_lengths(spec, TARGET, 8, 12, products, 1),
        "data_block": 8,
        "block": 8,
    }
    problem = Problem(spec)
    border = ALGORITHM.operands(problem, TARGET, knobs).border
    rng = np.random.default_rng(0)
    x, w = whole_numbers(rng, spec.data), whole_numbers(rng, spec.weight)
    padded = np.pad(x, ((0, 0), (0, 0), (border.top, border.bottom), (border.left, border.right)))
    blocked = np.ascontiguousarray(padded[:, None].transpose(0, 1, 3, 4, 2))
    func = te.create_prim_func(list(ALGORITHM.compute(problem, TARGET, knobs)))
    kernel = tvm.compile(func, target=TARGET.tvm())
    y = tensor(np.zeros((1, 1, *spec.output[2:], 8), np.float32))
    kernel["main"](tensor(blocked), tensor(ALGORITHM.pack(w, problem, knobs)), y)
    exact = convolve(x.astype(np.float64), w.astype(np.float64), spec)
    np.testing.assert_array_equal(np.rint(y.numpy()[:, 0].transpose(0, 3, 1, 2)), exact)


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        (conv(64, 64, (56, 56), (3, 3)), "winograd"),
        (conv(256, 256, (14, 14), (3, 3)), "winograd"),
        (conv(192, 32, (28, 28), (5, 5)), "winograd"),
        (conv(64, 64, (56, 56), (5, 5)), "fft"),
        (conv(64, 64, (56, 56), (7, 7)), "fft"),
        (conv(64, 64, (112, 112), (11, 11)), "fft"),
        (conv(128, 128, (17, 17), (1, 7)), "fft"),
        (conv(16, 16, (112, 112), (31, 31)), "fft"),
        (conv(144, 144, (56, 56), (3, 3), g=144), "depthwise"),
        (conv(240, 240, (28, 28), (5, 5), g=240), "depthwise"),
        (
            conv(128, 128, (56, 56), (7, 7), g=128),
            "depthwise",
        ),  # within 10 %: not worth 8 times the weights
        (conv(128, 128, (56, 56), (9, 9), g=128), "fft"),
        (conv(128, 128, (56, 56), (13, 13), g=128), "fft"),
        # Summed over the data, 196 products for 729: 0.11 of ONNX Runtime's time.
        (conv(512, 512, (14, 14), (27, 27), g=512), "depthwise"),
    ],
    ids=lambda v: v.key if isinstance(v, ConvSpec) else v,
)
def test_the_estimate_chooses_what_measured_fastest(spec, chosen):
    rows = [row for row in candidates(Problem(spec), ZEN4) if row.seconds is not None]
    assert min(rows, key=lambda row: row.seconds).algorithm == chosen


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (ConvSpec.of((1, 8, 9, 9), (8, 8, 5, 5), strides=(2, 1)), "strides must be 1; got (2, 1)"),
        (ConvSpec.of((1, 8, 9, 9), (8, 8, 1, 1)), "filter must have more than one tap; got (1, 1)"),
        (ConvSpec.of((1, 8, 70, 9), (8, 1, 65, 3), group=8), "depthwise, the filter must have at most 64 taps an axis; got (65, 3)"),
    ],
    ids=lambda v: v.key if isinstance(v, ConvSpec) else None,
)  # fmt: skip
def test_refusals_have_reasons(spec, reason):
    refusal = ALGORITHM.supports(Problem(spec), TARGET)
    assert refusal is not None
    assert refusal.reason == reason
