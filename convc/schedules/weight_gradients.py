"""Weight gradients: what a way to compute one is, and the choice among a backend's. A new one is one file, one row and one schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from tvm import te

from convc.errors import UnsupportedConvError, unknown_name
from convc.ir.graph import Graph, Node
from convc.ir.ops.conv import accumulator
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes, forward_spec
from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands
from convc.schedules.backend import backend_of
from convc.schedules.layout import Layout
from convc.schedules.library_algorithm import Ways, way_of
from convc.schedules.plan import Candidate, Choice, Knobs, Unsupported
from convc.schedules.policy import PREFERENCE, THE_POLICY, Policy
from convc.target import Target

__all__ = [
    "PLAIN_LOOPS",
    "WeightGradient",
    "choose_weight_gradient",
    "is_weight_gradient",
    "weight_gradient_named",
    "weight_gradient_spec",
    "workspace_of",
]

# What is left where no row applies: the definition, on plain tensors.
PLAIN_LOOPS: Final = "plain"


class WeightGradient(Protocol):
    """A way to compute a weight gradient; the functions are of the forward convolution.

    One whose ON_REQUEST, what is said where nobody has asked for it, is not "" is a library's: an estimate does not choose it.
    """

    @property
    def NAME(self) -> str: ...  # noqa: N802 (a module's constant)
    @property
    def ON_REQUEST(self) -> str: ...  # noqa: N802
    def supports(self, spec: ConvSpec, target: Target, /) -> Unsupported | None: ...
    def knobs(self, spec: ConvSpec, target: Target, /) -> Knobs: ...
    def knobs_within(
        self, spec: ConvSpec, target: Target, policy: Policy, /
    ) -> Knobs | Unsupported: ...
    def operands(self, spec: ConvSpec, knobs: Knobs, /) -> Operands: ...
    def gradient_layout(self, knobs: Knobs, /) -> Layout: ...
    def workspace(self, spec: ConvSpec, knobs: Knobs, /) -> int: ...
    def cycles(self, spec: ConvSpec, target: Target, knobs: Knobs, /) -> float: ...
    def compute(self, spec: ConvSpec, knobs: Knobs, /) -> list[te.Tensor]: ...


def workspace_of(name: str, spec: ConvSpec, knobs: Knobs, target: Target) -> int:
    """Return the bytes that a weight gradient takes beside its operands and its result."""
    return 0 if name == PLAIN_LOOPS else weight_gradient_named(name, target).workspace(spec, knobs)


def weight_gradient_named(name: str, target: Target) -> WeightGradient:
    """Return the target's row called `name`, or raise UnknownNameError."""
    rows = backend_of(target).weight_gradients
    for row in rows:
        if name == row.NAME:
            return row
    raise unknown_name("weight gradient", name, [*(r.NAME for r in rows), PLAIN_LOOPS])


def is_weight_gradient(node: Node) -> bool:
    """Whether the node is a convolution's weight gradient."""
    return isinstance(node.attributes, ConvWeightGradAttributes)


def weight_gradient_spec(graph: Graph, node: Node) -> ConvSpec:
    """Return the convolution whose weight gradient a node is."""
    assert isinstance(node.attributes, ConvWeightGradAttributes)
    data, gradient = graph.operands(node)
    return forward_spec(data.type, gradient.type, node.attributes)


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
) -> Choice:
    """Return the choice for a weight gradient: the pinned row, the first wish that applies, what is asked for, or the fastest estimate.

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

    Raises:
        UnknownNameError: if there is no row called `pinned`.
        UnsupportedConvError: if it does not apply; says why and which do.
    """
    backend, rows, policy, asked = backend_of(target), [], policy or Policy(), asked or {}
    if not any(row.NAME in policy.include for row in backend.weight_gradients):
        policy = replace(policy, include=())
    for row in backend.weight_gradients:
        refusal = row.supports(spec, target)
        if accumulate not in ("", accumulator(spec.dtype)):
            usual = accumulator(spec.dtype)
            refusal = Unsupported(f"accumulate must be {usual}; got {accumulate}")
        if refusal is None and not policy.allows(row.NAME):
            refusal = Unsupported("excluded by the policy")
        knobs = refusal or row.knobs_within(spec, target, policy)
        if not isinstance(knobs, Unsupported):
            knobs = _over_the_limit(row.workspace(spec, knobs), policy) or knobs
        if isinstance(knobs, Unsupported):
            rows.append(Candidate(row.NAME, knobs.reason, {}, None))
        else:
            seconds = backend.seconds(row.cycles(spec, target, knobs), target)
            rows.append(Candidate(row.NAME, "estimate", knobs, seconds))
    terms = spec.data[0] * math.prod(spec.output[2:])
    loops = backend.seconds(backend.sum_cycles(math.prod(spec.weight), terms, target), target)
    rows.append(Candidate(PLAIN_LOOPS, "estimate", {}, loops))
    usable: Mapping[str, Candidate] = {r.algorithm: r for r in rows if r.seconds is not None}
    if pinned and way_of(pinned)[0] not in usable:
        weight_gradient_named(way_of(pinned)[0], target)
        why = next(r.reason for r in rows if r.algorithm == way_of(pinned)[0])
        raise UnsupportedConvError(
            f"weight gradient '{pinned}' cannot compute '{name}': {why}. These can: {', '.join(usable)}."
        )
    libraries = {row.NAME for row in backend.weight_gradients if row.ON_REQUEST}
    own = [r for r in usable.values() if r.algorithm not in libraries]
    best = _preferred(own, policy)
    rivals = sorted((r for r in own if r is not best), key=lambda r: r.seconds or 0.0)
    library = next((name for name in asked if way_of(name)[0] in libraries), "")
    otherwise = None
    granted = next((wish for wish in wishes if way_of(wish)[0] in usable), "")
    refused = [
        f"{wish} asked for, but {_refusal(wish, rows)}"
        for wish in wishes
        if way_of(wish)[0] not in usable
    ]
    if granted and not pinned:
        best = _in_way(usable, granted, target)
        reason = "; ".join(["asked for by the model", *refused])
    elif pinned:
        best, reason = _in_way(usable, pinned, target), f"pinned by {by}"
    elif way_of(library)[0] in usable:
        if policy.fallback and asked[library] == THE_POLICY:
            otherwise = Choice(
                best.algorithm,
                best.knobs,
                f"for devices whose {library} refuses it; {best.reason}",
            )
        best, reason = _in_way(usable, library, target), f"asked for by {asked[library]}"
    elif best.algorithm in (*policy.require, *policy.prefer):
        reason = f"asked for by {THE_POLICY}"
    elif rivals:
        ratio = (rivals[0].seconds or 0.0) / (best.seconds or 1.0)
        reason = f"estimated {ratio:.2f} x faster than {rivals[0].algorithm}"
    else:
        others = "; ".join(f"{r.algorithm}: {r.reason}" for r in rows if r.seconds is None)
        reason = f"the only one that applies ({others})"
    if library and way_of(library)[0] not in usable:
        refused.append(f"{library} asked for, but {_refusal(library, rows)}")
    if refused and not (pinned or granted):
        reason = "; ".join([*refused, reason])
    rows = [replace(r, reason=weight_gradient_named(r.algorithm, target).ON_REQUEST) if r.algorithm in libraries and r.seconds else r for r in rows]  # fmt: skip
    return Choice(best.algorithm, best.knobs, reason, tuple(rows), otherwise=otherwise)


def _over_the_limit(needed: int, policy: Policy) -> Unsupported | None:
    limit = policy.workspace_limit
    if limit is None or needed <= limit:
        return None
    return Unsupported(f"workspace must be at most {limit} bytes; got {needed}")


def _in_way(usable: Mapping[str, Candidate], name: str, target: Target) -> Candidate:
    """Return a row of those, with knobs that choose in the way that is asked for.

    Raises:
        UnknownNameError: if it has no such way.
    """
    own, way = way_of(name)
    if not way:
        return usable[own]
    row: object = weight_gradient_named(own, target)
    known = row.ways if isinstance(row, Ways) else ()
    if not isinstance(row, Ways) or way not in known:
        raise unknown_name(f"way of {own}", way, known)
    return replace(usable[own], knobs=row.in_way(usable[own].knobs, way))


def _preferred(own: Sequence[Candidate], policy: Policy) -> Candidate:
    """Return the fastest of what the policy requires, if one of those is there, or prefers, if it is fast enough."""
    left = [r for r in own if r.algorithm in policy.require] or own
    fastest = min(left, key=lambda r: r.seconds or 0.0)
    close = PREFERENCE * (fastest.seconds or 0.0)
    preferred = [r for r in left if r.algorithm in policy.prefer and (r.seconds or 0.0) <= close]
    return min(preferred, key=lambda r: r.seconds or 0.0, default=fastest)


def _refusal(wish: str, rows: Sequence[Candidate]) -> str:
    """Return why what the model asks for is not to be had."""
    reason = next((row.reason for row in rows if row.algorithm == way_of(wish)[0]), "")
    return reason or f"weight gradients have {', '.join(row.algorithm for row in rows)}"
