"""The search on a made-up landscape: what it tries first, where it walks, when it stops, and that it goes on from records."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from convc.errors import TuningError, UnknownNameError
from convc.ir import ConvSpec
from convc.ir.ops.pool import MaxPoolAttributes
from convc.ir.text import parse
from convc.schedules.algorithm import Problem
from convc.schedules.policy import Policy
from convc.schedules.pooled import Pooled
from convc.target import parse_target
from convc.tuning.calibration import Calibration
from convc.tuning.layer import Layer
from convc.tuning.options import Options
from convc.tuning.rpc import Address
from convc.tuning.search import Search, Trial, neighbours
from convc.tuning.setting import Setting
from convc.tuning.subjects import subject_of
from convc.tuning.subjects.pooled import PooledConvolution
from convc.tuning.tasks import Task, chain_tasks_of, tasks_of
from tests.tuning.records import AVX512, LIMITS, PROBLEM

GRID = [
    Setting(name, {"rows": r, "cols": c}, base * (1 + 0.04 * (abs(r - 2) + abs(c - 3))))
    for name, base in (("a", 1.0), ("b", 1.2), ("hopeless", 90.0))
    for r in range(1, 6)
    for c in range(1, 7)
]
GRID.sort(key=lambda s: s.seconds)


def truth(setting: Setting) -> float:
    """Where the model is wrong: the best is a's (4, 5), and b is twice as fast as estimated."""
    r, c = setting.knobs["rows"], setting.knobs["cols"]
    return {"a": 1.0, "b": 1.6, "hopeless": 50.0}[setting.algorithm] * (1 + 0.2 * (abs(r - 4) + abs(c - 5)))  # fmt: skip


def run(search: Search, limit: int = 1000) -> int:
    rounds = 0
    while (batch := search.next()) and rounds < limit:
        rounds += 1
        for setting in batch:
            search.known[setting.key] = Trial(truth(setting))
    return rounds


def test_it_walks_to_the_best_with_few_measurements():
    search = Search(GRID, most=40)
    run(search)
    best = search.best
    assert best is not None
    assert (best[0].algorithm, dict(best[0].knobs)) == ("a", {"rows": 4, "cols": 5})
    assert search.measured <= 40 < len(GRID)


def test_every_algorithm_that_is_not_hopeless_is_measured_first():
    first = Search(GRID).next()
    assert {s.algorithm for s in first} == {"a", "b"}
    assert first[0] == GRID[0]
    assert len(first) == 10


def test_of_an_algorithm_that_is_neither_promising_nor_hopeless_one_setting_is_measured():
    fair = [Setting("fair", {"rows": r}, 2.0 + 0.01 * r) for r in range(5)]
    first = Search(sorted([*GRID, *fair], key=lambda s: s.seconds)).next()
    assert [s for s in first if s.algorithm == "fair"] == fair[:1]


def test_times_of_settings_that_are_not_asked_for_do_not_end_the_walk():
    alone, beside = Search(GRID), Search(GRID)
    # As where an earlier run has tuned with an algorithm that this one leaves out.
    beside.known = {("other", ()): Trial(0.5)}
    assert run(alone) == run(beside) > 1


def test_a_library_s_own_searches_are_measured_whatever_the_model_says():
    """Beyond the limit, and where nothing else is left to do: hopeless by estimate, it is the fastest."""
    library = Setting("library", {"search": 1}, 1e3, always=True)
    for search in (Search([*GRID, library], most=0), Search([*GRID, library], roofline=1.0)):
        search.known[GRID[0].key] = Trial(1.0)
        assert search.next() == [library]
        search.known[library.key] = Trial(0.5)
        assert search.next() == []
        assert search.best == (library, 0.5)


def test_it_goes_on_as_if_it_had_never_stopped():
    whole, parts = Search(GRID), Search(GRID)
    run(whole)
    while run(parts, limit=1):
        parts = Search(GRID, known=dict(parts.known))
    assert list(parts.known) == list(whole.known)
    assert parts.next() == []


def test_it_stops_at_the_roofline_and_at_its_limit():
    near = Search(GRID, roofline=truth(GRID[0]))
    run(near)
    assert near.measured == 10
    few = Search(GRID, most=7)
    run(few)
    assert few.measured == 7


def test_failures_and_inexact_settings_never_win():
    search = Search(GRID, max_error=1e-5)
    for setting in search.next():
        search.known[setting.key] = Trial(None)
    assert search.best is None
    assert search.next() == [s for s in GRID if s.key not in search.known][:6]
    search.known[GRID[20].key] = Trial(1e-9, error=1e-3)
    search.known[GRID[21].key] = Trial(2.0, error=1e-6)
    assert search.best is not None
    assert search.best[0] == GRID[21]


def test_settings_that_are_likely_too_inexact_take_no_others_place():
    """The twenty fastest of `a` by estimate are expected to be beyond the limit: one of them is measured, and the exact ones."""
    expected = {s.key: 2e-5 if i < 20 else 1e-6 for i, s in enumerate(s for s in GRID if s.algorithm == "a")}  # fmt: skip
    settings = [replace(s, error=expected.get(s.key, 1e-6)) for s in GRID]
    search = Search(settings, max_error=1e-5)
    first = search.next()
    assert sum(s.error > 1e-5 for s in first) == 1
    assert sum(s.algorithm == "a" and s.error == 1e-6 for s in first) >= 4
    # What the model was wrong about is found out once: those that it expects to err as much are not tried then, by any step.
    optimistic = [replace(s, error=0.9e-5 if s.error == 2e-5 else s.error) for s in settings]
    search = Search(optimistic, max_error=1e-5, most=1000)
    assert sum(s.error == 0.9e-5 for s in search.next()) >= 4
    tried = 0
    while batch := search.next():
        for setting in batch:
            inexact = setting.error == 0.9e-5
            tried += inexact
            search.known[setting.key] = Trial(truth(setting), 1.2e-5 if inexact else 1e-6)
    assert tried == sum(s.error == 0.9e-5 for s in Search(optimistic, max_error=1e-5).next())
    assert search.best is not None
    assert search.best[0].error == 1e-6


def test_a_wrong_setting_says_nothing_of_the_others():
    """Its error is no rounding: those that are expected to round as it was are tried all the same."""
    search = Search([replace(s, error=1e-7) for s in GRID], max_error=1e-5, most=1000)
    while batch := search.next():
        for setting in batch:
            search.known[setting.key] = Trial(truth(setting), 1e-7)
        search.known[batch[0].key] = Trial(None, 0.7)
    assert search.measured == len(GRID)


def test_the_choice_is_measured_first_beside_a_much_faster_inexact_setting():
    rows = [("a", 6, 1.0, 1.5e-5), ("a", 4, 1.5, 3e-6), ("a", 2, 3.0, 1e-6), ("b", 1, 2.0, 1e-7)]
    settings = [Setting(name, {"m": m}, seconds, error=error) for name, m, seconds, error in rows]
    assert Search(settings, max_error=1e-5).next()[:2] == settings[:2]


def test_a_walk_that_gains_nothing_ends_unless_more_is_asked_for():
    def flat(search: Search) -> int:
        while batch := search.next():
            for setting in batch:
                search.known[setting.key] = Trial(1.0 if setting == GRID[0] else 0.995)
        return search.measured

    # The first ten, of which none gains a hundredth on the first.
    assert flat(Search(GRID)) == 10
    assert flat(Search(GRID, most=45)) == 45
    # Failures say nothing.
    failing = Search(GRID)
    for setting in GRID[1:20]:
        failing.known[setting.key] = Trial(None)
    failing.known[GRID[0].key] = Trial(1.0)
    assert failing.next() != []


def test_rivals_are_compared_once():
    search = Search(GRID[:5])
    times = (1.0, 1.05, 1.5, 1.08, 2.0)
    search.known = {s.key: Trial(t) for s, t in zip(GRID, times, strict=False)}
    assert search.rivals() == [GRID[0], GRID[1], GRID[3]]
    for setting in search.rivals():
        search.known[setting.key] = Trial(1.0, final=True)
    assert search.rivals() == []


def test_seeds_come_first():
    search = Search(GRID, seeds=[GRID[50].key, ("nobody", ())])
    assert search.next()[0] == GRID[50]


def test_neighbours_stay_in_their_algorithm():
    near = neighbours(GRID[0], GRID)
    assert {s.algorithm for s in near} == {GRID[0].algorithm}
    assert GRID[0] not in near
    assert neighbours(Setting("alone", {"x": 1}, 1.0), GRID) == []


def test_settings_keep_the_policy():
    names = {
        s.algorithm
        for s in subject_of(PROBLEM).settings(AVX512, Policy(exclude=("winograd", "fft")))
    }
    assert names == {"direct", "im2col", "inner_product", "generic"}
    rows = subject_of(PROBLEM).settings(AVX512, Policy(workspace_limit=0))
    assert {s.algorithm for s in rows} == {"direct", "im2col", "inner_product", "generic"}
    assert [s.seconds for s in rows] == sorted(s.seconds for s in rows)


NET = """graph @g { %x = input : f32[1,16,6,6]  %w = constant splat(0.5) : f32[16,16,3,3]
  %one = conv(%x, %w) {pads=[1,1,1,1]}  %two = conv(%one, %w) {pads=[1,1,1,1]}  %three = conv(%two, %w)  return %three }"""


def test_a_workload_is_tuned_once_however_often_it_occurs():
    tasks = tasks_of(parse(NET))
    assert [(t.layers, t.count) for t in tasks] == [(("one", "two"), 2), (("three",), 1)]
    assert tasks[0].name == "one (+1)"
    assert [t.layers for t in tasks_of(parse(NET), "t*")] == [("two",), ("three",)]
    with pytest.raises(UnknownNameError, match="unknown layer 'four'"):
        tasks_of(parse(NET), "four")


CHAIN = """graph @g { %x = input : f32[1,16,112,112]  %w = constant splat(0.5) : f32[96,16,1,1]
  %v = constant splat(0.5) : f32[96,1,3,3]  %u = constant splat(0.5) : f32[24,96,1,1]
  %e = conv(%x, %w)  %d = conv(%e, %v) {strides=[2,2], pads=[1,1,1,1], group=96}  %y = conv(%d, %u)  return %y }"""


def test_layers_that_one_kernel_could_compute_are_a_task():
    graph = parse(CHAIN)
    tasks = chain_tasks_of(graph, AVX512, Policy())
    assert [t.layers for t in tasks] == [("e > d > y",), ("e > d",), ("d > y",)]
    assert tasks[0].name == "y with 2 before it"
    assert tasks[0].subject.flops == sum(t.subject.flops for t in tasks_of(graph))
    settings = tasks[0].subject.settings(AVX512, Policy())
    assert {s.algorithm for s in settings} == {"bottleneck"}
    assert len({s.key for s in settings}) == len(settings) > 4
    assert chain_tasks_of(graph, AVX512, Policy(exclude=("bottleneck",))) == ()
    assert [t.layers for t in chain_tasks_of(graph, AVX512, Policy(), "y")] == [("e > d > y",), ("d > y",)]  # fmt: skip


def test_a_layer_knows_what_a_round_is_worth():
    layer, twice = (
        Layer.of(Task(PROBLEM, names), AVX512, LIMITS, Options()) for names in (("a",), ("a", "b"))
    )
    assert 0 < layer.worth < twice.worth
    assert layer.search.roofline > 0
    choice, limit = layer.choice, layer.search.max_error
    assert choice is not None
    assert choice.error <= limit
    other = next(s for s in layer.search.settings if s not in (choice, layer.search.settings[0]))
    layer.search.known[choice.key] = Trial(2e-3)
    layer.search.known[other.key] = Trial(1.5e-3)
    assert layer.gained == pytest.approx(5e-4)
    layer.done = True
    assert layer.worth == 0


def test_addresses():
    assert str(Address.parse("10.0.0.1:9190/epyc")) == "rpc://10.0.0.1:9190/epyc"
    for wrong in ("remote", "rpc://host/key", "rpc://host:99999/key", "rpc://host:1/"):
        with pytest.raises(
            TuningError, match=r"runner must be 'local' or look like rpc://HOST:PORT/KEY"
        ):
            Address.parse(wrong)


def test_rooflines_take_the_nearest_memory_that_holds_the_layer():
    limits = Calibration(
        cpu="c", target="t", peak={1: 1e11, 2: 2e11}, bandwidth={"l2": 5e10, "l3": 1e10}
    )
    assert limits.roofline(1e9, 0, 1) == pytest.approx(1e-2)
    assert limits.roofline(0, 1e6, 1, l2_bytes=2 << 20) == pytest.approx(1e6 / 5e10)
    beyond = 4e6 - (2 << 20)
    whole = (2 << 20) / 5e10 + beyond / 1e10
    assert limits.roofline(0, 4e6, 1, l2_bytes=2 << 20) == pytest.approx(whole)
    assert limits.roofline(0, 4e6, 2, l2_bytes=2 << 20) == pytest.approx(4e6 / 1e11)
    known = msgspec.structs.replace(limits, l2_bytes=1 << 20)
    assert known.roofline(0, 1 << 20, 1) == pytest.approx((1 << 20) / 5e10)


def test_a_pool_is_tried_behind_settings_that_are_accurate_enough():
    """The fastest settings by estimate alone may all be F(6, 3), whose error is too large for a record to count."""
    target, policy = parse_target("llvm", "znver4", 1), Policy()
    layer = Problem(ConvSpec.of((1, 256, 56, 56), (256, 256, 3, 3), pads=(1,) * 4))
    window = MaxPoolAttributes((2, 2), (2, 2), (0,) * 4, (1, 1))
    settings = PooledConvolution(Pooled(layer, window)).settings(target, policy)
    exact = [s for s in settings if s.algorithm == "winograd" and s.error <= policy.record_error]
    assert {bool(s.knobs["strip"]) for s in exact} == {True, False}
