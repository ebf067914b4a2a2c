"""Recognise softmax where a model writes it out."""

from __future__ import annotations

from convc.ir.graph import Graph, Node
from convc.ir.ops.linear import AxisAttributes, ReduceAttributes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.rewrite import Rewriter

__all__ = ["fuse_softmax"]


def _reduced(r: Rewriter, node: Node, op: str) -> tuple[Node, int] | None:
    """Return the data and the axis of a reduction along one axis, which stays."""
    a = node.attributes
    if node.op != op or not isinstance(a, ReduceAttributes) or not a.keepdims or len(a.axes) != 1:
        return None
    return r.operands(node)[0], a.axes[0]


def _softmax(r: Rewriter, node: Node) -> tuple[Node, int] | None:
    """Return x and the axis of e / sum e, e = exp(x - max x)."""
    if node.op != "div":
        return None
    power, total = r.operands(node)
    summed = _reduced(r, total, "reduce_sum")
    if power.op != "exp" or summed is None or summed[0] is not power:
        return None
    (shifted,) = r.operands(power)
    if shifted.op != "sub":
        return None
    data, top = r.operands(shifted)
    # Who else reads the exponentials has them computed in any case.
    alone = len(r.graph.users[power.name]) == 2 and power.name not in r.graph.output_values
    axis = summed[1]
    return (data, axis) if alone and _reduced(r, top, "reduce_max") == (data, axis) else None


def fuse_softmax(graph: Graph) -> Graph:
    """Return the graph with softmax for the five ops that write it: on CPUs a kernel of rows, into which products write their scores.

    Rewrite:
        %m = reduce_max(%x) {axes = [2]};  %c = sub(%x, %m);  %e = exp(%c);  %s = reduce_sum(%e) {axes = [2]};  %y = div(%e, %s)
        -->
        %y = softmax(%x) {axis = 2}
    Unless:
        anything but the greatest element is subtracted, or nothing: then large elements overflow as written; somebody else reads the
        exponentials.
    """
    if not any(n.op == "exp" for n in graph.nodes):
        return graph
    r = Rewriter(graph)
    for node in graph.nodes:
        kept = r.keep(node)
        found = _softmax(r, kept)
        if found is None or found[0].type != kept.type:
            continue
        r.remove(node.name)
        r.add(node.name, "softmax", [found[0]], AxisAttributes(found[1]))
    return eliminate_dead_nodes(r.finish())
