"""Resample tokens as they lie, channels last, instead of as an image."""

from __future__ import annotations

from dataclasses import replace

from convc.ir.graph import Graph, Node
from convc.ir.ops.resample import ResampleAttributes
from convc.ir.ops.shape import TransposeAttributes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.rewrite import Rewriter, read_once

__all__ = ["resample_tokens"]


def resample_tokens(graph: Graph) -> Graph:
    """Return the graph with images that are channels last before and behind a resampling resampled so.

    Behind attention an image is rows of tokens; a network that resamples it makes it an image for that and tokens again. Along rows
    of channels a tap is whole vectors, along the last axis of an image a gather, 2.4 ns an element (Zen 4).

    Rewrite:
        %i = transpose(%t) {perm = [0, 3, 1, 2]};  %r = resample(%i, %p, %w) {axis = 3}
        %y = transpose(%r) {perm = [0, 2, 3, 1]}
        -->
        %r = resample(%t, %p, %w) {axis = 2}
    Unless:
        what is resampled has another reader or is an output; height and width are open, whose resamplings know axes 2 and 3.
    """
    # The flattened image that `unflatten_transposes` left unread would be another reader.
    graph = eliminate_dead_nodes(graph)
    r = Rewriter(graph)
    for node in graph.nodes:
        found = _between(graph, node)
        if found is None:
            r.keep(node)
            continue
        first, resamplings = found
        (data,) = r.operands(first)
        for old in resamplings:
            written = r.written[old.name]
            _, *tables = r.operands(old)
            a = written.attributes
            assert isinstance(a, ResampleAttributes)
            r.remove(old.name)
            data = r.add(old.name, "resample", [data, *tables], replace(a, axis=a.axis - 1))
        r.forward(node, data.name)
    return r.finish()


def _between(graph: Graph, node: Node) -> tuple[Node, list[Node]] | None:
    """Return the transpose that made an image of tokens, and the resamplings between it and one that makes tokens of it."""
    a, rank = node.attributes, node.type.rank
    if not isinstance(a, TransposeAttributes) or rank < 3 or a.perm != (0, *range(2, rank), 1):
        return None
    resamplings: list[Node] = []
    (source,) = graph.operands(node)
    while isinstance(source.attributes, ResampleAttributes):
        b = source.attributes
        if b.axis < 2 or b.has_rule or not read_once(graph, source.name):
            return None
        resamplings.insert(0, source)
        source = graph.operands(source)[0]
    b = source.attributes
    first = isinstance(b, TransposeAttributes) and b.perm == (0, rank - 1, *range(1, rank - 1))
    return (source, resamplings) if first and resamplings else None
