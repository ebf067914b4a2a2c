"""A network's name for tuning records: the same for the same layers in the same order, whatever their weights and names are."""

from __future__ import annotations

import hashlib

from convc.ir.graph import CONSTANT, Graph
from convc.ir.text.printer import print_attributes

__all__ = ["network_key"]


def network_key(graph: Graph) -> str:
    """Return the key of a graph after all passes.

    Example:
        >>> from convc.ir.text import parse
        >>> text = "graph @g {{ %x = input : f32[1,4]  %{0} = relu(%x) : f32[1,4]  return %{0} }}"
        >>> network_key(parse(text.format("y"))) == network_key(parse(text.format("z")))
        True
    """
    at = {node.name: index for index, node in enumerate(graph.nodes)}
    rows = [
        f"{n.op} {n.type} {[at[i] for i in n.inputs]}"
        + ("" if n.op == CONSTANT else print_attributes(n.attributes))
        for n in graph.nodes
    ]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]
