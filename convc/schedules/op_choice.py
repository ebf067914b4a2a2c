"""Choose how an op that is no convolution is computed, where there is another way than its own: a backend's, or a library's.

An algorithm without `on_request` goes before the op's own wherever it applies. One with it is taken by
    a pin on the node         --algo-for 'pool1=cudnn'; it must apply then
    whatever names it         --algo, --cudnn prefer, a policy, a pin on convolutions of the same pattern; where it applies
Nothing is estimated: what such ops take is not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from convc.errors import ScheduleError, unknown_name
from convc.ir.graph import Graph, Node
from convc.ir.text.printer import print_attributes
from convc.schedules.backend import backend_of
from convc.schedules.library_algorithm import way_of
from convc.schedules.operators import OPERATORS, OpAlgorithm
from convc.schedules.plan import Candidate, Choice, Unsupported
from convc.schedules.policy import THE_POLICY, Policy
from convc.target import Target

__all__ = ["OWN", "Asked", "choose_op", "has_choice", "op_algorithm", "op_key"]

# What is left where no algorithm is taken: the op's own computation.
OWN: Final = "plain"


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody says about one node.

    Attributes:
        pinned: the algorithm that must be taken, and who says so.
        wishes: algorithm -> who asks for it where it applies.
    """

    pinned: tuple[str, str] | None = None
    wishes: Mapping[str, str] | None = None


def _rows(node: Node, target: Target) -> tuple[OpAlgorithm, ...]:
    operator = OPERATORS.get(node.op)
    known = backend_of(target).schedules
    return tuple(a for a in operator.algorithms if a.schedule in known) if operator else ()


def has_choice(node: Node, target: Target) -> bool:
    """Whether the target has another way to compute the node than the op's own."""
    return bool(_rows(node, target))


def op_key(graph: Graph, node: Node) -> str:
    """Return the node's canonical name without its operands': what a lock compares.

    Example:
        >>> from convc.ir.text import parse
        >>> g = parse("graph @g { %x = input : f32[1,2,4,4]  %y = max_pool(%x) {kernel = [2, 2]}  return %y }")
        >>> op_key(g, g["y"])
        'max_pool(f32[1,2,4,4]) {kernel = [2, 2]}'
    """
    types = ", ".join(str(n.type) for n in graph.operands(node))
    return f"{node.op}({types}){print_attributes(node.attributes)}"


def op_algorithm(node: Node, name: str, target: Target) -> OpAlgorithm | None:
    """Return the algorithm that a choice for the node names; None for the op's own.

    Raises:
        UnknownNameError: if the op has none of that name on this target.
    """
    rows = _rows(node, target)
    if name == OWN:
        return None
    for row in rows:
        if row.name == name:
            return row
    raise unknown_name("algorithm", name, [*(row.name for row in rows), OWN])


def choose_op(graph: Graph, node: Node, target: Target, asked: Asked, policy: Policy) -> Choice:
    """Return the choice for a node that has one.

    Raises:
        UnknownNameError: if there is no algorithm of the name that is pinned.
        ScheduleError: if it does not apply; says why.
    """
    types = [n.type for n in graph.operands(node)]
    refusals = {row.name: row.supports(node, types) for row in _rows(node, target)}
    wishes = _wishes(asked, policy)
    rows = [_candidate(row, node, types, target, refusals, policy) for row in _rows(node, target)]
    rows.append(Candidate(OWN, "the op's own computation", {}, None))
    if asked.pinned is not None:
        (name, way), by = way_of(asked.pinned[0]), asked.pinned[1]
        if way:
            raise ScheduleError(
                f"algorithm of '{node.name}' must be named without a way, which convolutions alone have; "
                f"got '{name}:{way}'. Pin '{name}'."
            )
        row, refusal = op_algorithm(node, name, target), refusals.get(name)
        if refusal is not None:
            raise ScheduleError(
                f"algorithm '{name}' cannot compute '{node.name}': {refusal.reason}. "
                f"These can: {', '.join([n for n, r in refusals.items() if r is None] + [OWN])}."
            )
        return _choice(row, node, types, target, "; ".join(filter(None, [f"pinned by {by}", row.differs if row else ""])), rows)  # fmt: skip
    said = []
    for row in _rows(node, target):
        by, refusal = wishes.get(row.name, ""), refusals[row.name]
        if refusal is None and not row.on_request:
            return _choice(row, node, types, target, "wherever it applies", rows)
        if not by:
            continue
        why = refusal.reason if refusal is not None else row.differs and f"only a pin on it takes it: {row.differs}"  # fmt: skip
        if not why and policy.allows(row.name):
            choice = _choice(row, node, types, target, f"asked for by {by}", rows)
            falls = policy.fallback and row.name not in (asked.wishes or {})
            return replace(choice, otherwise=Choice(OWN, {}, f"for devices whose {row.name} refuses it")) if falls else choice  # fmt: skip
        said.append(f"{row.name} asked for, but {why or 'excluded by the policy'}")
    return _choice(None, node, types, target, "; ".join(said) or "nobody asked for another", rows)


def _wishes(asked: Asked, policy: Policy) -> dict[str, str]:
    named = (*policy.require, *policy.prefer, *policy.include)
    return {**dict.fromkeys(named, THE_POLICY), **(asked.wishes or {})}


def _candidate(
    row: OpAlgorithm,
    node: Node,
    types: Sequence,
    target: Target,
    refusals: Mapping[str, Unsupported | None],
    policy: Policy,
) -> Candidate:
    refusal = refusals[row.name]
    if refusal is not None:
        return Candidate(row.name, refusal.reason, {}, None)
    if not policy.allows(row.name):
        return Candidate(row.name, "excluded by the policy", {}, None)
    reason = row.differs and f"taken by a pin on it alone: {row.differs}"
    return Candidate(row.name, reason or row.on_request, row.knobs(node, types, target), None)


def _choice(
    row: OpAlgorithm | None,
    node: Node,
    types: Sequence,
    target: Target,
    reason: str,
    rows: Sequence[Candidate],
) -> Choice:
    if row is None:
        return Choice(OWN, {}, reason, tuple(rows))
    return Choice(row.name, row.knobs(node, types, target), reason, tuple(rows))
