"""Estimates for several threads: what sharing costs is no reason to share."""

from __future__ import annotations

import pytest

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.sharing import PARALLEL
from convc.schedules.table import algorithm_named
from convc.target import parse_target

SMALL = ConvSpec.of((1, 16, 7, 7), (16, 16, 3, 3), pads=(1,) * 4)
LARGE = ConvSpec.of((1, 256, 14, 14), (256, 256, 3, 3), pads=(1,) * 4)


@pytest.mark.parametrize("threads", [8, 64])
@pytest.mark.parametrize("name", ["winograd", "fft", "im2col"])
def test_a_kernel_of_little_work_stays_on_one_thread(name, threads):
    algorithm, one = algorithm_named(name), parse_target(cores=1)
    many = one.with_cores(threads)
    for spec, shared in ((SMALL, False), (LARGE, True)):
        problem = Problem(spec)
        for knobs in (algorithm.knobs(problem, one), algorithm.knobs(problem, many)):
            assert (algorithm.cycles(problem, many, knobs) > PARALLEL) == shared
