"""Remove what no output needs."""

from __future__ import annotations

from convc.ir.graph import INPUT, Graph

__all__ = ["eliminate_dead_nodes"]


def eliminate_dead_nodes(graph: Graph) -> Graph:
    """Return the graph without nodes that no output depends on; its inputs stay, they are its signature.

    Rewrite:
        %a = relu(%x);  %b = abs(%x);  %y = neg(%a)
        -->
        %a = relu(%x);  %y = neg(%a)
    """
    alive = set(graph.output_values)
    for node in reversed(graph.nodes):
        if node.name in alive:
            alive.update(node.inputs)
    kept = [n for n in graph.nodes if n.op == INPUT or n.name in alive]
    return graph if len(kept) == len(graph.nodes) else graph.with_nodes(kept)
