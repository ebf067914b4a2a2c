"""Keep the axes of an image's planes that a reduction takes away, and drop them behind it."""

from __future__ import annotations

from dataclasses import replace

from convc.ir.graph import Graph
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.shape import ReshapeAttributes
from convc.ir.passes.rewrite import Rewriter

__all__ = ["keep_reduced_axes"]


def keep_reduced_axes(graph: Graph) -> Graph:
    """Return the graph with reductions over planes of images whose results are images: these run on blocks of channels.

    PointNet's maximum over 1024 points of 1024 channels brought 4 MB out of blocks first, 0.9 of its 4.1 ms (one Zen 4 core).

    Rewrite:
        %y = reduce_max(%x) {axes = [2, 3], keepdims = false}
        -->
        %y_kept = reduce_max(%x) {axes = [2, 3]};  %y = reshape(%y_kept) {shape = [1, 3]}
    Unless:
        channels are reduced, too: then blocks are no better.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        a = node.attributes
        operands = r.operands(node)
        if (
            not isinstance(a, ReduceAttributes)
            or a.keepdims
            or not a.axes
            or not operands[0].type.is_image
            or min(a.axes) < 2
        ):
            r.keep(node)
            continue
        kept = r.add(r.unique(f"{node.name}_kept"), node.op, operands, replace(a, keepdims=True))
        r.add(node.name, "reshape", [kept], ReshapeAttributes(node.type.shape))
    return r.finish()
