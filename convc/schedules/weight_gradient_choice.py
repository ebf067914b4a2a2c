"""The choice of one weight gradient among what its backend's rows offer: pins, the author's wishes, the policy, then time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from convc.errors import UnsupportedConvError, unknown_name
from convc.ir.spec import ConvSpec
from convc.schedules.library_algorithm import Ways, way_of
from convc.schedules.offers import Offer
from convc.schedules.plan import Choice
from convc.schedules.policy import PREFERENCE, THE_POLICY, Policy
from convc.schedules.tuned import Records
from convc.schedules.weight_gradient_offers import GradientOffers, OperandBlocks, gradient_offers
from convc.schedules.weight_gradient_problem import WeightGradientProblem
from convc.schedules.weight_gradients import gradient_seconds, weight_gradient_named
from convc.target import Target

__all__ = ["choose_weight_gradient"]

_VERBS: Final = {"record": "measured", "neighbour": "by a like gradient", "estimate": "estimated"}


def choose_weight_gradient(
    spec: ConvSpec,
    target: Target,
    *,
    name: str = "",
    pinned: str = "",
    by: str = "",
    accumulate: str = "",
    wishes: Sequence[str] = (),
    asked: Mapping[str, str] | None = None,
    policy: Policy | None = None,
    records: Records | None = None,
    blocks: OperandBlocks = (frozenset(), frozenset()),
) -> Choice:
    """Return the choice for a weight gradient: the pinned row, the first wish that applies, what is asked for, or the fastest.

    The fastest of those with records of this very gradient, if there are any; else by a like one's records and the cost model.

    Args:
        spec: the forward convolution.
        target: the machine.
        name: of the node, for messages.
        pinned: the row that must be taken, if one is.
        by: who asks for it.
        accumulate: element type of the sums, where it is not the usual one.
        wishes: what the model asks for, in order of preference.
        asked: libraries that are asked for where they apply -> who asks.
        policy: what the choice may be of; plain loops are always left. A list of what to include that names no row is about convolutions.
        records: measurements of this target by `WeightGradientProblem.key`.
        blocks: in which data and gradient lie, where that is known.

    Raises:
        UnknownNameError: if there is no row called `pinned`.
        UnsupportedConvError: if it does not apply; says why and which do.
    """
    policy, known, asked = policy or Policy(), records or {}, asked or {}
    problem = WeightGradientProblem(spec, accumulate)
    made = gradient_offers(problem, target, policy, known, blocks)
    offers = made.offers
    if pinned and way_of(pinned)[0] not in offers:
        weight_gradient_named(way_of(pinned)[0], target)
        raise UnsupportedConvError(
            f"weight gradient '{pinned}' cannot compute '{name}': {made.refusal(way_of(pinned)[0])}. These can: {', '.join(offers)}."
        )
    fastest = _preferred(made.free, policy)
    otherwise = None
    granted = next((wish for wish in wishes if way_of(wish)[0] in offers), "")
    refused = [
        f"{wish} asked for, but {made.refusal(way_of(wish)[0])}"
        for wish in wishes
        if way_of(wish)[0] not in offers
    ]
    library = next((name for name in asked if way_of(name)[0] in made.libraries), "")
    best = fastest
    if granted and not pinned:
        best = _in_way(offers, granted, spec, target)
        reason = "; ".join(["asked for by the model", *refused])
    elif pinned:
        best, reason = _in_way(offers, pinned, spec, target), f"pinned by {by}"
    elif way_of(library)[0] in offers:
        best, reason = _in_way(offers, library, spec, target), f"asked for by {asked[library]}"
        if asked[library] == THE_POLICY:
            otherwise = _beside(library, made, policy)
    else:
        if library:
            refused.append(f"{library} asked for, but {made.refusal(way_of(library)[0])}")
        reason = "; ".join([*refused, _reason(best, made, policy)])
        if best.algorithm in made.libraries:
            otherwise = _beside(best.algorithm, made, policy)
    rows = tuple(
        replace(row, knobs=best.knobs, seconds=best.seconds) if row.algorithm == best.algorithm else row
        for row in made.candidates
    )  # fmt: skip
    missed = known and policy.by == "time" and not best.measured
    because = f"no record for {problem.key}" if missed else ""
    return Choice(best.algorithm, best.knobs, reason, rows, best.source, because, otherwise)


def _reason(best: Offer, made: GradientOffers, policy: Policy) -> str:
    """Return why the fastest is taken."""
    if best.algorithm in (*policy.require, *policy.prefer):
        return f"asked for by {THE_POLICY}"
    others = [o for o in made.free if o is not best]
    rivals = sorted((o for o in others if o.measured == best.measured), key=lambda o: o.seconds)
    if others and not rivals:
        return "measured; the others have no records"
    if not rivals:
        rest = (r for r in made.candidates if r.seconds is None)
        return (
            f"the only one that applies ({'; '.join(f'{r.algorithm}: {r.reason}' for r in rest)})"
        )
    ratio = rivals[0].seconds / (best.seconds or 1.0)
    return f"{_VERBS[best.source]} {ratio:.2f} x faster than {rivals[0].algorithm}"


def _beside(library: str, made: GradientOffers, policy: Policy) -> Choice | None:
    """Return what stands beside a library's call, for devices that refuse it; None where the policy wants nothing."""
    if not policy.fallback:
        return None
    own = _preferred([o for o in made.free if o.algorithm not in made.libraries], policy)
    reason = f"for devices whose {library} refuses it; {own.reason}"
    return Choice(own.algorithm, own.knobs, reason, source=own.source)


def _in_way(offers: Mapping[str, Offer], name: str, spec: ConvSpec, target: Target) -> Offer:
    """Return a row's offer, or one that chooses in the way that is asked for, of which no record tells.

    Raises:
        UnknownNameError: if it has no such way.
    """
    own, way = way_of(name)
    if not way:
        return offers[own]
    row: object = weight_gradient_named(own, target)
    known = row.ways if isinstance(row, Ways) else ()
    if not isinstance(row, Ways) or way not in known:
        raise unknown_name(f"way of {own}", way, known)
    knobs = row.in_way(offers[own].knobs, way)
    return Offer(own, knobs, gradient_seconds(own, spec, knobs, target), "estimate", "estimate")


def _preferred(own: Sequence[Offer], policy: Policy) -> Offer:
    """Return the fastest of what the policy requires, if one of those is there, or prefers, if it is fast enough.

    Times that were measured are compared with each other and with no estimate.
    """
    left = [o for o in own if o.algorithm in policy.require] or list(own)
    left = [o for o in left if o.measured] or left
    fastest = min(left, key=lambda o: o.seconds)
    close = PREFERENCE * fastest.seconds
    preferred = [o for o in left if o.algorithm in policy.prefer and o.seconds <= close]
    return min(preferred, key=lambda o: o.seconds, default=fastest)
