"""What records from networks say to the choice: here, elsewhere, of chains and pools, of a like layer; and in logs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from convc.errors import TuningError
from convc.ir.text import parse
from convc.planning import Wishes, plan_graph
from convc.schedules.algorithm import SEPARATOR, Problem, knob_space
from convc.schedules.offers import Offer, estimated_seconds, offers_of
from convc.schedules.policy import Policy
from convc.schedules.select import select
from convc.schedules.table import algorithm_named
from convc.schedules.tuned import APART, Records
from convc.tuning.care import append_new, best_of, prune
from convc.tuning.knowledge import measurements, trials
from convc.tuning.log import Log
from convc.tuning.network_key import network_key
from convc.tuning.record import InNetwork, Record, decode, encode
from tests.tuning.records import AVX512, PROBLEM, record
from tests.tuning.test_planning import HOST, NET

OWN = dict(algorithm_named("direct").knobs(PROBLEM, AVX512))
LIKE = Problem(replace(PROBLEM.spec, data=(1, 16, 12, 12)))
# A setting that both take, and the model of neither would.
OTHER = next(
    dict(knobs)
    for knobs in knob_space(algorithm_named("direct"), PROBLEM, AVX512)
    if dict(knobs) in map(dict, knob_space(algorithm_named("direct"), LIKE, AVX512))
    and dict(knobs) not in (OWN, dict(algorithm_named("direct").knobs(LIKE, AVX512)))
)


def placed(
    network: str = "here",
    seconds: float = 2e-4,
    at: float = 1.0,
    untuned: tuple[str, dict[str, int]] = ("direct", OWN),
    **changed: object,
) -> Record:
    """Return a record of a setting that took so long where the model's choice took 300 us."""
    where = InNetwork(network=network, name=network, untuned=untuned, untuned_seconds=3e-4)
    return record(seconds=seconds, in_network=where, at=at, **{"knobs": OTHER, **changed})


def knobs_of(records: Records, key: str = PROBLEM.key) -> list[dict[str, int]]:
    return [dict(m.knobs) for m in records[key]]


def test_a_time_in_a_network_is_all_that_counts():
    alone = record(seconds=1e-6, at=9.0)
    assert knobs_of(measurements([alone, placed()])) == [OTHER]
    # Of a network what was found last; a log that is read later may be older.
    again = placed(at=2.0, knobs=OWN, seconds=3e-4)
    for rows in ([placed(), again], [again, placed()]):
        assert knobs_of(measurements(rows)) == [OWN]
    # What is known alone stays as it was: a search goes on.
    assert list(trials([alone, placed()])) == [alone.setting]


def test_this_networks_word_goes_before_others_and_contradictions_leave_the_estimate():
    mine, same, contrary = placed(), placed("there"), placed("elsewhere", knobs=OWN, seconds=3e-4)
    assert knobs_of(measurements([mine, contrary], "here")) == [OTHER]
    assert knobs_of(measurements([mine, contrary], "elsewhere")) == [OWN]
    assert knobs_of(measurements([mine, same], "unknown")) == [OTHER]
    assert measurements([mine, contrary], "unknown") == {PROBLEM.key: ()}


def test_layers_of_a_chain_and_before_a_pool_were_timed_with_it():
    first, second = PROBLEM.key, PROBLEM.key.replace("g1", "g16")
    chain = placed(workload=SEPARATOR.join((first, second)), algorithm="bottleneck")
    slow = record(seconds=1e-6)
    found = measurements([slow, chain])
    assert (found[first], found[second]) == ((), ())
    apart = msgspec.structs.replace(chain, algorithm=APART, knobs={})
    assert measurements([slow, apart])[first] == ()
    # One that has a place of its own beside has its own word.
    assert knobs_of(measurements([chain, placed()])) == [OTHER]
    pool = placed(workload=f"{first}{SEPARATOR}max_pool-k2x2", knobs={**OTHER, "strip": 2}, untuned=("direct", {**OWN, "strip": 0}))  # fmt: skip
    found = measurements([slow, pool])
    assert knobs_of(found) == [OTHER]
    untuned = found[first][0].untuned
    assert untuned is not None
    assert dict(untuned.knobs) == OWN
    contrary = placed("elsewhere", workload=pool.workload, knobs={**OTHER, "strip": 0})
    assert measurements([slow, pool, contrary]) == {pool.workload: (), first: ()}


def offers(problem: Problem, records: Records) -> dict[str, Offer]:
    made = offers_of(problem, AVX512, Policy(include=("direct", "winograd")), records)
    return {o.algorithm: o for o in made.offers}


def test_a_like_layer_gains_what_was_gained_there_and_nothing_where_the_models_choice_won():
    estimate = offers(LIKE, {})
    stands = placed(knobs=OWN, seconds=3e-4)
    slow = record("winograd", 1.0)
    for records in ([slow, stands], [stands, placed("elsewhere")]):
        assert offers(LIKE, measurements(records)) == estimate
    won = offers(LIKE, measurements([slow, placed()]))
    row = algorithm_named("direct")
    there = [estimated_seconds(row, PROBLEM, AVX512, k) for k in (OTHER, OWN)]
    here = estimated_seconds(row, LIKE, AVX512, OTHER)
    assert (won["direct"].source, dict(won["direct"].knobs)) == ("neighbour", OTHER)
    assert won["direct"].seconds == here * (2e-4 / there[0]) / (3e-4 / there[1])
    assert won["winograd"] == estimate["winograd"]


def test_a_layer_that_was_settled_needs_no_record_of_its_own():
    found = offers_of(PROBLEM, AVX512, Policy(), {PROBLEM.key: ()})
    assert found.settled
    assert all(o.source == "estimate" for o in found.offers)


def test_compile_takes_its_own_networks_word(tmp_path: Path):
    graph, log = parse(NET), Log(tmp_path / "log.jsonl")
    untuned = select(graph, HOST)
    key = Problem.parse(PROBLEM.key).key
    own = {k: (c.algorithm, dict(c.knobs)) for k, c in untuned.choices.items()}
    other = {"direct": "winograd", "winograd": "direct"}[own["one"][0]]
    theirs = dict(algorithm_named(other).knobs(PROBLEM, HOST))
    common = {"workload": key, "target": HOST, "untuned": own["one"]}
    log.append(
        [
            placed(
                network_key(graph), 3e-4, algorithm=own["one"][0], knobs=own["one"][1], **common
            ),
            placed("elsewhere", 2e-4, algorithm=other, knobs=theirs, **common),
        ]
    )
    wishes = Wishes.of(logs=[log.path], policy=Policy(when="per_shape"))
    chosen = plan_graph(graph, HOST, wishes, "").plan["one"]
    assert (chosen.algorithm, chosen.source) == (own["one"][0], "record")
    assert chosen.reason == "the model's choice, in a network nothing measured was faster"
    log.replace(log.read().records[1:])
    chosen = plan_graph(graph, HOST, wishes, "").plan["one"]
    assert (chosen.algorithm, dict(chosen.knobs)) == (other, theirs)
    assert chosen.reason == "measured in a network 1.50 x faster than the model's choice"


def test_logs_keep_show_and_merge_what_was_found_in_networks(tmp_path: Path):
    log = Log(tmp_path / "log.jsonl")
    log.append([record(seconds=1e-6), placed(at=1.0), placed(at=2.0), placed("there", at=1.0)])
    (best,) = best_of(log.read().records)
    assert (best.in_network, best.seconds, best.trials) == ("here", 2e-4, 1)
    assert append_new(tmp_path / "other.jsonl", log.read().records) == 4
    assert append_new(tmp_path / "other.jsonl", log.read().records) == 0
    assert prune(log.path, keep=1) == (4, 3)
    rows = log.read().records
    assert [(r.in_network.network, r.at) for r in rows if r.in_network] == [("here", 2.0), ("there", 1.0)]  # fmt: skip


def test_lines_of_before_are_read():
    line = encode(record()).replace(b',"in_network":null', b"")
    assert b"in_network" not in line
    assert decode(line) == record()


def test_what_no_ratio_can_be_made_of_is_no_record():
    line = encode(placed())
    for good, bad in ((b'"untuned_seconds":0.0003', b'"untuned_seconds":0'), (b'"seconds":0.0002', b'"seconds":0')):  # fmt: skip
        assert good in line
        with pytest.raises(TuningError, match="seconds in a network must be positive"):
            decode(line.replace(good, bad))


@pytest.mark.parametrize(
    "untuned", [("gone", {}), (APART, {}), ("direct", {}), ("winograd", {"tile": 1})]
)
def test_a_beaten_choice_that_is_not_known_says_nothing_of_a_like_layer(
    untuned: tuple[str, dict[str, int]],
):
    records = measurements([placed(untuned=untuned)])
    assert {o.source for o in offers_of(LIKE, AVX512, Policy(), records).by("direct")} == {
        "estimate"
    }


def test_of_two_found_at_once_the_faster():
    # Both read and write blocks of one size.
    records = measurements([placed(seconds=1e-4), placed(knobs=OWN, seconds=2e-4)])
    assert [dict(o.knobs) for o in offers_of(PROBLEM, AVX512, Policy(), records).by("direct")] == [OTHER]  # fmt: skip
