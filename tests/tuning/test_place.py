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
        local = LocalPlace(self)  # type: ignore[arg-type]
        weight = np.ones((64, 1024), np.float32)
        arguments = [local.tensor(np.ones(4, np.float32)), local.tensor(weight), None]
        launch = Launch({"f": self.kernel}, "f", arguments, {1: weight})
        return [round(s, 9) for s in local.time(launch, rounds, 0.01, mode)]


def test_a_sample_is_the_median_over_the_pace_around_it(monkeypatch):
    # Two calls that do not count; one of ten is held up for 100 ms; the machine is half as fast from the second sample on.
    takes = [9e-3, 9e-3, *([1e-3] * 5), 1e-1, *([2e-3] * 5)]
    machine = Machine(takes, [1.0, 1.0, 2.0])
    assert machine.samples(monkeypatch, 2, "cold") == [1e-3, round(2e-3 / 1.5, 9)]


def test_cold_weights_are_another_copy_at_every_call(monkeypatch):
    machine = Machine([], [1.0] * 4)
    machine.samples(monkeypatch, 3, "cold")
    assert len({id(w) for w in machine.weights}) == len(machine.weights) == 2 + 3 * 10
    warm = Machine([], [1.0] * 4)
    warm.samples(monkeypatch, 3, "warm")
    assert len({id(w) for w in warm.weights}) == 1
