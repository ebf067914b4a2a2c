"""Choose an algorithm for every layer: (Graph, Target, pins, policy, records) -> Plan, with the reason for and against each.

What a choice rests on, first that there is: the layer's own tuned records; those of a like layer (its knobs where they are legal here,
and the ratio of measured to estimated time, algorithm by algorithm); the cost model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from convc.errors import unknown_name
from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, conv_spec
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes
from convc.schedules.agree import Option, agree
from convc.schedules.algorithm import Algorithm, Problem
from convc.schedules.at_hand import blocks_at_hand
from convc.schedules.backend import Backend, backend_of, backend_with, is_known_somewhere
from convc.schedules.chain_kinds import chain_names
from convc.schedules.chains import Alone, chains_of
from convc.schedules.chooser import AUTO, Chooser, asked_for, matches, named_algorithms, wishes
from convc.schedules.dual import solved
from convc.schedules.gated import gated_layers
from convc.schedules.library_algorithm import check_name, way_of
from convc.schedules.offers import Offer, Offers, offers_of
from convc.schedules.op_choice import Asked, choose_op, has_choice
from convc.schedules.plan import Candidate, Choice, Plan
from convc.schedules.policy import Policy
from convc.schedules.pooled_choice import pooled_layers
from convc.schedules.remarks import remarked
from convc.schedules.tuned import Records
from convc.schedules.weight_gradient_choice import choose_weight_gradient
from convc.schedules.weight_gradient_problem import is_weight_gradient, weight_gradient_problem
from convc.target import Target

__all__ = ["AUTO", "candidates", "is_convolution", "problem_for", "problem_of", "select"]

# What may be asked for where it is no algorithm of the target.
_ELSEWHERE = ("cudnn", "cutlass")


def is_convolution(node: Node) -> bool:
    """Whether the node is one that algorithms compete for."""
    return node.op in ("conv", "conv_transpose")


def problem_of(graph: Graph, node: Node) -> Problem:
    """Return the problem that a `conv` or `conv_transpose` node poses."""
    attributes = node.attributes
    assert isinstance(attributes, ConvAttributes | ConvTransposeAttributes)
    data, weight = graph[node.inputs[0]], graph[node.inputs[1]]
    spec = conv_spec(data.type, weight.type, attributes)
    return Problem(spec, attributes.epilogue, weight.op == CONSTANT, attributes.accumulate)


def problem_for(graph: Graph, node: Node, algorithm: Algorithm, target: Target) -> Problem:
    """Return the problem that an algorithm chosen for the node solves: the node's own, or its dual."""
    return solved(problem_of(graph, node), algorithm, target)


def candidates(
    problem: Problem, target: Target, policy: Policy | None = None, records: Records | None = None
) -> tuple[Candidate, ...]:
    """Return every algorithm's answer, in the table's order: its best offer, or the reason it has none."""
    return offers_of(problem, target, policy or Policy(), records or {}).candidates


def select(
    graph: Graph,
    target: Target,
    *,
    algo: str = AUTO,
    algo_for: Mapping[str, str] | None = None,
    policy: Policy | None = None,
    records: Records | None = None,
) -> Plan:
    """Return the plan of every convolution of the graph.

    Args:
        graph: after all passes.
        target: the machine.
        algo: one algorithm for all layers that it applies to ("auto": what the node asks for, else the fastest).
        algo_for: node name pattern -> algorithm; must apply. A pattern that matches weight gradients alone names one of theirs, and one
            that matches other ops alone one of those, see `op_choice`; beside convolutions such ops take it where it applies.
        policy: by what, and among which algorithms.
        records: measurements of this target by the problems' keys.

    Raises:
        UnknownNameError: for an algorithm nobody knows, or a pattern that matches no node with a choice.
        ScheduleError: if a pinned algorithm does not take its layer, or the policy leaves none; says why and which do.
    """
    pins, policy, known = dict(algo_for or {}), policy or Policy(), records or {}
    nodes = [n for n in graph.nodes if is_convolution(n)]
    backend = backend_of(target)
    known_names = [row.name for row in backend.algorithms]
    gradients = [n for n in graph.nodes if is_weight_gradient(n)]
    chains = chain_names(backend)
    others = [row.NAME for row in backend.weight_gradients if gradients]
    policy.check(list(dict.fromkeys([*known_names, *chains, *others])))
    operations = [n for n in graph.nodes if has_choice(n, target)]
    named = [n.name for n in (*nodes, *gradients, *operations)]
    for pattern in pins:
        if not any(matches(name, pattern) for name in named):
            kind = "convolution" if len(named) == len(nodes) else "layer with a choice"
            raise unknown_name(kind, pattern, named)
    pinned = [a for p, a in pins.items() if any(matches(n.name, p) for n in nodes)]
    wished = [w for n in nodes for w in wishes(n) if not _is_elsewhere(w, known_names)]
    for name in (algo, *pinned, *wished):
        own, _ = way_of(name)
        if own in known_names or own not in (AUTO, *_ELSEWHERE):
            check_name(name, backend)
        elif (elsewhere := backend_with(own)) is not None:
            check_name(name, elsewhere)
    made: dict[Problem, Offers] = {}
    choosers = {}
    for node in nodes:
        problem = problem_of(graph, node)
        if problem not in made:
            made[problem] = offers_of(problem, target, policy, known)
        choosers[node.name] = Chooser(node, made[problem], algo, pins, policy, bool(known), target)
    options = {
        name: [_option(chooser, offer, backend, target) for offer in chooser.offers]
        for name, chooser in choosers.items()
    }
    agreed = agree(graph, options, lambda v: backend.copy_seconds(v, target), target)
    choices = {
        name: replace(
            remarked(chooser.made.problem, chooser.choice(agreed[name]), target),
            otherwise=chooser.otherwise(agreed[name], target),
        )
        for name, chooser in choosers.items()
    }
    free = [name for name, chooser in choosers.items() if not chooser.pinned and choices[name].algorithm not in policy.prefer]  # fmt: skip
    alone = {
        name: Alone(
            choosers[name].made.problem,
            choosers[name].measured(agreed[name]),
            by_rows=choices[name].knobs.get("chunks", 1) > 1,
        )
        for name in free
    }
    chains = chains_of(graph, alone, target, policy, known)
    for chain in chains:
        for name in chain.layers:
            own = choices[name]
            reason = f"{chain.reason}; alone: {own.algorithm}, {own.reason}"
            choices[name] = replace(own, reason=reason)
    taken = {name for chain in chains for name in chain.layers}
    every = {name: c.made.problem for name, c in choosers.items() if name not in taken}
    behind = pooled_layers(graph, every, choices, target, backend, policy, known)
    choices |= {name: layer.choice for name, layer in behind.items()}
    pooled = [layer.chain for layer in behind.values() if layer.chain is not None]
    taken = {name for chain in pooled for name in chain.layers}
    every = {name: problem for name, problem in every.items() if name not in taken}
    gated = gated_layers(graph, every, choices, backend, policy)
    for chain in gated:
        own = choices[chain.layers[-1]]
        choices[chain.layers[-1]] = replace(own, reason=f"{own.reason}; {chain.reason}")
    # On CPUs everything lies in the blocks that gradients read.
    posed = {name: chooser.made.problem for name, chooser in choosers.items()}
    at_hand = blocks_at_hand(graph, posed, choices, target) if gradients and target.device else {}
    return Plan(
        choices,
        (*chains, *pooled, *gated),
        {n.name: _gradient(graph, n, target, algo, pins, policy, known, at_hand) for n in gradients},
        {n.name: choose_op(graph, n, target, _asked(graph, n, algo, pins), policy) for n in operations},
    )  # fmt: skip


def _is_elsewhere(wish: str, here: Sequence[str]) -> bool:
    """Whether a model's author asks for what is another target's."""
    name, _ = way_of(wish)
    return name not in here and (name in _ELSEWHERE or is_known_somewhere(name))


def _asked(graph: Graph, node: Node, algo: str, pins: Mapping[str, str]) -> Asked:
    """Return what pins say about an op: those that match it and no convolution must be obeyed."""
    names = [n.name for n in graph.nodes if is_convolution(n)]
    wishes = {} if algo == AUTO else {way_of(algo)[0]: f"--algo {algo}"}
    for pattern, algorithm in pins.items():
        if matches(node.name, pattern) and algorithm != AUTO:
            by = f"--algo-for {pattern}"
            if not any(matches(name, pattern) for name in names):
                return Asked((algorithm, by))
            wishes.setdefault(way_of(algorithm)[0], by)
    return Asked(wishes=wishes)


def _gradient(
    graph: Graph,
    node: Node,
    target: Target,
    algo: str,
    pins: Mapping[str, str],
    policy: Policy,
    records: Records,
    at_hand: Mapping[str, frozenset[int]],
) -> Choice:
    # A pattern that matches convolutions, too, is about those.
    names = [n.name for n in graph.nodes if is_convolution(n)]
    own = (p for p in pins if matches(node.name, p) and not any(matches(n, p) for n in names))
    pattern = next(own, None)
    pinned, by = (pins[pattern], f"--algo-for {pattern}") if pattern is not None else ("", "")
    problem, a = weight_gradient_problem(graph, node), node.attributes
    assert isinstance(a, ConvWeightGradAttributes)
    return choose_weight_gradient(
        problem.spec,
        target,
        name=node.name,
        pinned=pinned,
        by=by,
        accumulate=problem.accumulate,
        wishes=named_algorithms(a.algorithm),
        asked=asked_for(node.name, algo, pins, policy),
        policy=policy,
        records=records,
        blocks=(at_hand.get(node.inputs[0], frozenset()), at_hand.get(node.inputs[1], frozenset())),
    )


def _option(chooser: Chooser, offer: Offer, backend: Backend, target: Target) -> Option:
    algorithm = backend.algorithm(offer.algorithm)
    problem = chooser.made.problem
    wants = algorithm.operands(solved(problem, algorithm, target), target, offer.knobs)
    reads, writes = (max(0, b - (b == 1)) for b in (wants.data.block, wants.result.block))
    # The copies around it stand between the layers here.
    return Option(offer.alone, reads, writes)
