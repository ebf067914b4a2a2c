"""What every row offers for a weight gradient: its best measured setting, else one by a like gradient's record or the cost model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from convc.ir.spec import ConvSpec
from convc.ir.types import TensorType
from convc.schedules.backend import backend_of
from convc.schedules.library_algorithm import are_knobs_of, completed
from convc.schedules.offers import Offer
from convc.schedules.plan import Candidate, Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import breach
from convc.schedules.tuned import Measurement, Records, geometries, nearest
from convc.schedules.weight_gradient_problem import WEIGHT_GRADIENT, WeightGradientProblem
from convc.schedules.weight_gradients import (
    PLAIN_LOOPS,
    WeightGradient,
    about_gradients,
    gradient_properties,
    gradient_seconds,
    gradient_space,
    refused,
    weight_gradient_named,
)
from convc.target import Target

__all__ = ["GradientOffers", "OperandBlocks", "gradient_offers"]

# In which blocks data and gradient lie, 0 where they are plain; empty: that is not known.
OperandBlocks: TypeAlias = tuple[frozenset[int], frozenset[int]]


@dataclass(frozen=True, slots=True)
class GradientOffers:
    """What there is to choose from.

    Attributes:
        offers: by row, of those that apply; plain loops always are.
        candidates: one of each row, in the backend's order, for reports.
        libraries: rows that an estimate alone does not choose.
    """

    offers: Mapping[str, Offer]
    candidates: tuple[Candidate, ...]
    libraries: frozenset[str]

    @property
    def free(self) -> list[Offer]:
        """Those that may be chosen though nobody asks for them: not a library's estimate."""
        return [o for o in self.offers.values() if o.measured or o.algorithm not in self.libraries]

    def refusal(self, name: str) -> str:
        """Return why a row has no offer; what rows there are if there is no such row."""
        reason = next((row.reason for row in self.candidates if row.algorithm == name), "")
        rows = ", ".join(row.algorithm for row in self.candidates)
        return reason or f"weight gradients have {rows}"


def gradient_offers(
    problem: WeightGradientProblem,
    target: Target,
    policy: Policy,
    records: Records,
    blocks: OperandBlocks = (frozenset(), frozenset()),
) -> GradientOffers:
    """Return every row's offer; what the row or the policy refuses is a candidate's reason.

    Args:
        problem: the weight gradient.
        target: the machine.
        policy: what the choice may be of; plain loops are always left.
        records: measurements of this target by the problem's key.
        blocks: see `OperandBlocks`; copies of what does not lie as a row reads it are added to its time.
    """
    policy, known = about_gradients(policy, target), records if policy.by == "time" else {}
    own, like = known.get(problem.key, ()), None
    if not own and known:
        others = geometries(known, WEIGHT_GRADIENT)
        near = nearest(problem.geometry, others, same_shape=policy.when == "per_shape")
        like = None if near is None else (WeightGradientProblem.parse(near), known[near])
    offers, rows = {}, []
    table = backend_of(target).weight_gradients
    for name in (*(row.NAME for row in table), PLAIN_LOOPS):
        made = _offer(name, problem, target, policy, own, like)
        if isinstance(made, Unsupported):
            rows.append(Candidate(name, made.reason, {}, None))
            continue
        made = replace(made, seconds=made.seconds + _copies(made, problem.spec, target, blocks))
        offers[name] = made
        why = "" if made.measured else _on_request(name, target)
        rows.append(Candidate(name, why or made.reason, made.knobs, made.seconds))
    return GradientOffers(offers, tuple(rows), frozenset(r.NAME for r in table if r.ON_REQUEST))


def _on_request(name: str, target: Target) -> str:
    return "" if name == PLAIN_LOOPS else weight_gradient_named(name, target).ON_REQUEST


def _copies(offer: Offer, spec: ConvSpec, target: Target, blocks: OperandBlocks) -> float:
    """Return the seconds that bringing operands into a row's order takes before it."""
    wanted = (0, 0)
    if offer.algorithm != PLAIN_LOOPS:
        row = weight_gradient_named(offer.algorithm, target)
        wanted = (row.operands(spec, offer.knobs).data.block, row.gradient_layout(offer.knobs).block)  # fmt: skip
    copy = backend_of(target).copy_seconds
    return sum(
        copy(TensorType(shape, spec.dtype), target)
        for shape, own, there in zip((spec.data, spec.output), wanted, blocks, strict=True)
        if there and own not in there
    )


_Like = tuple[WeightGradientProblem, tuple[Measurement, ...]]


def _offer(
    name: str,
    problem: WeightGradientProblem,
    target: Target,
    policy: Policy,
    own: tuple[Measurement, ...],
    like: _Like | None,
) -> Offer | Unsupported:
    row = None if name == PLAIN_LOOPS else weight_gradient_named(name, target)
    if row is not None:
        refusal = refused(row, problem, target)
        if refusal is None and not policy.allows(name):
            refusal = Unsupported("excluded by the policy")
        if refusal is not None:
            return refusal
    measured = _measured(name, row, problem.spec, target, policy, own)
    if measured is not None:
        return measured
    knobs: Knobs | Unsupported = {}
    if row is not None:
        knobs = row.knobs_within(problem.spec, target, policy)
        if isinstance(knobs, Unsupported):
            return knobs
        if broken := _breach(name, problem.spec, knobs, target, policy):
            return Unsupported(broken)
    return _estimated(name, row, problem.spec, knobs, target, policy, like)


def _breach(name: str, spec: ConvSpec, knobs: Knobs, target: Target, policy: Policy) -> str:
    """Return which limit of the policy a setting breaks.

    Not that of the expected error: plain loops, which would be left, have the longest chains.
    """
    return breach(gradient_properties(name, spec, knobs, target), replace(policy, max_error=None))


def _measured(
    name: str,
    row: WeightGradient | None,
    spec: ConvSpec,
    target: Target,
    policy: Policy,
    own: tuple[Measurement, ...],
) -> Offer | None:
    """Return a row's fastest record that the policy admits."""
    names = set() if row is None else set(row.knobs(spec, target))
    for m in sorted(own, key=lambda m: m.seconds):
        knobs = completed(row, m.knobs)
        if m.algorithm != name or m.error > policy.record_error or not are_knobs_of(row, names, knobs):  # fmt: skip
            continue
        if row is None or not _breach(name, spec, knobs, target, policy):
            return Offer(name, knobs, m.seconds, "record", "tuned record")
    return None


def _estimated(
    name: str,
    row: WeightGradient | None,
    spec: ConvSpec,
    knobs: Knobs,
    target: Target,
    policy: Policy,
    like: _Like | None,
) -> Offer:
    """Return the analytic choice, corrected by what a like gradient's record says about this row."""
    estimate = Offer(name, knobs, gradient_seconds(name, spec, knobs, target), "estimate", "estimate")  # fmt: skip
    if like is None:
        return estimate
    other, rows = like
    if row is not None and refused(row, other, target) is not None:
        return estimate
    best = _measured(name, row, other.spec, target, policy, rows)
    if best is None:
        return estimate
    ratio = best.seconds / gradient_seconds(name, other.spec, best.knobs, target)
    if row is not None and dict(best.knobs) in map(dict, gradient_space(row, spec, target)):
        knobs = knobs if _breach(name, spec, best.knobs, target, policy) else best.knobs
    seconds = ratio * gradient_seconds(name, spec, knobs, target)
    return Offer(name, knobs, seconds, "neighbour", f"estimate, corrected by {other.key}")
