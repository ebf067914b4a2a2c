"""Move "channels last" transposes behind what follows them, until they meet their inverse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops import OPS
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.layer_norm import LayerNormAttributes
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.shape import ReshapeAttributes, TransposeAttributes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.rewrite import Rewriter

__all__ = ["sink_transposes"]

_LAST: Final = (0, 2, 3, 1)
_FIRST: Final = (0, 3, 1, 2)


class _Sink:
    """The graph being written: values that are channels last only by a transpose are known with what they are a transpose of."""

    def __init__(self, graph: Graph) -> None:
        self.r = Rewriter(graph)
        self.first: dict[str, Node] = {}

    def channels_first(self, node: Node) -> Node | None:
        """Return the image that a value is the channels last form of."""
        return self.first.get(node.name)

    def constant_first(self, node: Node) -> Node | None:
        """Return a constant operand of channels last values as one of channels first; None if it is no constant."""
        if node.op != CONSTANT:
            return None
        shape = (*[1] * (4 - node.type.rank), *node.type.shape)
        return self.r.constant(f"{node.name}_first", node.value.reshape(shape).transpose(_FIRST))

    def transposed(self, node: Node, image: Node) -> None:
        """Let `image` stand under the node's name, and its users read its channels last form."""
        last = self.r.add(self.r.unique(f"{node.name}_last"), "transpose", [image], TransposeAttributes(_LAST))  # fmt: skip
        self.first[last.name] = image
        self.r.forward(node, last.name)


def _elementwise(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    if node.type.rank != 4 or not any(map(s.channels_first, operands)):
        return False
    images = [s.channels_first(o) or s.constant_first(o) for o in operands]
    whole = [i for i in images if i is not None]
    if len(whole) < len(images):
        return False
    s.transposed(node, s.r.add(node.name, node.op, whole, node.attributes))
    return True


def _layer_norm(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    a: Any = node.attributes
    data, *rows = operands
    image = s.channels_first(data)
    if image is None or a.axis != 3:
        return False
    column = ReshapeAttributes((1, data.type.shape[3], 1, 1))
    columns = [
        s.constant_first(row) or s.r.add(s.r.unique(f"{row.name}_first"), "reshape", [row], column)
        for row in rows
    ]
    normed = s.r.add(node.name, "layer_norm", [image, *columns], LayerNormAttributes(1, a.epsilon))
    s.transposed(node, normed)
    return True


def _matmul(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    data, weight = operands
    image = s.channels_first(data)
    # Convolutions of integers are another op.
    if image is None or weight.op != CONSTANT or weight.type.rank != 2 or not data.type.is_float:
        return False
    filters = np.ascontiguousarray(weight.value.T)[:, :, None, None]
    taps = s.r.constant(f"{weight.name}_first", filters)
    s.transposed(node, s.r.add(node.name, "conv", [image, taps], ConvAttributes()))
    return True


def _reduce(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    a: Any = node.attributes
    image = s.channels_first(operands[0])
    if image is None:
        return False
    axes = tuple(sorted(_LAST[axis] for axis in a.axes))
    if not (a.keepdims or axes == (2, 3)):
        return False
    reduced = s.r.add(node.name, node.op, [image], ReduceAttributes(axes, a.keepdims))
    if a.keepdims:
        s.transposed(node, reduced)
    return True


def _transpose(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    (data,) = operands
    a: Any = node.attributes
    image = s.channels_first(data)
    if image is not None and a.perm == _FIRST:
        s.r.forward(node, image.name)
        return True
    if data.type.rank == 4 and a.perm == _LAST:
        s.first[s.r.keep(node).name] = data
        return True
    return False


_Rule = Callable[[_Sink, Node, Sequence[Node]], bool]
_RULES: Final[dict[str, _Rule]] = {
    **{name: _elementwise for name, op in OPS.items() if op.elementwise},
    **{name: _reduce for name in OPS if name.startswith("reduce_")},
    "layer_norm": _layer_norm,
    "matmul": _matmul,
    "transpose": _transpose,
}


def _moved(graph: Graph) -> int:
    """Return how many elements transposes move."""
    return sum(math.prod(n.type.shape) for n in graph.nodes if n.op == "transpose")


def sink_transposes(graph: Graph) -> Graph:
    """Return the graph with transposes to channels last behind elementwise ops, layer norms, products and reductions; pairs cancel.

    Networks trained with channels last are exported with a transpose before and behind whatever is not a convolution. A product with
    a constant matrix becomes a 1 x 1 convolution.

    Rewrite:
        %t = transpose(%x) {perm = [0, 2, 3, 1]};  %w = constant dense([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) : f32[3,2]
        %m = matmul(%t, %w);  %r = relu(%m);  %y = transpose(%r) {perm = [0, 3, 1, 2]}
        -->
        %w_first = constant dense([1.0, 3.0, 5.0, 2.0, 4.0, 6.0]) : f32[2,3,1,1];  %m = conv(%x, %w_first);  %r = relu(%m)
    Unless:
        the transposes of the whole graph would move no fewer elements; another operand is neither constant nor a transpose alike.
    """
    if not any(n.op == "transpose" for n in graph.nodes):
        return graph
    s = _Sink(graph)
    for node in graph.nodes:
        rule = _RULES.get(node.op)
        if rule is None or not rule(s, node, s.r.operands(node)):
            s.r.keep(node)
    sunk = eliminate_dead_nodes(s.r.finish())
    return sunk if _moved(sunk) < _moved(eliminate_dead_nodes(graph)) else graph
