"""Compute without the axes of one element that exporters put in front for a single op."""

from __future__ import annotations

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops import OPS
from convc.ir.ops.elementwise import BINARY
from convc.ir.ops.shape import ReshapeAttributes
from convc.ir.passes.rewrite import Rewriter

__all__ = ["drop_unit_axes"]


def _inner(r: Rewriter, value: Node) -> Node | None:
    """Return what a value is with axes of one element in front, if it is that."""
    if value.op != "reshape":
        return None
    (data,) = r.operands(value)
    shape, own = value.type.shape, data.type.shape
    ones = len(shape) - len(own)
    return data if ones > 0 and shape == (1,) * ones + own else None


def _without(r: Rewriter, value: Node, rank: int) -> Node | None:
    """Return an operand without its axes in front of the last `rank`, which must be of one element."""
    shape = value.type.shape
    if len(shape) <= rank:
        return value
    ones, kept = shape[: len(shape) - rank], shape[len(shape) - rank :]
    if any(n != 1 for n in ones):
        return None
    if value.op == CONSTANT:
        return r.constant(f"{value.name}_inner", value.value.reshape(kept))
    return r.add(r.unique(f"{value.name}_inner"), "reshape", [value], ReshapeAttributes(kept))


def drop_unit_axes(graph: Graph) -> Graph:
    """Return the graph with ops on two operands between reshapes that add and remove axes of one element computed without them.

    The mask of shifted windows is added to attention's scores so; in between, neither joins the product in front of it. What follows
    element by element has no such axes either.

    Rewrite:
        %r = reshape(%x) {shape = [1, 2, 3, 4]};  %a = add(%r, %m);  %s = reshape(%a) {shape = [2, 3, 4]};  %y = relu(%s)
        -->
        %m_inner = reshape(%m) {shape = [1, 1, 4]};  %a = add(%x, %m_inner);  %y = relu(%a)
    Unless:
        the result has more elements than the value with the axes.
    """
    r = Rewriter(graph)
    wide: dict[
        str, Node
    ] = {}  # value that stands for one with axes of one element in front -> the value without
    for node in graph.nodes:
        operands = r.operands(node)
        data = wide.get(operands[0].name) if node.op == "reshape" else None
        if data is not None and data.type == node.type:
            r.forward(node, data.name)
            continue
        # Of one operand
        follows = node.op in OPS and OPS[node.op].elementwise and operands[0].name in wide
        if (node.op in BINARY or (follows and len(operands) == 1)) and (
            found := _rewritten(r, node, operands, wide)
        ) is not None:
            outer = r.unique(f"{node.name}_outer")
            wide[outer] = found
            r.add(outer, "reshape", [found], ReshapeAttributes(node.type.shape))
            r.forward(node, outer)
            continue
        r.keep(node)
    return r.finish()


def _rewritten(r: Rewriter, node: Node, operands: list[Node], wide: dict[str, Node]) -> Node | None:
    """Write an op without the axes of one element in front of one of its operands, if that is all it has more."""
    for value in operands:
        data = wide.get(value.name) or _inner(r, value)
        if data is None or value.type.shape != node.type.shape:
            continue
        others = [data if o is value else _without(r, o, data.type.rank) for o in operands]
        whole = [o for o in others if o is not None]
        if len(whole) == len(others):
            return r.add(node.name, node.op, whole, node.attributes)
    return None
