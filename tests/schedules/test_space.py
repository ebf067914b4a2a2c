"""The knob spaces: small, legal, holding the analytic choice, and every setting of them computes the same numbers."""

from __future__ import annotations

import random

import pytest

from convc.ir import ConvSpec, Step
from convc.schedules.algorithm import Problem, channel_blocks, knob_space, row_shares
from convc.schedules.register_tile import Tile, best_tile, good_tiles
from convc.schedules.table import ALGORITHMS
from convc.target import Target, parse_target
from tests.conv_grid import CONV_GRID
from tests.schedules.conv_module import Case, ConvModule
from tests.tolerance import INEXACT, assert_bounded, assert_exact, error_bound

AVX512 = Target("llvm", "x86_64-linux-gnu", "x86-64-v4", (), 16, 32)
AVX2 = Target("llvm", "x86_64-linux-gnu", "x86-64-v3", (), 8, 16)
HOST = parse_target(cores=1)

# With tails on every axis; 20 input and 37 output channels leave half-filled blocks.
CONV = ConvSpec.of((1, 20, 9, 13), (37, 20, 3, 3), pads=(1, 1, 1, 1))
DEPTHWISE = ConvSpec.of((1, 20, 9, 13), (20, 1, 3, 3), pads=(1, 1, 1, 1), group=20)
GROUPED = ConvSpec.of((1, 64, 5, 7), (96, 32, 1, 1), group=2)
UP = ConvSpec.of((1, 20, 5, 6), (20, 37, 4, 4), strides=(2, 2), pads=(1, 1, 1, 1), transposed=True)


def applies(algorithm, spec: ConvSpec, target: Target) -> bool:
    return algorithm.supports(Problem(spec), target) is None


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.name)
@pytest.mark.parametrize("target", [AVX512, AVX2, AVX512.with_cores(2)], ids=["512", "256", "two"])
def test_a_space_holds_the_analytic_choice_and_is_small(algorithm, target):
    rows = [row for row in CONV_GRID if applies(algorithm, row.spec, target)]
    assert rows
    for row in rows[::7]:
        problem = Problem(row.spec)
        chosen, own = algorithm.knobs(problem, target), list(algorithm.space(problem, target))
        settings = knob_space(algorithm, problem, target)
        assert settings[0] == chosen
        assert 1 <= len(settings) <= 1200
        assert len(settings) == len({tuple(sorted(s.items())) for s in (chosen, *own)})
        assert all(set(s) == set(chosen) for s in settings), row.id
        for setting in settings:
            assert 0 < algorithm.cycles(problem, target, setting) < float("inf")


def test_the_analytic_choice_is_in_the_space_itself():
    missing = []
    for algorithm in ALGORITHMS:
        for row in CONV_GRID:
            if applies(algorithm, row.spec, AVX512):
                problem = Problem(row.spec)
                if algorithm.knobs(problem, AVX512) not in list(algorithm.space(problem, AVX512)):
                    missing.append((algorithm.name, row.id))
    assert missing == []


def test_good_tiles_fit_and_hold_the_best():
    for target in (AVX512, AVX2):
        for rows, cols, vectors in ((1, 7, 3), (14, 14, 16), (56, 56, 4), (1, 1, 1)):
            tiles = good_tiles(target, rows, cols, vectors)
            assert best_tile(target, rows, cols, vectors) in tiles
            assert all(tile.fits(target) for tile in tiles)
    assert all(49 % t.cols == 0 for t in good_tiles(AVX512, 1, 49, 4, whole=True))
    assert good_tiles(AVX512, 4, 4, 1, vectors=(2, 3)) == []
    assert Tile(1, 14, 2) in good_tiles(AVX512, 56, 56, 4)


def test_blocks_and_shares():
    assert channel_blocks(24, AVX2) == (8,)
    assert row_shares(AVX512.with_cores(2), 7, 56) == (1, 2)
    assert row_shares(AVX512.with_cores(2), 8, 56) == (1,)
    assert row_shares(AVX512, 7, 56) == (1,)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "bounded"])
def test_settings_of_every_space_compute_the_same(exact):
    """A fixed draw of each algorithm's space, the most wasteful setting (the last) with it."""
    rng, cases = random.Random(3), []
    for algorithm in ALGORITHMS:
        if (algorithm.name in INEXACT) == exact:
            continue
        for spec in (CONV, DEPTHWISE, GROUPED, UP):
            problem = Problem(spec, (Step("bias"), Step("relu")))
            slow = algorithm.name == "fft" and spec is DEPTHWISE  # 6 s to compile a tile of 20 x 20
            twice = algorithm.name == "generic" and spec is not GROUPED
            if slow or twice or algorithm.supports(problem, HOST) is not None:
                continue
            settings = knob_space(algorithm, problem, HOST)
            drawn = [settings[-1], *rng.sample(settings[1:-1], min(1, len(settings[1:-1])))]
            epilogue = problem.epilogue
            cases += [Case(algorithm.name, spec, epilogue, tuple(s.items())) for s in drawn]
    results = ConvModule(cases, HOST).run(exact=exact)
    assert len(results) == len(cases) >= 4
    for result in results:
        if exact:
            assert_exact(result.actual, result.expected)
            continue
        name, spec = result.case.algorithm, result.case.spec
        bound = error_bound(name, result.data, result.weight, spec, result.knobs)
        assert_bounded(result.actual, result.expected, bound)
