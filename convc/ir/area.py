"""Open height and width: a graph of the largest area, made right for every smaller one.

    data of h x w inside H x W, zeros around:     conv(pad 1) of it would read zeros behind the h-th row only in the first layer; behind
                                                  that the rows beyond hold biases, activations, anything

So each value is followed with the rows and columns that are valid for each h and w, and where a window reaches beyond them, what lies
there is replaced by what the op's padding would be: zeros for convolutions, -inf for max pools, nothing for means, which divide by what is
valid. The masks are inputs of the graph; a runtime that knows h and w fills them in, and the places and weights of what is resampled.
Every kernel, algorithm and target stays as it is.

An op that would need a size at compile time is refused by name: a Reshape that joins height and width, a constant for each place.
"""

from __future__ import annotations

from collections.abc import Sequence

from convc.errors import ShapeError
from convc.ir.area_graph import AreaGraph, Extents
from convc.ir.area_rules import RULES
from convc.ir.area_walk import Walk
from convc.ir.graph import CONSTANT, INPUT, Graph, Node

__all__ = ["open_area"]


def open_area(graph: Graph, inputs: Sequence[str]) -> AreaGraph:
    """Return the graph made right for every area up to that of its inputs, axes 2 and 3 of those named.

    Raises:
        ShapeError: naming the first node that does not go with it.

    Example:
        >>> from convc.ir.text import parse
        >>> body = "%x = input : f32[1,1,8,8] %w = input : f32[1,1,3,3] %a = conv(%x, %w) {pads = [1, 1, 1, 1]} %b = relu(%a)"
        >>> opened = open_area(parse(f"graph @g {{ {body} return %b }}"), ["x"])
        >>> opened.values["b"].at(5, 7), len(opened.masks)
        ((5, 7), 0)
    """
    walk = Walk(graph, inputs)
    for node in walk.graph.nodes:
        if node.op == INPUT and node.name in walk.inputs:
            if node.type.rank != 4:
                raise ShapeError(f"input '{node.name}' must be N, C, H, W to have an open height and width; got {node.type}.")  # fmt: skip
            rows, cols = (tuple(range(1, n + 1)) for n in node.type.shape[2:])
            walk.extents[node.name] = Extents(rows, cols)
            walk.zero_beyond.add(node.name)
            walk.nodes[node.name] = node
        elif node.op in (INPUT, CONSTANT) or not any(
            i in walk.extents for i in (*node.inputs, _like(node))
        ):
            walk.nodes[node.name] = node
        else:
            _open(walk, node)
    taken = list(walk.extents.values())
    least = tuple(
        next((i + 1 for i in range(n) if all(t[i] > 0 for t in tables)), n + 1)
        for tables in ([e.rows for e in taken], [e.cols for e in taken])
        for n in (len(tables[0]),)
    )
    graph = walk.graph.with_nodes(walk.nodes.values())
    graph.verify()
    taps = {names: taps for (taps, *_), names in walk.taps.items()}
    return AreaGraph(graph, {n: e for e, n in walk.masks.items()}, taps, walk.extents, least)  # type: ignore[arg-type]


def _like(node: Node) -> str:
    """Return the value whose extents a node's follow, though it is no operand."""
    return getattr(node.attributes, "like", "")


def _open(walk: Walk, node: Node) -> None:
    rule = RULES.get(node.op)
    if rule is None:
        raise walk.refusal(node, "it is not known to")
    rule(walk, node)
