"""Winograd beyond the grid: every m, every kind of filter, tiles that hang over the edge, and error against its own bound."""

from __future__ import annotations

import pytest

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.cook_toom import cook_toom
from convc.schedules.winograd import ALGORITHM, transforms
from convc.target import parse_target
from tests.schedules.conv_module import Case, ConvModule
from tests.tolerance import assert_bounded, assert_exact, error_bound

TARGET = parse_target(cores=1)


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
    "one channel": ConvSpec.of((1, 1, 9, 9), (1, 1, 3, 3), pads=(1, 1, 1, 1)),
}


def case(spec: ConvSpec, m: int, rows: int) -> Case:
    return Case("winograd", spec, (), tuple(ALGORITHM.with_tile(spec, TARGET, m, rows).items()))


def all_cases() -> list[Case]:
    """Return every spec with every m that has points, in blocks of one tile row and of all in turn (0.3 s a kernel)."""
    cases = []
    for index, spec in enumerate(SPECS.values()):
        for m in range(2, 7):
            if all(r == 1 or m + r - 2 <= 7 for r in spec.kernel):
                whole = -(-spec.output[2] // transforms(spec, m)[0].m)
                cases.append(case(spec, m, whole if (index + m) % 2 else 1))
    return cases


def test_error_is_within_the_bound_for_every_m():
    module = ConvModule(all_cases(), TARGET)
    assert len(module.cases) == 42
    for result in module.run(exact=False):
        spec = result.case.spec
        bound = error_bound("winograd", result.data, result.weight, spec, result.knobs)
        assert_bounded(result.actual, result.expected, bound)


def test_f2_is_exact_on_whole_numbers():
    cases = [case(spec, 2, 1) for spec in SPECS.values() if max(spec.kernel) == 3]
    for result in ConvModule(cases, TARGET).run(exact=True):
        assert_exact(result.actual, result.expected)


def test_multiplications_fall_as_the_theory_says():
    for m, ratio in ((2, 2.25), (4, 4.0), (6, 5.0625)):
        t = cook_toom(m, 3)
        assert (m * 3) ** 2 / t.alpha**2 == ratio


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (ConvSpec.of((1, 8, 9, 9), (8, 8, 3, 3), strides=(2, 1)), "strides must be 1; got (2, 1)"),
        (ConvSpec.of((1, 8, 9, 9), (8, 8, 3, 3), dilations=(1, 2)), "dilations must be 1; got (1, 2)"),
        (ConvSpec.of((1, 8, 9, 9), (8, 4, 3, 3), group=2), "group must be 1; got 2"),
        (ConvSpec.of((1, 8, 9, 9), (8, 8, 1, 1)), "filter must have an axis of 3 to 7 taps and none above; got (1, 1)"),
        (ConvSpec.of((1, 8, 19, 19), (8, 8, 9, 9)), "filter must have an axis of 3 to 7 taps and none above; got (9, 9)"),
    ],
    ids=lambda v: v.key if isinstance(v, ConvSpec) else None,
)  # fmt: skip
def test_refusals_have_reasons(spec, reason):
    refusal = ALGORITHM.supports(Problem(spec), TARGET)
    assert refusal is not None
    assert refusal.reason == reason
