"""Every algorithm for every x86-64 level: other vector widths, other numbers of registers, other blocks."""

from __future__ import annotations

import pytest

from convc.ir import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.table import ALGORITHMS, algorithm_named
from convc.target import parse_target
from convc.target.caches import host_caches
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


def test_the_caches_are_those_that_the_system_lists(tmp_path):
    listed = {
        "index0": ("1", "Data", "48K"),
        "index1": ("1", "Instruction", "32K"),
        "index2": ("2", "Unified", "2048K"),
        "index3": ("3", "Unified", "300M"),
        "index4": ("4", "Unified", "unknown"),
    }
    for name, row in listed.items():
        (tmp_path / name).mkdir()
        for file, text in zip(("level", "type", "size"), row, strict=True):
            (tmp_path / name / file).write_text(f"{text}\n")
    (tmp_path / "index5").mkdir()
    assert host_caches(tmp_path) == {1: 48 << 10, 2: 2 << 20, 3: 300 << 20}


def test_inner_products_read_data_beyond_l1_once_for_several_channels():
    """On Zen 4 14 x 14 points of 512 channels take 61 us where each of 16 results reads them, and 36 where two do at a time."""
    target, row = parse_target("llvm", "znver4", 1), algorithm_named("inner_product")
    problem = Problem(ConvSpec.of((1, 512, 14, 14), (16, 512, 1, 1)))
    knobs = row.knobs(problem, target)
    assert knobs["channels"] > 1
    assert row.cycles(problem, target, {**knobs, "rows": 1, "cols": 14, "channels": 1}) > 1.3 * row.cycles(problem, target, knobs)  # fmt: skip
