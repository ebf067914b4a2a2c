"""Winograd beyond the grid: every m, every kind of filter, tiles that hang over the edge, and error against its own bound."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tvm_ffi
from tvm import tirx

from convc.ir.spec import ConvSpec
from convc.lowering.kernels import scheduled
from convc.runtime.host import usable_threads
from convc.schedules.algorithm import Problem
from convc.schedules.cook_toom import cook_toom
from convc.schedules.rank import raised
from convc.schedules.winograd import ALGORITHM
from convc.schedules.winograd_tiles import Tiles, taps_of
from convc.target import parse_target
from tests.schedules.conv_module import Case, ConvModule
from tests.tolerance import assert_bounded, assert_exact, error_bound

TARGET = parse_target(cores=1)

# fmt: off
SPECS = {
    "whole tiles": ConvSpec.of((1, 32, 12, 12), (32, 32, 3, 3), pads=(1, 1, 1, 1)),
    "tiles over both edges": ConvSpec.of((1, 20, 13, 17), (37, 20, 3, 3), pads=(1, 1, 0, 1)),
    "batch": ConvSpec.of((3, 16, 7, 9), (16, 16, 3, 3), pads=(1, 1, 1, 1)),
    "no padding": ConvSpec.of((1, 8, 9, 9), (8, 8, 3, 3)),
    "pads beyond the filter": ConvSpec.of((1, 8, 5, 5), (8, 8, 3, 3), pads=(4, 3, 2, 5)),
    "5x5": ConvSpec.of((1, 16, 11, 10), (24, 16, 5, 5), pads=(2, 2, 2, 2)),
    "3x5": ConvSpec.of((1, 16, 11, 10), (16, 16, 3, 5), pads=(1, 2, 1, 2)),
    "1x7": ConvSpec.of((1, 16, 5, 17), (16, 16, 1, 7), pads=(0, 3, 0, 3)),
    "3x1": ConvSpec.of((1, 16, 17, 5), (16, 16, 3, 1), pads=(1, 0, 1, 0)),
    "2x2": ConvSpec.of((1, 8, 9, 12), (8, 8, 2, 2)),
    "strides": ConvSpec.of((1, 16, 13, 14), (24, 16, 3, 3), strides=(2, 2), pads=(1, 1, 0, 1)),
    "strides that differ, 7x5": ConvSpec.of((1, 8, 15, 11), (16, 8, 7, 5), strides=(3, 2), pads=(3, 2, 3, 2)),
    "strides over the filter": ConvSpec.of((1, 8, 15, 11), (16, 8, 3, 2), strides=(1, 3)),
    "dilations": ConvSpec.of((1, 20, 13, 17), (16, 20, 3, 3), dilations=(2, 3), pads=(2, 3, 2, 3)),
    "dilation of one axis, stride of the other": ConvSpec.of((1, 8, 13, 15), (8, 8, 3, 3), dilations=(3, 1), strides=(1, 2)),
    "groups of whole blocks": ConvSpec.of((1, 64, 7, 9), (32, 32, 3, 3), pads=(1,) * 4, group=2),
    "groups of parts of blocks": ConvSpec.of((1, 36, 7, 9), (36, 12, 3, 3), pads=(1,) * 4, group=3),
    "3-D": ConvSpec.of((2, 16, 5, 9, 7), (16, 16, 3, 3, 3), pads=(1,) * 6),
    "3-D, depth strided and dilated": ConvSpec.of((1, 8, 11, 8, 8), (8, 8, 3, 3, 3), strides=(2, 1, 1), dilations=(2, 1, 1), pads=(2, 1, 1) * 2),
    "3-D, strides": ConvSpec.of((1, 8, 7, 9, 9), (8, 8, 3, 3, 3), strides=(2, 2, 2), pads=(1,) * 6),
    "1-D": ConvSpec.of((2, 16, 23), (20, 16, 5), pads=(2, 2)),
    "transposed": ConvSpec.of((1, 16, 6, 7), (16, 20, 4, 4), strides=(2, 2), pads=(1,) * 4, transposed=True),
    "transposed, strides that differ": ConvSpec.of((1, 8, 5, 6), (8, 16, 5, 3), strides=(2, 1), pads=(2, 1, 1, 1), transposed=True),
    "transposed, groups": ConvSpec.of((1, 32, 5, 6), (32, 8, 4, 6), strides=(2, 3), pads=(1,) * 4, output_padding=(0, 2), group=2, transposed=True),
    "one channel": ConvSpec.of((1, 1, 9, 9), (1, 1, 3, 3), pads=(1, 1, 1, 1)),
}
# fmt: on


def case(spec: ConvSpec, m: int, rows: int, slices: int = 1, planes: int = 0) -> Case:
    knobs = ALGORITHM.with_tile(raised(spec), TARGET, m, rows, slices, planes)
    return Case("winograd", spec, (), tuple(knobs.items()))


def all_cases() -> list[Case]:
    """Return every spec with one of the m that have points, in turn, by single tile rows or slices or all at once, in both orders."""
    cases = []
    for index, spec in enumerate(SPECS.values()):
        fitting = [m for m in range(2, 7) if Tiles.fit(raised(spec), m)]
        m = fitting[index % len(fitting)]
        whole = Tiles.of(raised(spec), m).high.blocks
        slices = spec.output[2] if spec.rank == 3 else 1
        rows, slices = (1, slices) if index % 2 else (whole, 1)
        cases.append(case(spec, m, rows, slices, planes=index // 2 % 2))
    return cases


def every_case() -> list[Case]:
    """Return every spec with every m that has points, in blocks of one tile row and of all, in both orders in turn."""
    cases = []
    for index, spec in enumerate(SPECS.values()):
        slices = spec.output[2] if spec.rank == 3 else 1
        for m in (m for m in range(2, 7) if Tiles.fit(raised(spec), m)):
            whole = Tiles.of(raised(spec), m).high.blocks
            sizes = (1, slices) if (index + m) % 2 else (whole, 1)
            cases.append(case(spec, m, *sizes, planes=(index + m) // 2 % 2))
    return cases


@pytest.mark.slow
def test_error_is_within_the_bound_for_every_spec_and_m():
    module = ConvModule(every_case(), TARGET)
    assert len(module.cases) == 115
    for result in module.run(exact=False):
        spec = result.case.spec
        bound = error_bound("winograd", result.data, result.weight, spec, result.knobs)
        assert_bounded(result.actual, result.expected, bound)


def test_error_is_within_the_bound_for_every_m():
    module = ConvModule(all_cases(), TARGET)
    assert {dict(case.knobs)["m"] for case in module.cases} == {2, 3, 4, 5, 6}
    for result in module.run(exact=False):
        spec = result.case.spec
        bound = error_bound("winograd", result.data, result.weight, spec, result.knobs)
        assert_bounded(result.actual, result.expected, bound)


def test_the_bound_is_never_below_the_direct_one_and_grows_with_m():
    rng = np.random.default_rng(0)
    for spec in SPECS.values():
        x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (spec.data, spec.weight))
        direct = error_bound("direct", x, w, spec, {})
        bounds = [
            error_bound("winograd", x, w, spec, {"m": m})
            for m in (2, 4)
            if Tiles.fit(raised(spec), m)
        ]
        assert all((bound >= 0.99 * direct).all() for bound in bounds)
        assert all(a.mean() < b.mean() for a, b in itertools.pairwise(bounds))


def test_eight_threads_share_out_the_parts_of_a_block():
    """A block is too few to share out for 8 threads: tiles, planes and rows are, in both orders, and give the same bits."""
    cases = []
    for index, spec in enumerate(SPECS.values()):
        whole = Tiles.of(raised(spec), 2).high.blocks
        cases.append(case(spec, 2, whole, planes=index % 2))
    one, many = (
        ConvModule(cases, TARGET.with_cores(cores), threads=threads).run(exact=False)
        for cores, threads in ((1, 1), (8, usable_threads()))
    )
    for alone, shared in zip(one, many, strict=True):
        np.testing.assert_array_equal(alone.actual, shared.actual)


def test_f2_is_exact_on_whole_numbers():
    # Points 0, 1 and -1 alone: three taps a phase.
    cases = [
        case(spec, 2, 1)
        for spec in SPECS.values()
        if {taps_of(raised(spec), axis) for axis in (-2, -1)} <= {1, 3}
    ]
    assert len(cases) >= 10
    for result in ConvModule(cases, TARGET).run(exact=True):
        assert_exact(result.actual, result.expected)


def test_multiplications_fall_as_the_theory_says():
    for m, ratio in ((2, 2.25), (4, 4.0), (6, 5.0625)):
        t = cook_toom(m, 3)
        assert (m * 3) ** 2 / t.alpha**2 == ratio


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (ConvSpec.of((1, 8, 9, 9), (8, 8, 3, 3), strides=(2, 1), dilations=(2, 1)), "strides or dilations must be 1 on every axis; got (2, 1) and (2, 1)"),
        (ConvSpec.of((1, 8, 9, 9), (8, 8, 1, 1)), "filter must have an axis of 2 to 7 taps a phase and none above; got (1, 1) of (1, 1)"),
        (ConvSpec.of((1, 8, 19, 19), (8, 8, 9, 9)), "filter must have an axis of 2 to 7 taps a phase and none above; got (9, 9) of (9, 9)"),
        (ConvSpec.of((1, 8, 9, 9), (8, 8, 3, 3), strides=(2, 2), transposed=True), "output must be a multiple of the strides (2, 2); got (19, 19)"),
        (ConvSpec.of((1, 8, 9, 9, 9), (8, 8, 3, 3, 3), transposed=True), "data must have at most 2 spatial dimensions; got 3"),
    ],
    ids=lambda v: v.key if isinstance(v, ConvSpec) else None,
)  # fmt: skip
def test_refusals_have_reasons(spec, reason):
    refusal = ALGORITHM.supports(Problem(spec), TARGET)
    assert refusal is not None
    assert refusal.reason == reason


@pytest.mark.parametrize("name", ["dilations", "dilation of one axis, stride of the other"])
def test_a_tile_is_transformed_back_once(name):
    """No loop over the phase images before one's own: its length would depend on the image."""
    problem = Problem(raised(SPECS[name]))
    knobs = ALGORITHM.knobs(problem, TARGET)
    tensors = ALGORITHM.compute(problem, TARGET, knobs)
    lengths = []
    func = scheduled(ALGORITHM, problem, tensors, TARGET, knobs)
    tvm_ffi.structural_walk(func.body, (tirx.For, lambda loop: lengths.append(loop.extent)))
    assert lengths
    assert all(isinstance(length, tirx.IntImm) for length in lengths)
