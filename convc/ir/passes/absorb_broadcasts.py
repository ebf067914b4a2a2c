"""Let elementwise ops broadcast by themselves instead of reading a copy that was repeated for them."""

from __future__ import annotations

from convc.ir.graph import Graph, Node
from convc.ir.ops.elementwise import BINARY
from convc.ir.ops.shape import ResizeAttributes
from convc.ir.passes.rewrite import Rewriter

__all__ = ["absorb_broadcasts"]


def _only_repeats(node: Node, data: Node) -> bool:
    """Whether a resize repeats nothing but axes of one element, as broadcasting does."""
    a = node.attributes
    return isinstance(a, ResizeAttributes) and all(
        f == 1 or n == 1 for f, n in zip(a.factors, data.type.shape, strict=True)
    )


def absorb_broadcasts(graph: Graph) -> Graph:
    """Return the graph with binary ops reading what was repeated for them as it was before.

    The gradient of a mean or sum is such a repetition: in batch normalisation's backward pass each was an image's worth of memory.

    Rewrite:
        %m = reduce_mean(%x) {axes = [2, 3]}; %r = resize(%m) {factors = [1, 1, 4, 4]}; %y = sub(%x, %r)
        -->
        %m = reduce_mean(%x) {axes = [2, 3]}; %y = sub(%x, %m)
    Unless:
        the other operand does not have the result's shape by itself.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        operands = r.operands(node)
        if node.op not in BINARY:
            r.keep(node)
            continue
        read = list(operands)
        for place, operand in enumerate(operands):
            other = read[1 - place]
            if operand.op == "resize" and other.type == node.type:
                data = r.written[operand.inputs[0]]
                if _only_repeats(operand, data):
                    read[place] = data
        if read == operands:
            r.keep(node)
        else:
            r.add(node.name, node.op, read, node.attributes)
    return r.finish()
