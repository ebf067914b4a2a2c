"""Recognise layer normalisation of the last axis, which exporters up to opset 16 write as nine ops, and of an image's channels."""

from __future__ import annotations

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.layer_norm import LayerNormAttributes
from convc.ir.passes.channels import is_per_channel
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.normalised import Norm, absorbed, full, norm_of
from convc.ir.passes.rewrite import Rewriter
from convc.ir.passes.uniform import splat
from convc.ir.types import numpy_dtype

__all__ = ["fuse_layer_norm"]


def _is_row(operand: Node, result: Node) -> bool:
    """Whether an operand differs along the last axis and not along the one before."""
    *lead, last = operand.type.shape or (1,)
    return last == result.type.shape[-1] > 1 and lead[-1:] in ([], [1])


def _is_read_by_rows(graph: Graph, node: Node) -> bool:
    """Whether a product sums along a value's last axis, or a row scales it or is added to it."""
    for user in graph.users[node.name]:
        if user.op == "matmul" and user.inputs[0] == node.name:
            return True
        others = [graph[i] for i in user.inputs if i != node.name]
        if user.op in ("mul", "add") and any(_is_row(o, node) for o in others):
            return True
    return False


def _written(r: Rewriter, node: Node, norm: Norm) -> bool:
    """Write a normalisation as one op; return whether it is one of rows or of channels."""
    data, last = norm.data, norm.data.type.rank - 1
    of_channels = data.type.is_image and norm.axes == (1,)
    if not of_channels and (norm.axes != (last,) or last < 1):
        return False
    if node.type != data.type or not data.type.is_float or not data.type.size:
        return False
    # Of three axes, the instances of a signal look the same.
    if last == 2 and not of_channels and not _is_read_by_rows(r.graph, node):
        return False
    axis = norm.axes[0]
    row = tuple(n if i == axis else 1 for i, n in enumerate(data.type.shape))
    one = np.ones((), numpy_dtype(data.type.dtype))
    scale = splat(one, row)
    if norm.scale is not None:
        if norm.scale.op != CONSTANT or not is_per_channel(norm.scale.type.shape, data.type, axis):
            return False
        scale = np.broadcast_to(full(norm.scale, last + 1), row)
    operands = [data, r.constant(f"{node.name}_scale", scale), r.constant(f"{node.name}_bias", splat(one * 0, row))]  # fmt: skip
    r.remove(node.name)
    r.add(node.name, "layer_norm", operands, LayerNormAttributes(axis, norm.epsilon))
    return True


def fuse_layer_norm(graph: Graph) -> Graph:
    """Return the graph with layer_norm for the ops that normalise rows or channels, and for what scales and shifts them behind.

    Of channels it runs on blocks of them; as ops a NAFNet's fourteen brought the image into plain order and back, 7 of 26 ms.

    Rewrite:
        %m = reduce_mean(%x) {axes = [3]};  %c = sub(%x, %m);  %s = mul(%c, %c);  %v = reduce_mean(%s) {axes = [3]}
        %e = constant splat(0.5) : f32[];  %a = add(%v, %e);  %r = sqrt(%a);  %y = div(%c, %r)
        -->
        %y_scale = constant splat(1.0) : f32[1,1,1,5];  %y_bias = constant splat(0.0) : f32[1,1,1,5]
        %y = layer_norm(%x, %y_scale, %y_bias) {axis = 3, epsilon = 0.5}
    Unless:
        the axis is neither the last nor that of channels; or, of three axes and along the last, no row scales or shifts it and no
        product reads it, as an instance of a signal.
    """
    if not any(n.op == "sqrt" for n in graph.nodes):
        return graph
    r = Rewriter(graph)
    stands_for: dict[str, str] = {}  # normalisation in the new graph -> the old value that it is
    for node in graph.nodes:
        kept = r.keep(node)
        norm = norm_of(r, kept)
        if norm is not None and _written(r, kept, norm):
            stands_for[node.name] = node.name
        else:
            absorbed(r, kept, "layer_norm", stands_for)
    return eliminate_dead_nodes(r.finish())
