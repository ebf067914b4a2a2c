"""A line of the cache goes between two cores and back in a time that is more than nothing."""

from __future__ import annotations

import os

import pytest

from benchmarks import core_distance

cores = sorted(os.sched_getaffinity(0))


@pytest.mark.skipif(len(cores) < 2, reason="one core")
def test_the_way_takes_time_and_the_caller_stays_free(capsys):
    assert core_distance.core_distance(cores[0], cores[1]) > 0
    assert sorted(os.sched_getaffinity(0)) == cores
    assert core_distance.main(["--times", "2", "--pause", "0"]) == 0
    assert capsys.readouterr().out.count(" ns") == 2 * (len(cores) - 1)


def test_one_core_is_not_two():
    with pytest.raises(core_distance.InputError, match="cores must be two of"):
        core_distance.core_distance(cores[0], cores[0])
