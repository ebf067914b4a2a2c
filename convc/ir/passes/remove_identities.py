"""Remove ops that return their operand as it is, and join moves that follow each other."""

from __future__ import annotations

from typing import Final

from convc.ir.graph import Graph, Node
from convc.ir.ops import Attributes
from convc.ir.ops.elementwise import ClipAttributes
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes
from convc.ir.ops.shape import (
    PadAttributes,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)
from convc.ir.passes.rewrite import Rewriter
from convc.ir.passes.uniform import is_uniform

__all__ = ["remove_identities"]


def _moves_nothing(node: Node, data: Node) -> bool:
    """Whether an op with attributes alone gives back `data`."""
    a = node.attributes
    match a:
        case TransposeAttributes():
            return a.perm == tuple(range(len(a.perm)))
        case PadAttributes():
            return not any(a.pads)
        case SliceAttributes():
            return node.type == data.type
        case ClipAttributes():
            return (a.min, a.max) == (float("-inf"), float("inf"))
        case MaxPoolAttributes() | AveragePoolAttributes():
            return max(a.kernel) == 1 and not any(a.pads) and node.type == data.type
    return False


# op -> the constant that leaves the other operand as it is, and the positions where it may stand
_NEUTRAL: Final[dict[str, tuple[float, tuple[int, ...]]]] = {
    "add": (0.0, (0, 1)),
    "sub": (0.0, (1,)),
    "mul": (1.0, (0, 1)),
    "div": (1.0, (1,)),
    "pow": (1.0, (1,)),
    "maximum": (float("-inf"), (0, 1)),
    "minimum": (float("inf"), (0, 1)),
}

# ops of one operand that are identities whenever they keep its type
_IDENTITY_BY_TYPE: Final = frozenset({"reshape", "concat", "resize"})


def _same_value(node: Node, operands: list[Node]) -> Node | None:
    """Return the operand that a node gives back as it is, if any."""
    if node.op in _NEUTRAL:
        value, places = _NEUTRAL[node.op]
        for place in places:
            other = operands[1 - place]
            if other.type == node.type and is_uniform(operands[place], value):
                return other
        return None
    if len(operands) != 1:
        return None
    data = operands[0]
    if node.op in _IDENTITY_BY_TYPE and data.type == node.type:
        return data
    return data if _moves_nothing(node, data) else None


def _joined(node: Node, inner: Node) -> Attributes | None:
    """Return the attributes of the one move that does `inner`, then `node`; None if there is no such move."""
    match node.attributes, inner.attributes:
        case ReshapeAttributes(), ReshapeAttributes():
            return node.attributes
        case TransposeAttributes(perm=outer), TransposeAttributes(perm=perm):
            return TransposeAttributes(tuple(perm[p] for p in outer))
    return None


def remove_identities(graph: Graph) -> Graph:
    """Return the graph without ops that give back their operand, and with one reshape or transpose for two in a row.

    Identities: reshape, concat, resize to the operand's own type; transpose in order; slice of everything; pad by nothing; clip
    without bounds; pool of single points; + 0, - 0, * 1, / 1, pow 1 (which turn -0.0 into 0.0 at most); the maximum with
    minus infinity, the minimum with infinity.

    Rewrite:
        %t = transpose(%x) {perm = [0, 2, 1]};  %u = transpose(%t) {perm = [1, 2, 0]};  %y = relu(%u)
        -->
        %u = transpose(%x) {perm = [2, 1, 0]};  %y = relu(%u)

        %one = constant splat(1.0) : f32[];  %z = mul(%x, %one);  %y = relu(%z)
        -->
        %y = relu(%x)
    Unless:
        the op also broadcasts its operand to a larger shape.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        operands = r.operands(node)
        joined = _joined(node, operands[0]) if len(operands) == 1 else None
        if joined is not None:
            operands = r.operands(operands[0])
            node = Node.of(node.name, node.op, [(operands[0].name, operands[0].type)], joined)
        same = _same_value(node, operands)
        if same is not None:
            r.forward(node, same.name)
        elif joined is not None:
            r.replace(node)
        else:
            r.keep(node)
    return r.finish()
