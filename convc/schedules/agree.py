"""Agreement over the whole graph: a layer's gain must not be eaten by the copies that its choice of blocks makes necessary.

Every convolution has options (setting, seconds, block read, block written). Two that follow each other, with nothing but ops between
them that work in any block, pay for a copy where one writes another block than the other reads. The options are improved layer by
layer, the others held, until nothing improves (iterated conditional modes, Besag 1986): cheap, never worse than the layers' own best,
and exact on chains in all but contrived cases; NeoCPU's dynamic programme (Liu et al., ATC'19) needs chains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from convc.ir.graph import CONSTANT, Graph
from convc.ir.types import TensorType

__all__ = ["Option", "agree"]

_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True)
class Option:
    """One setting of one layer: its seconds, and the blocks it reads and writes (0: plain, as NCHW1c is)."""

    seconds: float
    reads: int
    writes: int


def _producers(graph: Graph, name: str, layers: Mapping[str, object]) -> tuple[set[str], bool]:
    """Return the layers whose results reach a value through other ops, and whether a graph input does."""
    found: set[str] = set()
    outside, seen, stack = False, {name}, [name]
    while stack:
        node = graph[stack.pop()]
        if node.name in layers:
            found.add(node.name)
        elif not node.inputs:
            outside |= node.op != CONSTANT
        elif node.type.rank >= 3:
            stack += [i for i in node.inputs if i not in seen and graph[i].type.rank >= 3]
            seen.update(node.inputs)
        else:
            outside = True
    return found, outside


def agree(
    graph: Graph,
    options: Mapping[str, Sequence[Option]],
    copy_seconds: Callable[[TensorType], float],
) -> dict[str, int]:
    """Return the index of the option that each layer takes.

    Args:
        graph: after all passes.
        options: of every layer, at least one each; the fastest alone is the starting point.
        copy_seconds: of a value, from one block to another.
    """
    chosen = {
        name: min(range(len(rows)), key=lambda i, rows=rows: (rows[i].seconds, i))
        for name, rows in options.items()
    }
    # From whom, to whom, and what a copy costs; nobody is the caller, who gives and takes plain values.
    edges: list[tuple[str | None, str | None, float]] = []
    for name in options:
        data = graph[name].inputs[0]
        before, outside = _producers(graph, data, options)
        copy = copy_seconds(graph[data].type)
        edges += [(producer, name, copy) for producer in sorted(before)]
        edges += [(None, name, copy)] if outside and not before else []
    for result in sorted(graph.output_values):
        if graph[result].type.rank >= 3:
            before, _ = _producers(graph, result, options)
            edges += [(name, None, copy_seconds(graph[result].type)) for name in sorted(before)]
    touching: dict[str, list[tuple[str | None, str | None, float]]] = {name: [] for name in options}
    for edge in edges:
        for end in edge[:2]:
            if end is not None:
                touching[end].append(edge)

    def cost(name: str, index: int) -> float:
        total = options[name][index].seconds
        for producer, consumer, copy in touching[name]:
            written = read = 0
            if producer is not None:
                at = index if producer == name else chosen[producer]
                written = options[producer][at].writes
            if consumer is not None:
                at = index if consumer == name else chosen[consumer]
                read = options[consumer][at].reads
            total += copy if written != read else 0.0
        return total

    for _ in range(_ROUNDS):
        changed = False
        for name, rows in options.items():
            best = min(range(len(rows)), key=lambda i, name=name: (cost(name, i), i))
            if cost(name, best) < cost(name, chosen[name]):
                chosen[name], changed = best, True
        if not changed:
            break
    return chosen
