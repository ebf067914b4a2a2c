"""Choose an algorithm for every convolution: (Graph, Target, pins) -> Plan, with the reason for and against each."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from convc.errors import UnsupportedConvError, unknown_name
from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, conv_spec
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.plan import Candidate, Choice, Plan
from convc.target import Target

__all__ = ["candidates", "is_convolution", "problem_of", "select"]

AUTO = "auto"

# What a model may ask for that is no algorithm of this target.
_ELSEWHERE = ("cudnn",)


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


def candidates(problem: Problem, target: Target) -> tuple[Candidate, ...]:
    """Return every algorithm's answer, in the table's order."""
    rows = []
    backend = backend_of(target)
    for algorithm in backend.algorithms:
        refusal = algorithm.supports(problem, target)
        if refusal is not None:
            rows.append(Candidate(algorithm.name, refusal.reason, {}, None))
            continue
        knobs = algorithm.knobs(problem, target)
        cycles = algorithm.cycles(problem, target, knobs)
        seconds = backend.seconds(cycles, target)
        rows.append(Candidate(algorithm.name, "estimate", knobs, seconds))
    return tuple(rows)


def _choose(node: Node, rows: tuple[Candidate, ...], wanted: str, pinned_by: str) -> Choice:
    usable = [row for row in rows if row.seconds is not None]
    if wanted != AUTO:
        row = next(row for row in rows if row.algorithm == wanted)
        if row.seconds is None:
            raise UnsupportedConvError(
                f"algorithm '{wanted}' cannot compute '{node.name}': {row.reason}. "
                f"These can: {', '.join(r.algorithm for r in usable)}."
            )
        return Choice(wanted, row.knobs, f"pinned by {pinned_by}", rows)
    best = min(usable, key=lambda row: row.seconds or 0.0)
    others = sorted((r.seconds, r.algorithm) for r in usable if r is not best and r.seconds)
    reason = "estimate" if others else "the only one that applies"
    if others and best.seconds:
        reason = f"estimated {others[0][0] / best.seconds:.2f} x faster than {others[0][1]}"
    return Choice(best.algorithm, best.knobs, reason, rows)


def _asked_for(node: Node, rows: tuple[Candidate, ...]) -> Choice:
    """Return the first algorithm that the node itself asks for and that takes it; else the fastest, saying why not as asked."""
    answers = {row.algorithm: row for row in rows}
    refusals = []
    for name in _wishes(node):
        row = answers.get(name)
        if row is not None and row.applies:
            reason = "; ".join(["asked for by the model", *refusals])
            return Choice(name, row.knobs, reason, rows)
        why = row.reason if row is not None else "this target has no such algorithm"
        refusals.append(f"{name} asked for, but {why}")
    choice = _choose(node, rows, AUTO, "")
    return Choice(
        choice.algorithm, choice.knobs, "; ".join([*refusals, choice.reason]), choice.candidates
    )


def _wishes(node: Node) -> list[str]:
    attributes = node.attributes
    assert isinstance(attributes, ConvAttributes | ConvTransposeAttributes)
    return [name.strip() for name in attributes.algorithm.split(",") if name.strip()]


def _matches(name: str, pattern: str) -> bool:
    # A name may hold brackets itself, which a pattern would read as a set of characters.
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def select(
    graph: Graph, target: Target, *, algo: str = AUTO, algo_for: Mapping[str, str] | None = None
) -> Plan:
    """Return the plan of every convolution of the graph.

    Args:
        graph: after all passes.
        target: the machine.
        algo: one algorithm for all layers that it applies to ("auto": what the node asks for, else the fastest by estimate).
        algo_for: node name pattern -> algorithm; must apply.

    Raises:
        UnknownNameError: for an algorithm nobody knows, or a pattern that matches no convolution.
        UnsupportedConvError: if a pinned algorithm does not take its layer; says why and which do.
    """
    pins = dict(algo_for or {})
    nodes = [n for n in graph.nodes if is_convolution(n)]
    for name in (algo, *pins.values(), *(w for n in nodes for w in _wishes(n))):
        if name not in (AUTO, *_ELSEWHERE):
            backend_of(target).algorithm(name)
    for pattern in pins:
        if not any(_matches(n.name, pattern) for n in nodes):
            raise unknown_name("convolution", pattern, [n.name for n in nodes])
    known: dict[Problem, tuple[Candidate, ...]] = {}
    choices = {}
    for node in nodes:
        problem = problem_of(graph, node)
        if problem not in known:
            known[problem] = candidates(problem, target)
        rows = known[problem]
        pattern = next((p for p in pins if _matches(node.name, p)), None)
        if pattern is not None:
            choices[node.name] = _choose(node, rows, pins[pattern], f"--algo-for {pattern}")
        elif algo != AUTO and any(r.algorithm == algo and r.applies for r in rows):
            choices[node.name] = _choose(node, rows, algo, f"--algo {algo}")
        elif _wishes(node):
            choices[node.name] = _asked_for(node, rows)
        else:
            choices[node.name] = _choose(node, rows, AUTO, "")
    return Plan(choices)
