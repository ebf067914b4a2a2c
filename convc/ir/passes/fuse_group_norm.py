"""Recognise group and instance normalisation, which importers and exporters write as a dozen ops over two reshapes."""

from __future__ import annotations

import math

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.group_norm import GroupNormAttributes
from convc.ir.ops.shape import ReshapeAttributes
from convc.ir.passes.channels import is_per_channel
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.normalised import Norm, absorbed, full, norm_of
from convc.ir.passes.rewrite import Rewriter, read_once
from convc.ir.passes.uniform import splat
from convc.ir.types import numpy_dtype

__all__ = ["fuse_group_norm"]


def _written(r: Rewriter, node: Node, norm: Norm) -> bool:
    """Write a normalisation as one op, in the shape of the image that its data are a reshape of; return whether it is one."""
    data, rank = norm.data, norm.data.type.rank
    if (
        rank < 3
        or norm.axes not in (tuple(range(1, rank)), tuple(range(2, rank)))
        or not data.type.is_float
    ):
        return False
    groups = data.type.shape[1] if norm.axes[0] == 2 else 1
    image = r.operands(data)[0] if data.op == "reshape" else data
    if not image.type.is_image or not image.type.size or not _grouped(image, data, groups):
        image = data
    if not image.type.is_image or not image.type.size or node.type != data.type:
        return False
    channels, one = image.type.shape[1], np.ones((), numpy_dtype(data.type.dtype))
    column = (1, channels, *[1] * (image.type.rank - 2))
    scale = norm.scale
    if scale is not None and scale.op == CONSTANT and is_per_channel(scale.type.shape, data.type):
        by_group = np.broadcast_to(full(scale, rank), (1, data.type.shape[1], *[1] * (rank - 2)))
        repeated = np.repeat(by_group.reshape(-1), channels // data.type.shape[1])
        scale = r.constant(f"{node.name}_scale", repeated.reshape(column))
    elif scale is None:
        scale = r.constant(f"{node.name}_scale", splat(one, column))
    elif scale.type.shape != column:
        return False
    bias = r.constant(f"{node.name}_bias", splat(one * 0, column))
    attributes = GroupNormAttributes(groups, norm.epsilon)
    if image is data:
        r.remove(node.name)
        r.add(node.name, "group_norm", [data, scale, bias], attributes)
        return True
    r.remove(node.name)
    normed = r.add(r.unique(f"{node.name}_image"), "group_norm", [image, scale, bias], attributes)
    r.add(node.name, "reshape", [normed], ReshapeAttributes(node.type.shape))
    return True


def _grouped(image: Node, data: Node, groups: int) -> bool:
    """Whether the parts of `data` that are normalised are groups of the image's channels."""
    (n, channels, *area), shape = image.type.shape, data.type.shape
    parts = shape[1]
    return (
        shape[0] == n
        and channels % parts == 0
        and groups in (1, parts)
        and math.prod(shape[2:]) == channels // parts * math.prod(area)
    )


def _back(r: Rewriter, node: Node, stands_for: dict[str, str]) -> bool:
    """Forward a reshape that takes a normalised image back to its own shape; return whether it is one."""
    if node.op != "reshape":
        return False
    (there,) = r.operands(node)
    normed = r.operands(there)[0] if there.op == "reshape" else there
    if there is normed or normed.op != "group_norm" or normed.type != node.type:
        return False
    r.remove(node.name)
    r.forward(node, normed.name)
    if read_once(r.graph, there.name):
        stands_for[normed.name] = node.name
    return True


def fuse_group_norm(graph: Graph) -> Graph:
    """Return the graph with group_norm for the ops that normalise groups of channels, and for what scales them by channel behind.

    Exporters reshape an image to (N, groups, -1), normalise that as instances, reshape it back, and multiply and add by channel. The
    reshapes, which would bring the image into plain order, vanish where they cancel.

    Rewrite:
        %m = reduce_mean(%x) {axes = [2, 3]};  %c = sub(%x, %m);  %s = mul(%c, %c);  %v = reduce_mean(%s) {axes = [2, 3]}
        %e = constant splat(0.5) : f32[];  %a = add(%v, %e);  %r = sqrt(%a);  %y = div(%c, %r)
        -->
        %y_scale = constant splat(1.0) : f32[1,3,1,1];  %y_bias = constant splat(0.0) : f32[1,3,1,1]
        %y = group_norm(%x, %y_scale, %y_bias) {groups = 3, epsilon = 0.5}
    Unless:
        the axes are neither all behind the channels nor all behind the batch; scale is neither constant nor one for each channel.
    """
    if not any(n.op == "sqrt" for n in graph.nodes):
        return graph
    r = Rewriter(graph)
    stands_for: dict[str, str] = {}  # normalisation in the new graph -> the old value that it is
    for node in graph.nodes:
        kept = r.keep(node)
        norm = norm_of(r, kept)
        if norm is not None and _written(r, kept, norm):
            if r.written[node.name].op == "group_norm":
                stands_for[node.name] = node.name
        elif not _back(r, node, stands_for):
            absorbed(r, kept, "group_norm", stands_for)
    return eliminate_dead_nodes(r.finish())
