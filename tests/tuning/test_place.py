"""How a sample is made of calls, on a clock that the calls move themselves: nothing here takes time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from convc.tuning import place
from convc.tuning.place import Launch, LocalPlace


class Machine:
    """A clock, a kernel that takes 1 ms of it, or what `takes` says next, and a reference that tells its pace."""

    def __init__(self, takes: list[float], paces: list[float]) -> None:
        self.time = 0.0
        self.takes: Iterator[float] = itertools.chain(takes, itertools.repeat(1e-3))
        self.paces = iter(paces)
        self.weights: list[object] = []

    def perf_counter(self) -> float:
        return self.time

    def kernel(self, data: object, weight: object, result: object) -> None:
        self.weights.append(weight)
        self.time += next(self.takes)

    def now(self) -> float:
        return next(self.paces)

    def samples(self, monkeypatch: pytest.MonkeyPatch, rounds: int, mode: place.Mode) -> list[float]:  # fmt: skip
        monkeypatch.setattr(place.time, "perf_counter", self.perf_counter)
        local = LocalPlace(self.now)
        weight = np.ones((64, 1024), np.float32)
        arguments = [local.tensor(np.ones(4, np.float32)), local.tensor(weight), None]
        launch = Launch({"f": self.kernel}, "f", arguments, {1: weight})
        return [round(s, 9) for s in local.time(launch, rounds, 0.01, mode)]


def test_a_sample_is_the_median_over_the_pace_around_it(monkeypatch):
    # Two calls that do not count; then one of six is held up for 100 ms.
    machine = Machine([9e-3, 9e-3, *([1e-3] * 5), 1e-1], [1.0, 1.0])
    assert machine.samples(monkeypatch, 1, "cold") == [1e-3]
    slow = Machine([2e-3] * 7, [2.0, 2.1])
    assert slow.samples(monkeypatch, 1, "cold") == [1e-3]


def test_what_was_measured_while_the_pace_changed_is_measured_again(monkeypatch):
    machine = Machine([2e-3] * 7, [1.0, 2.0, 2.0, 2.0])
    # The first attempt is dropped; calls take 1 ms at half of the pace from then on.
    assert machine.samples(monkeypatch, 2, "cold") == [5e-4, 5e-4]
    # It never is steady: not believed to be faster than by the better of the last two paces.
    restless = Machine([], [1.0, 3.0, 1.0, 4.0, 2.0])
    assert restless.samples(monkeypatch, 1, "cold") == [5e-4]


def test_cold_weights_are_another_copy_at_every_call(monkeypatch):
    machine = Machine([], [1.0] * 4)
    machine.samples(monkeypatch, 3, "cold")
    assert len({id(w) for w in machine.weights}) == len(machine.weights) == 2 + 3 * 10
    warm = Machine([], [1.0] * 4)
    warm.samples(monkeypatch, 3, "warm")
    assert len({id(w) for w in warm.weights}) == 1
