"""Offers: for one convolution every algorithm's settings that could be chosen, each with its time and where the time is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from convc.schedules import packing
from convc.schedules.algorithm import Algorithm, Problem, knob_space
from convc.schedules.backend import backend_of
from convc.schedules.dual import posed
from convc.schedules.library_algorithm import OnRequest, are_knobs_of, completed
from convc.schedules.plan import Candidate, Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import breach, properties_of
from convc.schedules.tuned import Measurement, Records, geometries, nearest
from convc.target import Target

__all__ = [
    "Offer",
    "Offers",
    "admissible",
    "estimated_seconds",
    "offers_of",
]


@dataclass(frozen=True, slots=True)
class Offer:
    """One setting of one algorithm with its seconds, measured here or estimated; `in_network`: measured among other layers.

    `copies` is the part of them that brings plain images into blocks and back, where other layers are in blocks.
    """

    algorithm: str
    knobs: Knobs
    seconds: float
    source: Literal["record", "neighbour", "estimate"]
    reason: str
    in_network: bool = False
    copies: float = 0.0

    @property
    def alone(self) -> float:
        """Seconds of the kernel without copies."""
        return self.seconds - self.copies

    @property
    def measured(self) -> bool:
        return self.source == "record"


@dataclass(frozen=True, slots=True)
class Offers:
    """All offers for a problem, and each algorithm's answer for reports.

    Attributes:
        problem: the convolution.
        offers: measured and estimated ones.
        candidates: one row an algorithm, in the table's order.
        tuned: whether the problem has records of its own that may be chosen.
        settled: whether records say that in a network nothing was faster than by estimate.
    """

    problem: Problem
    offers: tuple[Offer, ...]
    candidates: tuple[Candidate, ...]
    tuned: bool
    settled: bool = False

    def by(self, algorithm: str) -> list[Offer]:
        """Return an algorithm's offers: its measured ones if there are any."""
        own = [o for o in self.offers if o.algorithm == algorithm]
        return [o for o in own if o.measured] or own

    def takes(self, algorithm: str) -> bool:
        """Whether the algorithm computes the problem, whatever the policy says."""
        return any(o.algorithm == algorithm for o in self.offers)

    def refusal(self, algorithm: str) -> str:
        """Return why it does not."""
        absent = "this target has no such algorithm"
        return next((row.reason for row in self.candidates if row.algorithm == algorithm), absent)


def estimated_seconds(
    algorithm: Algorithm, problem: Problem, target: Target, knobs: Knobs
) -> float:
    """Return the cost model's seconds, the packing of weights known at run time included."""
    kernel = backend_of(target).estimate(lambda t: algorithm.cycles(problem, t, knobs), target)
    return kernel + _packing_seconds(algorithm, problem, target, knobs)


def _packing_seconds(algorithm: Algorithm, problem: Problem, target: Target, knobs: Knobs) -> float:
    """Return what packing weights of run time is estimated to take; a record's time is the kernel's alone."""
    return backend_of(target).seconds(
        packing.cycles(algorithm.name, problem, target, knobs), target
    )


def admissible(made: Offers, policy: Policy) -> list[Offer]:
    """Return the offers to choose among: measured ones alone where the problem has been tuned."""
    allowed = {row.algorithm for row in made.candidates if row.applies}
    offers = [o for o in made.offers if o.algorithm in allowed]
    measured = [o for o in offers if o.measured]
    return measured if policy.by == "time" and measured else offers


def offers_of(
    problem: Problem,
    target: Target,
    policy: Policy,
    records: Records,
) -> Offers:
    """Return every algorithm's offers; a refusal of the algorithm or the policy is a candidate's reason."""
    known = records if policy.by == "time" else {}
    own = known.get(problem.key, ())
    near = None
    settled = not own and problem.key in known
    if not own and known and not settled:
        near = nearest(problem, geometries(known), same_shape=policy.when == "per_shape")
    like = (Problem.parse(near), known[near]) if near is not None else None
    offers: list[Offer] = []
    rows: list[Candidate] = []
    for algorithm in backend_of(target).algorithms:
        answer = posed(problem, algorithm, target)
        if isinstance(answer, Unsupported):
            rows.append(Candidate(algorithm.name, answer.reason, {}, None))
            continue
        made = _measured(algorithm, answer, target, policy, own)
        made = made or [_estimated(algorithm, answer, target, policy, like)]
        made = [_with_copies(offer, algorithm, answer, target) for offer in made]
        vetoed = _veto(algorithm, answer, target, policy, made)
        offers += made
        best = min(made, key=lambda o: o.seconds)
        seconds = None if vetoed else best.seconds
        rows.append(Candidate(algorithm.name, vetoed or best.reason, best.knobs, seconds))
    return Offers(problem, tuple(offers), tuple(rows), any(o.measured for o in offers), settled)


def _with_copies(offer: Offer, algorithm: Algorithm, problem: Problem, target: Target) -> Offer:
    """Return an offer with the copies that plain data and results cost; in a network they were measured with it."""
    wants = algorithm.operands(problem, target, offer.knobs)
    if offer.in_network or wants.data.block or wants.result.block:
        return offer
    copies = backend_of(target).plain_seconds(problem.spec, target)
    return replace(offer, seconds=offer.seconds + copies, copies=copies)


def _veto(
    algorithm: Algorithm, problem: Problem, target: Target, policy: Policy, made: list[Offer]
) -> str:
    """Return why the policy refuses an algorithm altogether; takes the settings out that it refuses alone."""
    if not policy.allows(algorithm.name):
        return "excluded by the policy"
    named = algorithm.name in (*policy.require, *policy.prefer, *policy.include)
    if isinstance(algorithm, OnRequest) and not named:
        recorded = algorithm.by_record and any(o.measured for o in made)
        if not recorded:
            return algorithm.on_request

    def refused(offer: Offer) -> str:
        facts = properties_of(algorithm, problem, target, offer.knobs)
        return breach(facts, policy, measured=offer.measured)

    kept = [o for o in made if not refused(o)]
    if kept:
        made[:] = kept
        return ""
    return refused(made[0])


def _measured(
    algorithm: Algorithm,
    problem: Problem,
    target: Target,
    policy: Policy,
    own: Sequence[Measurement],
) -> list[Offer]:
    """Return the fastest measured setting for each pair of blocks: all that agreement over the graph can want."""
    best: dict[tuple[int, int], Offer] = {}
    names = set(algorithm.knobs(problem, target))
    for m in own:
        if m.algorithm != algorithm.name or m.error > policy.record_error:
            continue
        knobs = completed(algorithm, m.knobs)
        if not are_knobs_of(algorithm, names, knobs):
            continue
        wants = algorithm.operands(problem, target, knobs)
        blocks = (wants.data.block, wants.result.block)
        if m.untuned is not None:
            # What stood beside it was counted; the fastest comes first.
            gain = f"measured in a network {m.untuned.seconds / m.seconds:.2f} x faster than the model's choice"
            same = (m.untuned.algorithm, dict(m.untuned.knobs)) == (m.algorithm, dict(m.knobs))
            reason = (
                "the model's choice, in a network nothing measured was faster" if same else gain
            )
            best.setdefault(blocks, Offer(m.algorithm, knobs, m.seconds, "record", reason, in_network=True))  # fmt: skip
            continue
        seconds = m.seconds + _packing_seconds(algorithm, problem, target, knobs)
        offer = Offer(m.algorithm, knobs, seconds, "record", "tuned record")
        if blocks not in best or seconds < best[blocks].seconds:
            best[blocks] = offer
    return list(best.values())


def _estimated(
    algorithm: Algorithm,
    problem: Problem,
    target: Target,
    policy: Policy,
    like: tuple[Problem, tuple[Measurement, ...]] | None,
) -> Offer:
    """Return the analytic choice, corrected by what a like layer's record says about this algorithm."""
    knobs = _within(algorithm, problem, target, policy)
    seconds = estimated_seconds(algorithm, problem, target, knobs)
    if like is None:
        return Offer(algorithm.name, knobs, seconds, "estimate", "estimate")
    other, measured = like
    names = set(knobs)
    if any(m.untuned is not None for m in measured):
        return _as_in_network(algorithm, problem, target, knobs, other, measured)
    mine = [
        replace(m, knobs=completed(algorithm, m.knobs))
        for m in measured
        if m.algorithm == algorithm.name and m.error <= policy.record_error
    ]
    mine = [m for m in mine if are_knobs_of(algorithm, names, m.knobs)]
    solved = posed(other, algorithm, target)
    if not mine or isinstance(solved, Unsupported):
        return Offer(algorithm.name, knobs, seconds, "estimate", "estimate")
    best = min(mine, key=lambda m: m.seconds)
    measured_there = best.seconds + _packing_seconds(algorithm, solved, target, best.knobs)
    ratio = measured_there / estimated_seconds(algorithm, solved, target, best.knobs)
    if dict(best.knobs) in map(dict, knob_space(algorithm, problem, target)):
        knobs = best.knobs
        seconds = estimated_seconds(algorithm, problem, target, knobs)
    reason = f"estimate, corrected by {other.key}"
    return Offer(algorithm.name, knobs, seconds * ratio, "neighbour", reason)


def _as_in_network(
    algorithm: Algorithm,
    problem: Problem,
    target: Target,
    knobs: Knobs,
    other: Problem,
    measured: Sequence[Measurement],
) -> Offer:
    """Return the setting that won over the model's choice in a like layer's place, with the same gain over what the model expects here.

    Where the model's own choice had won there, as in most places, its own stands here, whatever the two times were: in a network a time
    has in it what its neighbours cost.
    """
    own = Offer(algorithm.name, knobs, estimated_seconds(algorithm, problem, target, knobs), "estimate", "estimate")  # fmt: skip
    best = min(measured, key=lambda m: m.seconds)
    untuned, backend = best.untuned, backend_of(target)
    known = {row.name for row in backend.algorithms}
    if untuned is None or best.algorithm != algorithm.name or untuned.algorithm not in known:
        return own
    if (untuned.algorithm, dict(untuned.knobs)) == (best.algorithm, dict(best.knobs)):
        return own
    beaten = backend.algorithm(untuned.algorithm)
    there = [posed(other, row, target) for row in (algorithm, beaten)]
    mine, knobs_there = completed(algorithm, best.knobs), completed(beaten, untuned.knobs)
    legal = dict(mine) in map(dict, knob_space(algorithm, problem, target))
    if not legal or isinstance(there[0], Unsupported) or isinstance(there[1], Unsupported):
        return own
    if not are_knobs_of(beaten, set(beaten.knobs(there[1], target)), knobs_there):
        return own
    expected = [
        estimated_seconds(row, answer, target, setting)
        for row, answer, setting in zip(
            (algorithm, beaten), there, (mine, knobs_there), strict=True
        )
        if not isinstance(answer, Unsupported)
    ]
    ratio = (best.seconds / expected[0]) / (untuned.seconds / expected[1])
    seconds = estimated_seconds(algorithm, problem, target, mine) * ratio
    return Offer(algorithm.name, mine, seconds, "neighbour", f"estimate, corrected by {other.key} in a network")  # fmt: skip


def _within(algorithm: Algorithm, problem: Problem, target: Target, policy: Policy) -> Knobs:
    """Return the analytic choice; where it breaks the policy's limits, the fastest setting by estimate that keeps them."""
    knobs = algorithm.knobs(problem, target)

    def allowed(setting: Knobs) -> bool:
        return not breach(properties_of(algorithm, problem, target, setting), policy)

    if allowed(knobs):
        return knobs
    kept = filter(allowed, knob_space(algorithm, problem, target))
    return min(kept, key=lambda s: estimated_seconds(algorithm, problem, target, s), default=knobs)
