"""Agreement over the whole graph: a layer's gain must not be eaten by the copies that its choice of blocks makes necessary.

Every convolution has options (setting, seconds, block read, block written). Two that follow each other, with nothing but ops between
them that work in any block, pay for a copy where one writes another block than the other reads; a layer that adds another's result to
its own reads that in the block that it writes. The least total is found exactly, see `least_total`. Improving layer by layer from each
one's fastest left the first 20 layers of MobileNetV2 (float16, batch 32, sm_90, no records) in plain order, the pointwise ones four times
slower by estimate than in blocks: no layer gains alone what its row gains together, 407 for 507 us. Graphs too dense for that are improved
layer by layer until nothing improves (iterated conditional modes, Besag 1986), from several beginnings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from convc.ir.graph import CONSTANT, Graph
from convc.ir.types import TensorType
from convc.schedules.least_total import Pair, least_total

__all__ = ["Option", "agree"]

_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True)
class Option:
    """One setting of one layer: its seconds, and the blocks it reads and writes (0: plain, as NCHW1c is)."""

    seconds: float
    reads: int
    writes: int


@dataclass(frozen=True, slots=True)
class _Edge:
    """A value on its way, and what a copy of it costs; from None or to None is the caller, who gives and takes plain values."""

    producer: str | None
    consumer: str | None
    copy: float
    # Whether the consumer adds it to what it writes, instead of reading it.
    added: bool = False

    def seconds(self, before: Option | None, behind: Option | None) -> float:
        written = before.writes if before else 0
        wanted = 0 if behind is None else behind.writes if self.added else behind.reads
        return self.copy if written != wanted else 0.0


_Options: TypeAlias = Mapping[str, Sequence[Option]]


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


def _edges(
    graph: Graph, options: _Options, copy_seconds: Callable[[TensorType], float]
) -> Iterator[_Edge]:
    for name in options:
        data, _, *others = graph[name].inputs
        before, outside = _producers(graph, data, options)
        copy = copy_seconds(graph[data].type)
        yield from (_Edge(producer, name, copy) for producer in sorted(before))
        if outside and not before:
            yield _Edge(None, name, copy)
        for added in (i for i in others if graph[i].type.rank >= 3 and graph[i].op != CONSTANT):
            before, _ = _producers(graph, added, options)
            copy = copy_seconds(graph[added].type)
            yield from (_Edge(p, name, copy, added=True) for p in sorted(before - {name}))
    for result in sorted(graph.output_values):
        if graph[result].type.rank >= 3:
            before, _ = _producers(graph, result, options)
            copy = copy_seconds(graph[result].type)
            yield from (_Edge(producer, None, copy) for producer in sorted(before))


def agree(
    graph: Graph, options: _Options, copy_seconds: Callable[[TensorType], float]
) -> dict[str, int]:
    """Return the index of the option that each layer takes, of equal totals that of the fastest layers alone.

    Args:
        graph: after all passes.
        options: of every layer, at least one each.
        copy_seconds: of a value, from one block to another.
    """
    edges = list(_edges(graph, options, copy_seconds))
    # Of a layer's options with the same blocks the fastest is taken in any case, and the fastest of all comes first.
    worth: dict[str, list[int]] = {}
    for name, rows in options.items():
        first: dict[tuple[int, int], int] = {}
        for index in sorted(range(len(rows)), key=lambda i, rows=rows: (rows[i].seconds, i)):
            first.setdefault((rows[index].reads, rows[index].writes), index)
        worth[name] = list(first.values())
    shown = {name: [options[name][i] for i in indices] for name, indices in worth.items()}
    taken = _exactly(shown, edges) or _improved(shown, edges)
    return {name: worth[name][index] for name, index in taken.items()}


def _exactly(options: _Options, edges: Sequence[_Edge]) -> dict[str, int] | None:
    costs = {name: np.array([row.seconds for row in rows]) for name, rows in options.items()}
    pairs: list[Pair] = []
    for edge in edges:
        before, behind = edge.producer, edge.consumer
        if before is not None and behind is not None and before != behind:
            table = [[edge.seconds(a, b) for b in options[behind]] for a in options[before]]
            pairs.append((before, behind, np.array(table)))
        elif before is not None:
            costs[before] = costs[before] + [edge.seconds(a, a if behind else None) for a in options[before]]  # fmt: skip
        elif behind is not None:
            costs[behind] = costs[behind] + [edge.seconds(None, b) for b in options[behind]]
    return least_total(costs, pairs)


def _improved(options: _Options, edges: Sequence[_Edge]) -> dict[str, int]:
    """Return what improving layer by layer comes to, the best of: from each layer's fastest, and from all that write one block."""
    touching: dict[str, list[_Edge]] = {name: [] for name in options}
    for edge in edges:
        for end in {edge.producer, edge.consumer} - {None}:
            touching[end].append(edge)  # type: ignore[index]

    def option(chosen: Mapping[str, int], name: str | None) -> Option | None:
        return None if name is None else options[name][chosen[name]]

    def copies(chosen: Mapping[str, int], among: Sequence[_Edge]) -> float:
        return sum(e.seconds(option(chosen, e.producer), option(chosen, e.consumer)) for e in among)

    def cost(chosen: dict[str, int], name: str, index: int) -> float:
        changed = {**chosen, name: index} if chosen[name] != index else chosen
        return options[name][index].seconds + copies(changed, touching[name])

    def total(chosen: Mapping[str, int]) -> float:
        return sum(options[n][i].seconds for n, i in chosen.items()) + copies(chosen, edges)

    def improved(chosen: dict[str, int]) -> dict[str, int]:
        for _ in range(_ROUNDS):
            before = dict(chosen)
            for name, rows in options.items():
                chosen[name] = min(range(len(rows)), key=lambda i, n=name: (cost(chosen, n, i), i != chosen[n], i))  # fmt: skip
            if chosen == before:
                break
        return chosen

    blocks = dict.fromkeys(row.writes for rows in options.values() for row in rows)
    beginnings = [dict.fromkeys(options, 0)]
    for block in blocks:
        writing = {name: (i for i, row in enumerate(rows) if row.writes == block) for name, rows in options.items()}  # fmt: skip
        beginnings.append({name: next(rows, 0) for name, rows in writing.items()})
    return min((improved(chosen) for chosen in beginnings), key=total)
