"""The stage that times rivals in their places, on a bench whose times are written down; of the real bench no time is looked at."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convc.cli import invoke
from convc.cli.tune_network import TimedNetwork, network_document, show_network
from convc.ir.graph import Graph
from convc.ir.reference import interpret
from convc.ir.text import parse
from convc.lowering.build import build_variants
from convc.lowering.emit import emit
from convc.planning import Wishes, plan_graph
from convc.runtime.loading import load_alternatives
from convc.schedules.chains import NAME as CHAIN
from convc.schedules.plan import Plan
from convc.schedules.policy import Policy
from convc.schedules.select import select
from convc.schedules.tuned import APART
from convc.target import parse_target
from convc.tuning.attribution import StepName, apart, order_of, owners
from convc.tuning.contests import Contest, contests_of, with_setting
from convc.tuning.log import Log
from convc.tuning.network_bench import LocalNetworkBench
from convc.tuning.network_outcome import Outcome, Won
from convc.tuning.network_stage import NetworkStage
from convc.tuning.search import Search, Trial
from convc.tuning.setting import Key
from convc.tuning.spread import Spread, spread
from convc.tuning.tasks import chain_tasks_of, tasks_of
from tests.tuning.records import record

HOST = parse_target(cores=1)
NET = """graph @net { %x = input : f32[1,16,8,8]
  %w = constant splat(0.5) : f32[16,16,3,3]  %v = constant splat(0.25) : f32[32,16,1,1]  %u = constant splat(0.125) : f32[16,32,1,1]
  %one = conv(%x, %w) {pads=[1,1,1,1]}  %two = conv(%one, %v)  %three = conv(%two, %u)  return %three }"""


def rival_of(graph: Graph, name: str) -> tuple[str, Key]:
    """Return a layer's workload, and a setting other than the model's with the same blocks."""
    task = next(t for t in tasks_of(graph) if name in t.layers)
    own = select(graph, HOST)[name]
    settings = task.subject.settings(HOST, Policy(include=("direct",)))
    blocks = [own.knobs.get(n) for n in ("block", "data_block")]
    return task.subject.key, next(s.key for s in settings if (s.algorithm, s.key[1]) != (own.algorithm, tuple(sorted(own.knobs.items()))) and [s.knobs.get(n) for n in ("block", "data_block")] == blocks)  # fmt: skip


class WrittenBench:
    """Steps take 100 us, but what `cost` says of a plan's layer, and a whole run `whole` of their sum."""

    def __init__(self, graph: Graph, cost: Callable[[Plan, str], float], whole: Callable[[Plan], float] = lambda plan: 1.0) -> None:  # fmt: skip
        self.graph, self.cost, self.whole = graph, cost, whole
        self.plans: list[Plan] = []
        self.calls = 0
        self.copied: set[str] = set()

    def steps(self, plan: Plan) -> list[StepName]:
        names = [StepName(n.name, True) for n in self.graph.nodes if n.name in plan.choices]
        copies = [StepName(n, False) for n in sorted(self.copied) if self.cost(plan, n) < 1e-4]
        return [*names[:1], *copies, *names[1:]]

    def build(self, plans: Sequence[Plan], progress: Callable[[int, int], None]) -> None:
        self.plans = list(plans)
        progress(1, 1)

    def profile(self, index: int) -> list[float]:
        # Each round takes longer than the one before: only what is compared within a round says anything.
        self.calls += 1
        pace = 1 + self.calls // len(self.plans) / 100
        plan = self.plans[index]
        return [pace * (self.cost(plan, s.node) if s.computes else 5e-5) for s in self.steps(plan)]

    def run(self, index: int) -> float:
        return self.whole(self.plans[index])


def stage(
    graph: Graph,
    log: Log,
    rivals: dict[str, Key],
    left: Callable[[], float | None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> NetworkStage:
    """Return a stage after searches that found each rival faster alone than anything."""
    tasks = (*tasks_of(graph), *chain_tasks_of(graph, HOST, Policy()))
    searches = {}
    for task in tasks:
        known = {key: Trial(1e-6, 1e-7, final=True) for k, key in rivals.items() if k == task.subject.key}  # fmt: skip
        searches[task.subject.key] = Search(task.subject.settings(HOST, Policy()), known=known)
        for algorithm, knobs in known:
            log.append([record(algorithm, 1e-6, HOST, workload=task.subject.key, knobs=dict(knobs), at=1.0)])  # fmt: skip
    return NetworkStage(graph, tasks, HOST, log, searches, left=left, clock=clock)


def runs(plan: Plan, name: str, setting: Key) -> bool:
    choice = plan.choices[name]
    return (choice.algorithm, tuple(sorted(choice.knobs.items()))) == setting


def settings(plan: Plan) -> dict[str, tuple[str, dict[str, int]]]:
    return {name: (c.algorithm, dict(c.knobs)) for name, c in plan.choices.items()}


def compiled(graph: Graph, log: Log) -> Plan:
    return plan_graph(graph, HOST, Wishes.of(logs=[log.path]), "").plan


def quiet(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log.jsonl")


def outcome_of(graph: Graph, log: Log, one: Key, three: Key, bench: WrittenBench) -> Outcome:
    keys = [rival_of(graph, name)[0] for name in ("one", "three")]
    made = stage(graph, log, dict(zip(keys, (one, three), strict=True)))
    assert made.recorded() is None
    outcome = made.run(bench, quiet)
    assert outcome is not None
    recorded = made.recorded()
    assert recorded is not None
    assert recorded.gained == outcome.gained
    return outcome


def test_what_is_faster_in_its_place_is_used_and_what_is_not_is_not(log: Log):
    graph = parse(NET)
    (_, one), (_, three) = (rival_of(graph, name) for name in ("one", "three"))

    def cost(plan: Plan, name: str) -> float:
        # `one` gains 40 %; `three` is as fast, whatever it was alone.
        return 6e-5 if name == "one" and runs(plan, "one", one) else 1e-4

    bench = WrittenBench(graph, cost, lambda plan: 0.9 if runs(plan, "one", one) else 1.0)
    outcome = outcome_of(graph, log, one, three, bench)
    assert (outcome.tried, [w.setting for w in outcome.won], outcome.gained) == (2, [one], True)
    assert outcome.won[0].seconds / outcome.won[0].untuned_seconds == pytest.approx(0.6, rel=0.05)
    plan, untuned = compiled(graph, log), select(graph, HOST)
    assert runs(plan, "one", one)
    assert settings(plan)["three"] == settings(untuned)["three"]
    assert {c.source for n, c in plan.choices.items() if n != "two"} == {"record"}
    placed = next(r.in_network for r in log.read().records if r.setting == one and r.in_network)
    assert placed.whole == (0.9, 0.9, 0.9)


def test_a_copy_that_a_rival_causes_counts(log: Log):
    graph = parse(NET)
    (_, one), (_, three) = (rival_of(graph, name) for name in ("one", "three"))
    bench = WrittenBench(graph, lambda plan, name: 6e-5 if name == "one" and runs(plan, "one", one) else 1e-4)  # fmt: skip
    bench.copied = {"one"}
    outcome = outcome_of(graph, log, one, three, bench)
    assert (outcome.won, outcome.whole, outcome.gained) == ((), None, False)
    assert settings(compiled(graph, log)) == settings(select(graph, HOST))


def test_where_the_whole_gains_nothing_the_models_choices_stay(log: Log):
    graph = parse(NET)
    (_, one), (_, three) = (rival_of(graph, name) for name in ("one", "three"))
    # Alone its record would win.
    keys = [rival_of(graph, "one")[0]]
    stage(graph, log, dict(zip(keys, [one], strict=True)))
    assert runs(compiled(graph, log), "one", one)
    noise = itertools.cycle([0.99, 0.99, 1.02, 1.01])
    bench = WrittenBench(
        graph,
        lambda plan, name: 6e-5 if name == "one" and runs(plan, "one", one) else 1e-4,
        lambda plan: next(noise) if runs(plan, "one", one) else 1.0,
    )
    outcome = outcome_of(graph, log, one, three, bench)
    assert len(outcome.won) == 1
    assert outcome.whole is not None
    assert outcome.whole.high > 1.0
    assert not outcome.gained
    assert settings(compiled(graph, log)) == settings(select(graph, HOST))


def test_no_time_and_an_interruption_record_nothing(log: Log):
    graph = parse(NET)
    key, one = rival_of(graph, "one")
    clock = itertools.count()
    made = stage(graph, log, {key: one}, left=lambda: 5.0, clock=lambda: float(next(clock)))
    before = log.path.read_bytes()
    assert made.run(WrittenBench(graph, lambda plan, name: 1e-4), quiet) is None

    def interrupted(plan: Plan, name: str) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.run(WrittenBench(graph, interrupted), quiet)
    assert log.path.read_bytes() == before


def test_who_was_timed_alone_since_is_timed_again(log: Log):
    graph = parse(NET)
    key, one = rival_of(graph, "one")
    made = stage(graph, log, {key: one})
    assert made.run(WrittenBench(graph, lambda plan, name: 1e-4), quiet) == Outcome(tried=1)
    assert made.recorded() == Outcome()
    later = max(r.at for r in log.read().records) + 1
    log.append([record("direct", 1e-6, HOST, workload=key, at=later)])
    assert made.recorded() is None


def test_neighbours_never_try_at_once_and_every_step_has_one_owner_at_most():
    contests = [Contest(n, "layer", ((n,), (f"{n}2",)), (("own", ()),), (("rival", ()),)) for n in "abc"]  # fmt: skip
    names = ["a", "b", "c", "a2", "b2", "c2"]
    steps = [StepName(n, True) for n in names]
    order = order_of(steps, contests)
    assert order.contest == (0, 1, 2, 0, 1, 2)
    assert apart(contests, order) == [[0], [1], [2]]
    # A border of a before it, a copy of b for its reader, a pool, and a copy of a far away.
    more = [StepName("a", False), *steps[:2], StepName("b", False), StepName("c", True), StepName("pool", False), StepName("a", False), *steps[3:]]  # fmt: skip
    assert owners(more, order, [0]) == [0, 0, 0, None, None, 0, 0, 0, 0, None]
    assert owners(more, order, [1]) == [None, None, 1, 1, 1, None, None, None, 1, 1]
    assert owners(more, order, [2]) == [None, None, None, 2, 2, 2, 2, 2, None, 2]


def test_limits_of_a_median_hold_what_two_halves_say():
    samples = [1.0] * 20 + [2.0] * 20
    assert (spread(samples).low, spread(samples).high) == (1.0, 2.0)
    assert spread([*samples, *[1.0] * 40]).high == 1.0


MOBILE = """graph @mobile { %x = input : f32[1,16,112,112]  %w = constant splat(0.1) : f32[96,16,1,1]
  %d = constant splat(0.1) : f32[96,1,3,3]  %p = constant splat(0.1) : f32[24,96,1,1]
  %e = conv(%x, %w)  %m = conv(%e, %d) {pads=[1,1,1,1], strides=[2,2], group=96}  %y = conv(%m, %p)  return %y }"""


def test_a_chain_and_a_pool_compete_with_their_layers_apart(log: Log):
    target = parse_target("llvm", "x86-64-v4", 1)
    graph = parse(MOBILE)
    untuned = select(graph, target)
    tasks = (*tasks_of(graph), *chain_tasks_of(graph, target, Policy()))
    (chain,) = untuned.chains
    found = contests_of(untuned, tasks, {}, 3)
    (contest,) = [c for c in found if c.kind == "chain"]
    assert contest.places == (chain.layers,)
    assert contest.rivals == ((APART, ()),)
    assert with_setting(untuned, contest, (APART, ())).chains == ()
    other = (CHAIN, tuple(sorted({**chain.knobs, "strip": 2}.items())))
    assert with_setting(untuned, contest, other).chains[0].knobs["strip"] == 2
    # What a record of the contest says is what the choice makes of it.
    for setting, chains in ((contest.own[0], [dict(chain.knobs)]), ((APART, ()), [])):
        stated = record(setting[0], 1e-4, target, workload=contest.key, knobs={"none": 0})
        made = NetworkStage(graph, tasks, target, log, {contest.key: Search([])})
        made._own_seconds = {contest.key: 1e-4}
        (row,) = made._records([replace(contest, own=(setting,))], Outcome())
        assert row.workload == stated.workload
        log.replace([row])
        plan = plan_graph(graph, target, Wishes.of(logs=[log.path]), "").plan
        assert [dict(c.knobs) for c in plan.chains] == chains


def test_the_real_bench_runs_all_plans_of_one_library(tmp_path: Path):
    graph = parse(NET)
    _, one = rival_of(graph, "one")
    untuned = select(graph, HOST, algo="direct")
    contest = next(c for c in contests_of(untuned, tasks_of(graph), {}, 0) if ("one",) in c.places)
    plans = [untuned, with_setting(untuned, contest, one)]
    with LocalNetworkBench(graph, HOST) as bench:
        bench.build(plans, lambda done, total: None)
        for index, plan in enumerate(plans):
            assert len(bench.profile(index)) == len(bench.steps(plan))
            assert bench.run(index) > 0
    programs = [emit(graph, plan, HOST) for plan in plans]
    shared = set(programs[0].kernels) & set(programs[1].kernels)
    counts: list[int] = []
    built = build_variants(
        [(p, HOST) for p in programs], alternatives=True, progress=lambda done, total, what: counts.append(total)
    )  # fmt: skip
    assert set(counts) == {sum(len(p.kernels) for p in programs) - len(shared)}
    built.export(tmp_path / "both.so")
    x = np.random.default_rng(0).integers(-3, 4, (1, 16, 8, 8)).astype(np.float32)
    (expected,) = interpret(graph, {"x": x}).values()
    for module in load_alternatives(tmp_path / "both.so", 1):
        np.testing.assert_array_equal(module(x), expected)


def test_the_verb_times_the_network_behind_its_layers(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.cvc").write_text(NET)
    options = ["--time", "none", "--trials", "2", "-j", "1", "--threads", "1", "--log", "log.jsonl"]
    assert invoke(["tune", "net.cvc", *options, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["networks"]
    assert (row["name"], row["timed"], row["before"]) == ("net", True, False)
    placed = [r for r in Log(Path("log.jsonl")).read().records if r.in_network is not None]
    assert {r.workload for r in placed} == {t.subject.key for t in tasks_of(parse(NET))}


def test_what_a_person_reads(capsys):
    contest = Contest("conv", "layer", (("one",), ("two",)), (("direct", ()),))
    won = Won(contest, ("winograd", (("m", 4),)), 1e-4, 2e-4)
    for whole, verdict in ((0.95, "used from now on"), (0.999, "no gain: `convc compile` keeps the model's choices")):  # fmt: skip
        outcome = Outcome(7, (won,), Spread(whole, whole - 0.01, whole + 0.01))
        show_network(TimedNetwork("net", outcome, layers={"conv": "one (+1)"}))
        text = " ".join(capsys.readouterr().out.split())
        assert "one (+1) winograd m=4 2 100.0 us 50.0 us" in text
        assert f"net: 7 settings tried in their places, 1 faster there; tuned / untuned = {whole:.3f} ({whole - 0.01:.3f}-{whole + 0.01:.3f}); {verdict}" in text  # fmt: skip
        assert network_document(TimedNetwork("net", outcome))["gained"] == (whole < 0.99)
    show_network(TimedNetwork("net", Outcome(), before=True))
    assert "net: timed before; nothing was faster in its places; no gain" in " ".join(capsys.readouterr().out.split())  # fmt: skip
    show_network(TimedNetwork("net", None))
    assert "net: not timed as a whole yet, the time was up" in " ".join(capsys.readouterr().out.split())  # fmt: skip
    assert network_document(TimedNetwork("net", None)) == {"name": "net", "timed": False}
