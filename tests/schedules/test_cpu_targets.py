"""Every algorithm for every x86-64 level: other vector widths, other numbers of registers, other blocks."""

from __future__ import annotations

import pytest

from convc.schedules.algorithm import Problem
from convc.schedules.table import ALGORITHMS
from convc.target import parse_target
from tests.conv_grid import CONV_GRID
from tests.schedules.conv_module import Case, ConvModule
from tests.tolerance import assert_bounded, error_bound

LEVELS = [
    ("x86-64-v2", 4, 16),
    pytest.param("x86-64-v3", 8, 16, marks=pytest.mark.isa("avx2", "fma")),
    pytest.param("x86-64-v4", 16, 32, marks=pytest.mark.isa("avx512f", "avx512vl")),
]
# Rows that each algorithm runs on each level.
ROWS = 2


@pytest.mark.parametrize(("mcpu", "lanes", "registers"), LEVELS)
def test_numbers_on_every_level(mcpu, lanes, registers):
    target = parse_target("llvm", mcpu)
    assert (target.lanes, target.registers) == (lanes, registers)
    cases = []
    for algorithm in ALGORITHMS:
        rows = [
            r
            for r in CONV_GRID
            if r.group != "tiny" and not algorithm.supports(Problem(r.spec), target)
        ]
        # Of blocks of 4 channels few hold several groups.
        least = 2 if algorithm.name == "grouped" else 5
        assert len(rows) > least, f"{algorithm.name} takes too little of the grid"
        # Those with the least work have the least code; the first of them, spread over what is left.
        rows = sorted(rows, key=lambda r: r.spec.nbytes)[: 4 * ROWS]
        cases += [Case(algorithm.name, row.spec) for row in rows[:: len(rows) // ROWS][:ROWS]]
    module = ConvModule(cases, target)
    assert module.manifest.target.mcpu == mcpu
    for result in module.run(exact=False):
        bound = error_bound(
            result.case.algorithm, result.data, result.weight, result.case.spec, result.knobs
        )
        assert_bounded(result.actual, result.expected, bound)
