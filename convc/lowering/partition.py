"""Partition: which nodes run as one kernel.

Rewrite:
    %a = mul(%x, %s);  %b = add(%a, %t);  %y = relu(%b)      (three nodes)
    -->
    [%a %b %y]                                               (one unit)
Also the nodes of a chain of the plan, as `schedules.chains`, `schedules.gated` and `schedules.pooled_choice` found them.
Unless:
    an inner value has another user, is a graph output, or has another shape; the code would explode (`epilogue.is_small`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from convc.ir.epilogue import is_small
from convc.ir.graph import Graph, Node
from convc.ir.ops import OPS
from convc.schedules.plan import Chain

__all__ = ["Unit", "partition"]


@dataclass(frozen=True, slots=True)
class Unit:
    """Nodes that run as one kernel, in order; the last one's value is the kernel's result."""

    nodes: tuple[Node, ...]

    @property
    def result(self) -> Node:
        return self.nodes[-1]

    @property
    def operands(self) -> tuple[str, ...]:
        """Values the kernel reads, each once, in order of first use."""
        inside = {n.name for n in self.nodes}
        return tuple(dict.fromkeys(i for n in self.nodes for i in n.inputs if i not in inside))


def partition(graph: Graph, chains: Iterable[Chain] = ()) -> tuple[Unit, ...]:
    """Return the graph's compute nodes as units, in an order in which every unit comes after its operands.

    Args:
        graph: after all passes.
        chains: layers that the plan wants in one unit.
    """
    chains = tuple(chains)
    before = {name: chain.layers[i] for chain in chains for i, name in enumerate(chain.layers[1:])}
    first = {chain.layers[0] for chain in chains}
    unit_of: dict[str, list[Node]] = {}
    for node in graph.compute_nodes:
        merged: list[Node] = unit_of.pop(before[node.name]) if node.name in before else []
        # What begins a chain is no longer free to take in what comes before it.
        if OPS[node.op].elementwise and node.name not in first:
            for operand in dict.fromkeys(node.inputs):
                if operand not in unit_of or not _joins(graph, graph[operand], node):
                    continue
                if is_small(_functions([*merged, *unit_of[operand], node])):
                    merged += unit_of.pop(operand)
        unit_of[node.name] = [*merged, node]
    order = {n.name: i for i, n in enumerate(graph.nodes)}
    return tuple(
        Unit(tuple(sorted(nodes, key=lambda n: order[n.name]))) for nodes in unit_of.values()
    )


def _functions(nodes: Iterable[Node]) -> list[str]:
    """Return the ops whose code may read an operand more than once."""
    return [n.op for n in nodes if len(set(n.inputs)) == 1]


def _joins(graph: Graph, inner: Node, user: Node) -> bool:
    return (
        OPS[inner.op].elementwise
        and inner.type.shape == user.type.shape
        and graph.users[inner.name] == (user,)
        and inner.name not in graph.output_values
    )
