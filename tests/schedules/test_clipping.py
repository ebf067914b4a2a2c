"""Taps that a tile would read from padding alone are skipped: the numbers are the same, the work is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import te

from convc.ir import ConvSpec, Step
from convc.schedules.algorithm import Problem
from convc.schedules.clipping import clips, share
from convc.schedules.direct import ALGORITHM
from convc.schedules.llvm.convolutions import SCHEDULES
from convc.schedules.properties import properties_of
from convc.target import parse_target
from tests.schedules.conv_module import Case, ConvModule
from tests.tolerance import EPS, assert_bounded, assert_exact, error_bound

HOST = parse_target(cores=1)


def conv(c, k, extents, kernel, **geometry) -> ConvSpec:
    return ConvSpec.of((2, c, *extents), (k, c // geometry.get("group", 1), *kernel), **geometry)


SPECS = {
    "far apart": conv(20, 40, (14, 14), (3, 3), pads=(12,) * 4, dilations=(12, 12)),
    "rows alone": conv(8, 24, (9, 20), (3, 3), pads=(8, 1, 8, 1), dilations=(8, 1)),
    "pads that differ": conv(8, 24, (9, 11), (3, 3), pads=(9, 0, 5, 12), dilations=(7, 6)),
    "a stride": conv(8, 24, (13, 13), (3, 3), pads=(10,) * 4, dilations=(10, 10), strides=(2, 3)),
    "five taps": conv(8, 24, (10, 10), (5, 5), pads=(10,) * 4, dilations=(5, 5)),
    "more padding than data": conv(8, 24, (3, 3), (3, 3), pads=(6,) * 4, dilations=(2, 2)),
    "RGB": conv(3, 24, (9, 9), (3, 3), pads=(8,) * 4, dilations=(8, 8)),
    "groups": conv(32, 32, (9, 9), (3, 3), pads=(7,) * 4, dilations=(7, 7), group=2),
    "1-D": conv(8, 24, (16,), (3,), pads=(14, 14), dilations=(14,)),
    "3-D": conv(8, 24, (5, 6, 7), (3, 3, 3), pads=(4, 5, 6) * 2, dilations=(4, 5, 6)),
}  # fmt: skip


def test_numbers_are_the_same():
    cases = []
    for spec in SPECS.values():
        problem = Problem(spec)
        assert {knobs["clip"] for knobs in ALGORITHM.space(problem, HOST)} == {0, 1}
        chosen = ALGORITHM.knobs(problem, HOST)
        for tile in ({}, {"rows": 2, "cols": 3, "vectors": 1}):
            knobs = tuple({**chosen, **tile, "chunks": 1, "clip": 1}.items())
            cases.append(Case("direct", spec, (), knobs))
    module = ConvModule(cases, HOST)
    for result in module.run(exact=True):
        assert_exact(result.actual, result.expected)
    for result in module.run(exact=False):
        bound = error_bound("direct", result.data, result.weight, result.case.spec, {})
        assert_bounded(result.actual, result.expected, bound)


def test_sums_in_parts_of_the_channels():
    cases = []
    for name in ("far apart", "a stride", "1-D", "3-D"):
        spec = replace(SPECS[name], data=(2, 64, *SPECS[name].data[2:]), weight=(40, 64, *SPECS[name].kernel))  # fmt: skip
        for parts, clip, tile in ((2, 1, {}), (4, 0, {"rows": 2, "cols": 3, "vectors": 2})):
            knobs = {**ALGORITHM.knobs(Problem(spec), HOST), "data_block": 16, "block": 16}
            knobs |= {"chunks": 1, "clip": clip, "parts": parts, **tile}
            cases.append(Case("direct", spec, (Step("bias"), Step("relu")), tuple(knobs.items())))
    module = ConvModule(cases, HOST)
    for result in module.run(exact=True):
        assert_exact(result.actual, result.expected)
    for result in module.run(exact=False):
        bound = error_bound("direct", result.data, result.weight, result.case.spec, {})
        assert_bounded(result.actual, result.expected, bound + 4 * EPS * np.abs(result.expected))


def test_panels_beyond_the_cache_are_summed_in_parts():
    # The CPU on which it was measured: others take narrower panels.
    machine = replace(parse_target("llvm", "emeraldrapids", 1), l2_bytes=2 << 20)
    far = ConvSpec.of((1, 2048, 65, 65), (256, 2048, 3, 3), pads=(36,) * 4, dilations=(36, 36))
    knobs = ALGORITHM.knobs(Problem(far), machine)
    assert knobs["parts"] == 4
    assert ALGORITHM.cycles(Problem(far), machine, knobs) < 0.7 * ALGORITHM.cycles(Problem(far), machine, {**knobs, "parts": 1})  # fmt: skip
    facts = properties_of(ALGORITHM, Problem(far), machine, knobs)
    assert facts.workspace == 4 * 4 * 16 * knobs["vectors"] * 65 * 65
    for spec in (
        SPECS["far apart"],
        ConvSpec.of((1, 2048, 9, 9), (256, 2048, 3, 3), pads=(1,) * 4),
    ):
        assert all("parts" not in k for k in ALGORITHM.space(Problem(spec), machine))


def test_estimates_count_what_is_left():
    spec = SPECS["far apart"]
    knobs = ALGORITHM.knobs(Problem(spec), HOST)
    assert knobs["clip"] == 1
    tile = (knobs["rows"], knobs["cols"])
    assert share(spec, tile) < 0.5
    half = ALGORITHM.cycles(Problem(spec), HOST, knobs)
    assert half < 0.6 * ALGORITHM.cycles(Problem(spec), HOST, {**knobs, "clip": 0})


def test_an_ordinary_border_is_no_reason():
    for size in (4, 7, 14):
        spec = conv(16, 16, (size, size), (3, 3), pads=(1, 1, 1, 1))
        assert not clips(spec)
        assert all("clip" not in knobs for knobs in ALGORITHM.space(Problem(spec), HOST))


def test_the_code_tests_before_it_sums():
    """Without the tests the numbers would be the same, too."""
    problem = Problem(SPECS["far apart"])
    knobs = {**ALGORITHM.knobs(problem, HOST), "clip": 1}

    def tests_in(knobs) -> int:
        func = te.create_prim_func(list(ALGORITHM.compute(problem, HOST, knobs)))
        return str(SCHEDULES["direct"](func, knobs, HOST)).count("if ")

    assert tests_in(knobs) == tests_in({**knobs, "clip": 0}) + 2
