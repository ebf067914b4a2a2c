"""Estimates for several threads: what sharing costs is no reason to share."""

from __future__ import annotations

import pytest

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.sharing import PARALLEL, turns
from convc.schedules.table import algorithm_named
from convc.target import Target, parse_target

SMALL = ConvSpec.of((1, 16, 7, 7), (16, 16, 3, 3), pads=(1,) * 4)
LARGE = ConvSpec.of((1, 256, 14, 14), (256, 256, 3, 3), pads=(1,) * 4)


@pytest.mark.parametrize("threads", [8, 64])
@pytest.mark.parametrize("name", ["winograd", "fft", "im2col", "direct"])
def test_a_kernel_of_little_work_stays_on_one_thread(name, threads):
    algorithm, one = algorithm_named(name), parse_target(cores=1)
    many, backend = one.with_cores(threads), backend_of(one)
    for spec, shared in ((SMALL, 0), (LARGE, 1)):
        problem = Problem(spec)
        knobs = algorithm.knobs(problem, many)

        def cycles(target: Target, knobs=knobs, problem=problem) -> float:
            return algorithm.cycles(problem, target, knobs)

        assert backend.threads(cycles, many) == {"parallel": shared}
        alone = backend.seconds(cycles(one), one)
        assert (backend.estimate(cycles, many) < alone) == shared
        assert backend.estimate(cycles, many) <= alone


def test_work_that_one_thread_must_do_is_not_launched():
    backend, many = backend_of(parse_target()), parse_target(cores=8)

    def one_unit(target: Target) -> float:
        return 100 * PARALLEL * turns(1, target)

    assert backend.threads(one_unit, many) == {"parallel": 0}
    assert backend.threads(lambda t: 100 * PARALLEL, many) == {"parallel": 1}


def test_a_pool_behind_winograd_is_shared_out_by_groups_of_channels():
    """Plane by plane, a block's products are shared by planes, too; its strip's inverse transform is not."""
    problem, many = Problem(LARGE), parse_target("llvm", "x86-64-v4", 24)
    knobs = {**algorithm_named("winograd").with_tile(LARGE, many, 4, 4, planes=1), "chunks": 1}
    algorithm = algorithm_named("winograd")
    assert algorithm.cycles(problem, many, {**knobs, "strip": 7}) > algorithm.cycles(problem, many, knobs)  # fmt: skip
