"""Make one move of a shuffle of channels and the concatenations and slices around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from convc.ir.channel_moves import picks_of
from convc.ir.graph import Graph, Node
from convc.ir.ops.shape import PickChannelsAttributes, TransposeAttributes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.rewrite import Rewriter

__all__ = ["merge_channel_moves"]

# Each channel of a value: which value it is a channel of, and which one.
_Source: TypeAlias = list[tuple[str, int]]

# Kernels read all operands of a move side by side.
_MOST_OPERANDS: Final = 4


def merge_channel_moves(graph: Graph) -> Graph:
    """Return the graph with shuffles of channels as moves, which read what concatenations before them read, and slices behind them.

    ShuffleNet shuffles by a reshape, a transpose and a reshape, V2 between a concatenation and two slices: five copies of all data.

    Rewrite:
        %c = concat(%a, %b) {axis = 1};  %g = reshape(%c) {shape = [1, 2, 2, 3, 3]};  %t = transpose(%g) {perm = [0, 2, 1, 3, 4]}
        %s = reshape(%t) {shape = [1, 4, 3, 3]};  %y = slice(%s) {begins = [0, 0, 0, 0], ends = [1, 2, 3, 3], steps = [1, 1, 1, 1]}
        -->
        %y = pick_channels(%a, %b) {operands = [0, 1], channels = [0, 0]}
    Unless:
        no channels change their order: concatenations and slices alone may need no copy at all; a move has more than four operands.
    """
    if not any(n.op in ("transpose", "pick_channels") for n in graph.nodes):
        return graph
    r = Rewriter(graph)
    # What moves give, in terms of values that are none, and which of them change the order.
    known: dict[str, _Source] = {}
    shuffled: set[str] = set()
    for node in graph.nodes:
        moved = _moved(graph, node)
        if moved is None:
            r.keep(node)
            continue
        source = [known[v][c] if v in known else (v, c) for v, c in moved]
        shuffles = node.op not in ("concat", "slice")
        if len({v for v, _ in source}) > _MOST_OPERANDS:
            # From here on it is a value like any other; a shuffle is one move all the same.
            if shuffles:
                _pick(r, node, moved)
            else:
                r.keep(node)
            continue
        known[node.name] = source
        if not shuffles and not any(i in shuffled for i in node.inputs):
            r.keep(node)
            continue
        shuffled.add(node.name)
        _pick(r, node, source)
    return eliminate_dead_nodes(r.finish())


def _pick(r: Rewriter, node: Node, source: _Source) -> None:
    names = list(dict.fromkeys(value for value, _ in source))
    operands = tuple(names.index(value) for value, _ in source)
    attributes = PickChannelsAttributes(operands, tuple(channel for _, channel in source))
    if (tuple(names), attributes) == (node.inputs, node.attributes):
        r.keep(node)
        return
    r.add(node.name, "pick_channels", [r.written[r.resolve(name)] for name in names], attributes)


def _moved(graph: Graph, node: Node) -> _Source | None:
    """Return where each channel of a node's result comes from, if it moves whole channels and does nothing else."""
    operands = graph.operands(node)
    picks = picks_of(node, [o.type for o in operands])
    if picks is None:
        return _shuffled(graph, node)
    return [(node.inputs[operand], channel) for operand, channel in picks]


def _shuffled(graph: Graph, node: Node) -> _Source | None:
    """Return the channels of a reshape of a transpose of a reshape that exchanges two parts of the channel axis."""
    chain: Sequence[Node] = (node,)
    for op in ("reshape", "transpose", "reshape"):
        if chain[0].op != op:
            return None
        (before,) = graph.operands(chain[0])
        chain = (before, *chain)
    data, grouped, turned, _ = chain
    if not data.type.is_image or node.type != data.type:
        return None
    groups = grouped.type.shape[1:3]
    n, c, *spatial = data.type.shape
    perm = (0, 2, 1, *range(3, len(spatial) + 3))
    attributes = turned.attributes
    if not isinstance(attributes, TransposeAttributes) or attributes.perm != perm:
        return None
    if grouped.type.shape != (n, *groups, *spatial):
        return None
    few, many = groups
    return [(data.name, j * many + i) for i in range(many) for j in range(few)] if c else None
