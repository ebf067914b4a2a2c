"""Recognise group and instance normalisation, which importers and exporters write as a dozen ops over two reshapes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.group_norm import GroupNormAttributes
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.shape import ReshapeAttributes
from convc.ir.passes.channels import is_per_channel
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.rewrite import Rewriter
from convc.ir.passes.uniform import is_uniform, splat, uniform_element
from convc.ir.types import numpy_dtype

__all__ = ["fuse_group_norm"]

_SCALE: Final = 1
_BIAS: Final = 2


@dataclass(frozen=True, slots=True)
class _Norm:
    """(data - mean) / sqrt(variance + epsilon), times `scale` if there is one, over the axes behind the batch or behind the channels."""

    data: Node
    axes: tuple[int, ...]
    epsilon: float
    scale: Node | None


def _mean(r: Rewriter, node: Node) -> tuple[Node, tuple[int, ...]] | None:
    """Return the data and the axes of a mean that keeps them."""
    a = node.attributes
    if node.op != "reduce_mean" or not isinstance(a, ReduceAttributes) or not a.keepdims:
        return None
    (data,) = r.operands(node)
    return data, a.axes


def _squared(r: Rewriter, node: Node) -> Node | None:
    a, *b = r.operands(node)
    if node.op == "mul" and b == [a]:
        return a
    return a if node.op == "pow" and is_uniform(b[0], 2.0) else None


def _deviation(r: Rewriter, root: Node) -> tuple[Node, tuple[int, ...], float] | None:
    """Return c, the axes and epsilon of sqrt(mean(c c) + epsilon)."""
    if root.op != "sqrt":
        return None
    (stable,) = r.operands(root)
    if stable.op != "add":
        return None
    for variance, constant in _either_way(r, stable):
        epsilon, found = uniform_element(constant), _mean(r, variance)
        centred = None if found is None else _squared(r, found[0])
        if epsilon is not None and found is not None and centred is not None:
            return centred, found[1], float(epsilon)
    return None


def _norm(r: Rewriter, node: Node) -> _Norm | None:
    """Return the normalisation whose last op this is: c / root, or c times 1 / root or scale / root."""
    if node.op == "div":
        centred, root = r.operands(node)
        return _checked(r, centred, root, None)
    if node.op != "mul":
        return None
    for centred, factor in _either_way(r, node):
        if factor.op == "reciprocal":
            found = _checked(r, centred, r.operands(factor)[0], None)
        elif factor.op == "div":
            scale, root = r.operands(factor)
            found = _checked(r, centred, root, None if is_uniform(scale, 1.0) else scale)
        else:
            continue
        if found is not None:
            return found
    return None


def _checked(r: Rewriter, centred: Node, root: Node, scale: Node | None) -> _Norm | None:
    found = _deviation(r, root)
    if found is None or found[0] is not centred or centred.op != "sub":
        return None
    data, mean = r.operands(centred)
    return _Norm(data, found[1], found[2], scale) if _mean(r, mean) == (data, found[1]) else None


def _either_way(r: Rewriter, node: Node) -> Iterator[tuple[Node, Node]]:
    a, b = r.operands(node)
    yield a, b
    yield b, a


def _written(r: Rewriter, node: Node, norm: _Norm) -> bool:
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
        by_group = np.broadcast_to(_full(scale, rank), (1, data.type.shape[1], *[1] * (rank - 2)))
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


def _full(constant: Node, rank: int) -> np.ndarray:
    value = constant.value
    return value.reshape((1,) * (rank - value.ndim) + value.shape)


def _absorbed(r: Rewriter, node: Node, stands_for: dict[str, str]) -> bool:
    """Write a product or a sum of a normalisation and a constant by channel as its scale and bias; return whether it is one."""
    if node.op not in ("mul", "add"):
        return False
    for norm, operand in _either_way(r, node):
        if norm.op != "group_norm" or operand.op != CONSTANT or norm.type != node.type:
            continue
        a: Any = norm.attributes
        scale, bias = (r.written[norm.inputs[i]] for i in (_SCALE, _BIAS))
        end = stands_for.get(norm.name)
        if end is None or not _read_once(r.graph, end) or a.epilogue:
            continue
        if scale.op != CONSTANT or bias.op != CONSTANT:
            continue
        if not is_per_channel(operand.type.shape, node.type):
            continue
        value = _full(operand, node.type.rank).astype(np.float64)
        dtype, parts = (
            scale.value.dtype,
            [scale.value.astype(np.float64), bias.value.astype(np.float64)],
        )
        parts = [p * value for p in parts] if node.op == "mul" else [parts[0], parts[1] + value]
        operands = [
            r.constant(f"{node.name}_{n}", p.astype(dtype))
            for n, p in zip(("scale", "bias"), parts, strict=True)
        ]
        data = r.written[norm.inputs[0]]
        r.remove(node.name)
        r.remove(norm.name)
        r.add(node.name, "group_norm", [data, *operands], a)
        stands_for[node.name] = node.name
        return True
    return False


def _read_once(graph: Graph, value: str) -> bool:
    return len(graph.users[value]) == 1 and value not in graph.output_values


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
    if _read_once(r.graph, there.name):
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
        norm = _norm(r, kept)
        if norm is not None and _written(r, kept, norm):
            if r.written[node.name].op == "group_norm":
                stands_for[node.name] = node.name
        elif not _back(r, node, stands_for):
            _absorbed(r, kept, stands_for)
    return eliminate_dead_nodes(r.finish())
