"""The choice of one convolution among what every algorithm offers: pins, the author's wishes, the policy, then time."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from convc.errors import UnsupportedConvError
from convc.ir.graph import Node
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes
from convc.schedules.backend import backend_of
from convc.schedules.dual import solved
from convc.schedules.library_algorithm import OnRequest, Refusable, Ways, way_of
from convc.schedules.offers import Offer, Offers, admissible, estimated_seconds
from convc.schedules.plan import Choice
from convc.schedules.policy import PREFERENCE, THE_POLICY, Policy
from convc.target import Target

__all__ = ["AUTO", "Chooser", "asked_for", "matches", "named_algorithms", "wishes"]

AUTO: Final = "auto"

# Where an offer's time is from.
_VERBS: Final = {"record": "measured", "neighbour": "by a like layer", "estimate": "estimated"}


def wishes(node: Node) -> list[str]:
    """Return the algorithms that a convolution's author asks for, in order of preference."""
    attributes = node.attributes
    assert isinstance(attributes, ConvAttributes | ConvTransposeAttributes)
    return named_algorithms(attributes.algorithm)


def named_algorithms(algorithms: str) -> list[str]:
    """Return the names in an attribute, "winograd, direct"."""
    return [name.strip() for name in algorithms.split(",") if name.strip()]


def matches(name: str, pattern: str) -> bool:
    """Whether a pin's pattern means the node."""
    # A name may hold brackets itself, which a pattern would read as a set of characters.
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def asked_for(name: str, algo: str, pins: Mapping[str, str], policy: Policy) -> dict[str, str]:
    """Return what is asked for wherever it applies -> who asks: --algo, a pin that means convolutions, too, the policy.

    Args:
        name: of a node that is no convolution.
        algo: the algorithm for all layers that it applies to.
        pins: node name pattern -> algorithm.
        policy: of the choice.
    """
    asked = {} if algo == AUTO else {algo: f"--algo {algo}"}
    for pattern, algorithm in pins.items():
        if matches(name, pattern) and algorithm != AUTO:
            asked.setdefault(algorithm, f"--algo-for {pattern}")
    for algorithm in (*policy.require, *policy.prefer, *policy.include):
        asked.setdefault(algorithm, THE_POLICY)
    return asked


def _in_way(made: Offers, name: str, way: str, target: Target) -> list[Offer]:
    """Return the offers of an algorithm, or the one that chooses in the way that is asked for, of which no record tells."""
    offers, row = made.by(name), backend_of(target).algorithm(name)
    if not way or not isinstance(row, Ways):
        return offers
    best = min(offers, key=lambda o: o.seconds)
    knobs = row.in_way(best.knobs, way)
    seconds = estimated_seconds(row, solved(made.problem, row, target), target, knobs)
    return [Offer(name, knobs, seconds, "estimate", "estimate")]


class Chooser:
    """One layer: the offers that its pins and the policy leave, and the choice among them."""

    def __init__(
        self,
        node: Node,
        made: Offers,
        algo: str,
        pins: Mapping[str, str],
        policy: Policy,
        tuned: bool,
        target: Target,
    ) -> None:
        self.made, self.node, self.tuned, self.policy = made, node, tuned, policy
        self.pinned, self.refusals = "", []
        self.behind: tuple[str, ...] = ()  # what the author asks for next
        usable = [row.algorithm for row in made.candidates if row.applies]
        pattern = next((p for p in pins if matches(node.name, p)), None)
        named = pins[pattern] if pattern is not None else algo
        wanted, way = way_of(named)
        if wanted != AUTO and (pattern is not None or made.takes(wanted)):
            if not made.takes(wanted):
                raise UnsupportedConvError(
                    f"algorithm '{wanted}' cannot compute '{node.name}': {made.refusal(wanted)}. "
                    f"These can: {', '.join(usable)}."
                )
            by = f"--algo-for {pattern}" if pattern is not None else f"--algo {algo}"
            self.pinned = f"pinned by {by}"
            self.offers = _in_way(made, wanted, way, target)
            return
        asked = [way_of(wish) for wish in wishes(node)]
        for i, (name, way) in enumerate(asked):
            if made.takes(name):
                self.pinned = "; ".join(["asked for by the model", *self.refusals])
                self.offers = _in_way(made, name, way, target)
                self.behind = tuple(next_name for next_name, _ in asked[i + 1 :])
                return
            self.refusals.append(f"{name} asked for, but {made.refusal(name)}")
        offers = admissible(made, policy)
        if not offers:
            raise UnsupportedConvError(
                f"policy must leave an algorithm for '{node.name}'; got none: "
                + "; ".join(f"{r.algorithm}: {r.reason}" for r in made.candidates)
                + "."
            )
        required = [o for o in offers if o.algorithm in policy.require]
        if not required:
            self.refusals += [f"{n} required, but {made.refusal(n)}" for n in policy.require]
        offers = required or offers
        best = min(o.seconds for o in offers)
        preferred = [
            o for o in offers if o.algorithm in policy.prefer and o.seconds <= PREFERENCE * best
        ]
        self.offers = preferred or offers

    def otherwise(self, index: int, target: Target) -> Choice | None:
        """Return convc's own algorithm beside a library's, which a device may refuse; None where somebody insists on the library.

        The author of a model who asks for another one behind the library's gets that.
        """
        backend, name = backend_of(target), self.offers[index].algorithm
        if not self.policy.fallback or not isinstance(backend.algorithm(name), Refusable):
            return None
        applies = {row.algorithm for row in self.made.candidates if row.applies}
        own = [o for o in self.made.offers if o.algorithm in applies and not isinstance(backend.algorithm(o.algorithm), OnRequest)]  # fmt: skip
        why = ""
        if self.pinned:
            wish = next((w for w in self.behind if any(o.algorithm == w for o in own)), "")
            own, why = [o for o in own if o.algorithm == wish], "asked for by the model behind it"
        best = min(own, key=lambda o: (not o.measured, o.seconds), default=None)
        if best is None:
            return None
        reason = f"for devices whose {name} refuses the layer; {why or best.reason}"
        return Choice(best.algorithm, best.knobs, reason, source=best.source)

    def measured(self, index: int) -> float | None:
        """Return the seconds of one of the offers, if they are from a record of this layer alone."""
        offer = self.offers[index]
        alone = self.made.tuned and offer.measured and not offer.in_network
        return offer.seconds if alone else None

    def choice(self, index: int) -> Choice:
        """Return the choice of one of the offers, with its reason."""
        offer, made = self.offers[index], self.made
        source = "record" if made.settled or (made.tuned and offer.measured) else offer.source
        because = ""
        if self.tuned and source != "record":
            because = f"no record for {made.problem.key}"
        if self.pinned:
            reason = self.pinned
        else:
            # What was measured is compared with what was, an estimate with estimates.
            rivals = sorted(
                (o.alone, o.algorithm)
                for o in admissible(made, self.policy)
                if o.algorithm != offer.algorithm
            )
            if made.settled:
                reason = "as estimated, in a network nothing measured was faster"
            elif (
                rivals and offer.seconds and not offer.in_network
            ):  # of no samples nothing takes time
                reason = self._beside(offer, *rivals[0])
            elif not rivals and sum(row.applies for row in made.candidates) == 1:
                reason = "the only one that applies"
            else:
                reason = offer.reason
            reason = "; ".join([*self.refusals, reason])
        rows = tuple(
            replace(row, knobs=offer.knobs, seconds=offer.seconds)
            if row.algorithm == offer.algorithm
            else row
            for row in made.candidates
        )
        return Choice(offer.algorithm, offer.knobs, reason, rows, source, because)

    def _beside(self, offer: Offer, rival: float, name: str) -> str:
        """Return why an offer is taken beside its fastest rival, which may be the faster one by itself."""
        verb = _VERBS[offer.source]
        own = offer.alone
        if own <= rival:
            return f"{verb} {rival / own:.2f} x faster than {name}"
        slower = f"{verb} {own / rival:.2f} x slower than {name}"
        if all(o.algorithm != name for o in self.offers):
            return f"{slower}, which the policy leaves out"
        return f"{slower} by itself, but in its neighbours' blocks of channels"
