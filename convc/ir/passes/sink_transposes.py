"""Move "channels last" transposes behind what follows them, until they meet their inverse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from convc.ir.graph import CONSTANT, INPUT, Graph, Node
from convc.ir.ops import OPS
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.layer_norm import LayerNormAttributes
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.shape import PadAttributes, ReshapeAttributes, TransposeAttributes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.rewrite import Rewriter
from convc.ir.types import Shape

__all__ = ["sink_transposes"]

# By rank: planes and volumes. Sequences are left out: (0, 2, 1) is its own inverse, and what attention does to keys.
_LAST: Final = {4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
_FIRST: Final = {4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}


class _Sink:
    """The graph being written: values that are channels last only by a transpose are known with what they are a transpose of."""

    def __init__(self, graph: Graph) -> None:
        self.r = Rewriter(graph)
        self.first: dict[str, Node] = {}

    def channels_first(self, node: Node) -> Node | None:
        """Return the image that a value is the channels last form of."""
        return self.first.get(node.name)

    def operand_first(self, node: Node, rank: int) -> Node | None:
        """Return an operand of channels last values as one of channels first: a constant, or where that moves nothing; else None."""
        shape = (*[1] * (rank - node.type.rank), *node.type.shape)
        first = tuple(shape[axis] for axis in _FIRST[rank])
        if node.op == CONSTANT:
            value = node.value.reshape(shape).transpose(_FIRST[rank])
            return self.r.constant(f"{node.name}_first", value)
        if not _is_point(first):
            return None
        name = self.r.unique(f"{node.name}_first")
        return self.r.add(name, "reshape", [node], ReshapeAttributes(first))

    def last_of(self, name: str, image: Node) -> Node:
        """Write the channels last form of an image."""
        perm = _LAST[image.type.rank]
        if _is_point(image.type.shape):
            shape = ReshapeAttributes(tuple(image.type.shape[axis] for axis in perm))
            last = self.r.add(self.r.unique(name), "reshape", [image], shape)
        else:
            last = self.r.add(self.r.unique(name), "transpose", [image], TransposeAttributes(perm))
        self.first[last.name] = image
        return last

    def transposed(self, node: Node, image: Node) -> None:
        """Let `image` stand under the node's name, and its users read its channels last form."""
        self.r.forward(node, self.last_of(f"{node.name}_last", image).name)

    def input_first(self, node: Node) -> None:
        """Let the users of an input read the channels last form of its transpose."""
        image = self.r.add(self.r.unique(f"{node.name}_first"), "transpose", [self.r.keep(node)], TransposeAttributes(_FIRST[node.type.rank]))  # fmt: skip
        self.r.forward(node, self.last_of(f"{node.name}_last", image).name)


def _is_point(shape: Shape) -> bool:
    """Whether an image, channels first, is the same in memory with channels last: it has one point, or one channel."""
    return shape[1] == 1 or math.prod(shape[2:]) == 1


def _elementwise(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    rank = node.type.rank
    alike = [s.channels_first(o) if o.type.rank == rank else None for o in operands]
    if rank not in _LAST or not any(alike):
        return False
    images = [image or s.operand_first(o, rank) for image, o in zip(alike, operands, strict=True)]
    whole = [i for i in images if i is not None]
    if len(whole) < len(images):
        return False
    s.transposed(node, s.r.add(node.name, node.op, whole, node.attributes))
    return True


def _layer_norm(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    a: Any = node.attributes
    data, *rows = operands
    image = s.channels_first(data)
    rank = data.type.rank
    if image is None or a.axis != rank - 1:
        return False
    columns = [c for row in rows if (c := s.operand_first(row, rank)) is not None]
    assert len(columns) == len(rows), "rows of a layer norm vary along channels alone"
    normed = s.r.add(node.name, "layer_norm", [image, *columns], LayerNormAttributes(1, a.epsilon))
    s.transposed(node, normed)
    return True


def _matmul(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    data, weight = operands
    image = s.channels_first(data)
    # Convolutions of integers are another op.
    if image is None or weight.op != CONSTANT or weight.type.rank != 2 or not data.type.is_float:
        return False
    filters = np.ascontiguousarray(weight.value.T)
    filters = filters.reshape(*filters.shape, *(1,) * (data.type.rank - 2))
    taps = s.r.constant(f"{weight.name}_first", filters)
    s.transposed(node, s.r.add(node.name, "conv", [image, taps], ConvAttributes()))
    return True


def _reduce(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    a: Any = node.attributes
    image = s.channels_first(operands[0])
    if image is None:
        return False
    rank = image.type.rank
    axes = tuple(sorted(_LAST[rank][axis] for axis in a.axes))
    if not (a.keepdims or axes == tuple(range(2, rank))):
        return False
    reduced = s.r.add(node.name, node.op, [image], ReduceAttributes(axes, a.keepdims))
    if a.keepdims:
        s.transposed(node, reduced)
    return True


def _along_axis(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    a: Any = node.attributes
    images = [i for o in operands if (i := s.channels_first(o)) is not None]
    if len(images) < len(operands):
        return False
    axis = _LAST[node.type.rank][a.axis]
    s.transposed(node, s.r.add(node.name, node.op, images, replace(a, axis=axis)))
    return True


def _by_axes(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    a: Any = node.attributes
    image = s.channels_first(operands[0])
    if image is None:
        return False
    order = _FIRST[image.type.rank]

    def turned(values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(values[axis] for axis in order)

    if isinstance(a, PadAttributes):
        begins, ends = a.pads[: len(order)], a.pads[len(order) :]
        a = replace(a, pads=turned(begins) + turned(ends))
    else:
        a = replace(a, begins=turned(a.begins), ends=turned(a.ends), steps=turned(a.steps))
    s.transposed(node, s.r.add(node.name, node.op, [image], a))
    return True


def _transpose(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    (data,) = operands
    a: Any = node.attributes
    image, rank = s.channels_first(data), data.type.rank
    if image is not None and a.perm == _FIRST[rank]:
        s.r.forward(node, image.name)
        return True
    if a.perm == _LAST.get(rank):
        s.first[s.r.keep(node).name] = data
        return True
    return False


def _reshape(s: _Sink, node: Node, operands: Sequence[Node]) -> bool:
    """Read what makes one point of a vector, or of a point with channels first, as a transpose: earlier passes write it so."""
    (data,) = operands
    image, shape = s.channels_first(data), node.type.shape
    if image is not None and shape == image.type.shape and _is_point(shape):
        s.r.forward(node, image.name)
        return True
    if len(shape) not in _LAST or math.prod(shape[1:-1]) != 1 or image is not None:
        return False
    first = tuple(shape[axis] for axis in _FIRST[len(shape)])
    if data.type.shape != first:
        data = s.r.add(s.r.unique(f"{node.name}_first"), "reshape", [data], ReshapeAttributes(first))  # fmt: skip
    s.first[s.r.keep(node).name] = data
    return True


_Rule = Callable[[_Sink, Node, Sequence[Node]], bool]
_RULES: Final[dict[str, _Rule]] = {
    **{name: _elementwise for name, op in OPS.items() if op.elementwise},
    **{name: _reduce for name in OPS if name.startswith("reduce_")},
    **dict.fromkeys(("concat", "softmax", "log_softmax"), _along_axis),
    **dict.fromkeys(("pad", "slice"), _by_axes),
    "layer_norm": _layer_norm,
    "matmul": _matmul,
    "reshape": _reshape,
    "transpose": _transpose,
}


def _moved(graph: Graph) -> int:
    """Return how many elements transposes move."""
    return sum(math.prod(n.type.shape) for n in graph.nodes if n.op == "transpose")


def _sunk(graph: Graph, *, of_inputs: bool) -> Graph:
    """Return the graph with all transposes moved; with `of_inputs`, as if its inputs were transposes of images."""
    s = _Sink(graph)
    for node in graph.nodes:
        if of_inputs and node.op == INPUT and node.type.rank in _LAST:
            s.input_first(node)
            continue
        rule = _RULES.get(node.op)
        if rule is None or not rule(s, node, s.r.operands(node)):
            s.r.keep(node)
    return eliminate_dead_nodes(s.r.finish())


def sink_transposes(graph: Graph) -> Graph:
    """Return the graph with transposes to channels last behind what can be computed with channels first; pairs cancel.

    Networks trained with channels last are exported with a transpose before and behind whatever is not a convolution, or, by
    TensorFlow's exporters, whatever is one. Elementwise ops, pads, slices, concatenations, layer norms, softmax and reductions take place
    in the other order; a product with a constant matrix becomes a 1 x 1 convolution. Inputs are transposed first where that moves less.

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
    best, least = graph, _moved(eliminate_dead_nodes(graph))
    for of_inputs in (False, True):
        sunk = _sunk(graph, of_inputs=of_inputs)
        if (moved := _moved(sunk)) < least:
            best, least = sunk, moved
    return best
