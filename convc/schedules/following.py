"""In which blocks of channels an op that is no convolution can work, which decides where its result lies.

An op follows its operands: it works in the widest of their blocks that it can work in, and is plain otherwise. A transpose that brings
an image's channels to the end, or back, reads and writes any block. Convolutions of bytes have the blocks that their kernel wants.
"""

from __future__ import annotations

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops import OPS
from convc.ir.ops.shape import TransposeAttributes
from convc.ir.types import Shape
from convc.schedules.algorithm import Operands
from convc.schedules.backend import backend_of
from convc.schedules.operators import OPERATORS, OpAlgorithm
from convc.schedules.plan import Plan
from convc.schedules.quantized_algorithm import quantized_layer
from convc.target import Target

__all__ = ["comes_first", "follows", "goes_last", "is_literal", "quantized_operands"]


def follows(graph: Graph, node: Node, block: int, algorithm: OpAlgorithm | None = None) -> bool:
    """Whether a node works on operands in that block and leaves its result so, by itself or by another algorithm."""
    operands = [graph[i] for i in node.inputs]
    if OPS[node.op].elementwise:
        operands = [n for n in operands if not is_literal(n)]
    types = [n.type for n in operands]
    if algorithm is not None:
        return algorithm.follows(node, types, block)
    return node.op in OPERATORS and OPERATORS[node.op].follows(node, types, block)


def is_literal(node: Node) -> bool:
    """Whether an elementwise kernel writes this operand into its code: a constant of one float element."""
    return node.op == CONSTANT and node.type.size == 1 and node.type.is_float


def comes_first(node: Node, target: Target) -> bool:
    """Whether a node brings the channels of an image from behind, and the target has a kernel that brings them into blocks."""
    return _turned(node, target)[1:2] == (node.type.rank - 1,)


def goes_last(node: Node, target: Target) -> bool:
    """Whether a node brings the channels of an image behind it, likewise."""
    return _turned(node, target)[-1:] == (1,)


def quantized_operands(
    graph: Graph, node: Node, target: Target, plan: Plan | None = None
) -> Operands | None:
    """Return the memory orders of a convolution of bytes, if an algorithm computes it and not plain loops."""
    taken = quantized_layer(graph, node, target, plan)
    if taken is None or taken.algorithm is None:
        return None
    return taken.algorithm.operands(taken.posed, target, taken.knobs)


def _turned(node: Node, target: Target) -> Shape:
    """Return the order of axes of a transpose that brings channels to the other end, () of everything else."""
    attributes, axes = node.attributes, range(node.type.rank)
    if (
        not isinstance(attributes, TransposeAttributes)
        or not node.type.is_image
        or not node.type.size
    ):
        return ()
    turned = ((0, *axes[2:], 1), (0, axes[-1], *axes[1:-1]))
    able = "channels_last" in backend_of(target).schedules
    return attributes.perm if able and attributes.perm in turned else ()
