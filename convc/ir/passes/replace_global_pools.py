"""Write an average pool over the whole map as what it is: a mean."""

from __future__ import annotations

from convc.ir.graph import Graph, Node
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import AveragePoolAttributes
from convc.ir.passes.rewrite import Rewriter

__all__ = ["replace_global_pools"]


def _covers_all(node: Node, data: Node) -> bool:
    a = node.attributes
    return (
        isinstance(a, AveragePoolAttributes)
        and a.kernel == data.type.shape[2:]
        and not any(a.pads)
        and max(a.dilations, default=1) == 1
    )


def replace_global_pools(graph: Graph) -> Graph:
    """Return the graph with `reduce_mean` for average pools whose window is the whole unpadded map.

    Rewrite:
        %y = average_pool(%x) {kernel = [4, 4]}
        -->
        %y = reduce_mean(%x) {axes = [2, 3]}
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        operands = r.operands(node)
        if node.op == "average_pool" and _covers_all(node, operands[0]):
            r.add(
                node.name,
                "reduce_mean",
                operands,
                ReduceAttributes(tuple(range(2, node.type.rank))),
            )
        else:
            r.keep(node)
    return r.finish()
