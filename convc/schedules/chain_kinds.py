"""The kinds of chains that a plan may have, and what makes one that was pinned unfit for a graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from convc.ir.graph import Graph
from convc.schedules import bottleneck_model, chains, gated, pooled, pooled_model
from convc.schedules.algorithm import Problem
from convc.schedules.backend import Backend, backend_of
from convc.schedules.plan import Chain, Choice
from convc.schedules.pooled_choice import pool_behind
from convc.target import Target

__all__ = ["chain_names", "misfit"]


def chain_names(backend: Backend) -> tuple[str, ...]:
    """Return the names of the kinds that a backend has, as policies may exclude them.

    Example:
        >>> from convc.target import parse_target
        >>> chain_names(backend_of(parse_target("llvm", "x86-64-v3")))
        ('bottleneck', 'gated', 'pooled')
    """
    return tuple(_KINDS) if backend.chains else ()


def misfit(
    pinned: Sequence[Chain],
    graph: Graph,
    problems: Mapping[str, Problem],
    choices: Mapping[str, Choice],
    target: Target,
) -> str:
    """Return the first chain that cannot run, and why, "chain '…': X must be …; got …"; "" if all can.

    Args:
        pinned: the chains.
        graph: after all passes.
        problems: of its convolutions, by name.
        choices: what they run.
        target: the machine.
    """
    taken: set[str] = set()
    for chain in pinned:
        wrong = _wrong(_Pinned(chain, graph, problems, choices, target))
        twice = sorted(taken.intersection(chain.layers))
        if twice:
            wrong = f"a layer must be in one chain; got '{twice[0]}' in two"
        if wrong:
            return f"chain '{', '.join(chain.layers)}': {wrong}"
        taken.update(chain.layers)
    return ""


def _wrong(pinned: _Pinned) -> str:
    chain, known = pinned.chain, chain_names(backend_of(pinned.target))
    if chain.kind not in known:
        return f"kind must be {' or '.join(known) or 'none on this target'}; got '{chain.kind}'"
    absent = [name for name in chain.layers if name not in pinned.graph.by_name]
    if absent:
        return f"layers must be in the graph; got '{absent[0]}'"
    return _KINDS[chain.kind](pinned)


@dataclass(frozen=True, slots=True)
class _Pinned:
    chain: Chain
    graph: Graph
    problems: Mapping[str, Problem]
    choices: Mapping[str, Choice]
    target: Target

    @property
    def shown(self) -> str:
        return f"got {', '.join(self.chain.layers) or 'none'}"

    def knobs(self, *names: str) -> str:
        if set(self.chain.knobs) == set(names):
            return ""
        wanted, found = (", ".join(sorted(n)) or "none" for n in (names, self.chain.knobs))
        return f"knobs must be {wanted}; got {found}"


def _bottleneck(pinned: _Pinned) -> str:
    layers, graph, problems = pinned.chain.layers, pinned.graph, pinned.problems
    if len(layers) not in (2, 3) or not all(name in problems for name in layers):
        return f"layers must be two or three convolutions; {pinned.shown}"
    for before, after in itertools.pairwise(layers):
        alone = graph.users[before] == (graph[after],) and before not in graph.output_values
        if graph[after].inputs[0] != before or not alone:
            return f"'{before}' must be read by '{after}' alone; {pinned.shown}"
    grouped = [i for i, name in enumerate(layers) if problems[name].spec.group > 1]
    if len(grouped) != 1 or (len(layers) == 3 and grouped != [1]):
        return f"one layer must be depthwise, of three the second; {pinned.shown}"
    posed = chains.chain_problem([problems[name] for name in layers])
    refusal = bottleneck_model.supports(posed, pinned.target)
    if refusal is not None:
        return f"layers must be what one kernel computes; got: {refusal.reason}"
    return pinned.knobs(*bottleneck_model.knobs(posed, pinned.target))


def _gated(pinned: _Pinned) -> str:
    layers, graph = pinned.chain.layers, pinned.graph
    if (
        len(layers) != 2
        or layers[1] not in pinned.problems
        or not gated.joins(graph, graph[layers[0]], graph[layers[1]], pinned.problems[layers[1]])
    ):
        return f"layers must scale channels and convolve what alone is scaled; {pinned.shown}"
    algorithm = pinned.choices[layers[1]].algorithm
    if algorithm != gated.ALGORITHM:
        return f"the layer's algorithm must be {gated.ALGORITHM}; got {algorithm}"
    return pinned.knobs()


def _pooled(pinned: _Pinned) -> str:
    layers, graph = pinned.chain.layers, pinned.graph
    behind = None
    if len(layers) == 2 and layers[0] in pinned.problems:
        behind = pool_behind(graph, graph[layers[0]], pinned.problems[layers[0]])
    if behind is None or behind[0].name != layers[1]:
        return f"layers must be a convolution and the pool that alone reads it; {pinned.shown}"
    posed, choice = behind[1], pinned.choices[layers[0]]
    refusal = pooled_model.supports(posed, backend_of(pinned.target).algorithm(choice.algorithm))
    if refusal is not None:
        return f"layers must be what one kernel computes; got: {refusal.reason}"
    knobs = {**choice.knobs, **pinned.chain.knobs}
    return pinned.knobs("strip") or (
        ""
        if pooled_model.cut(posed, knobs)
        else f"strip must be rows that {choice.algorithm} computes; got {knobs['strip']}"
    )


_KINDS: Final[Mapping[str, Callable[[_Pinned], str]]] = {
    chains.NAME: _bottleneck,
    gated.NAME: _gated,
    pooled.NAME: _pooled,
}
