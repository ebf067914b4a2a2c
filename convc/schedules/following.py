"""In which blocks of channels an op that is no convolution can work, which decides where its result lies.

An op follows its operands: it works in the widest of their blocks that it can work in, and is plain otherwise. A transpose that brings
an image's channels to the end, or back, reads and writes any block. Convolutions of bytes have the blocks that their one kernel wants.
"""

from __future__ import annotations

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops import OPS
from convc.ir.ops.quantized import QuantizedConvAttributes, quantized_spec
from convc.schedules import quantized
from convc.schedules.algorithm import Operands
from convc.schedules.backend import backend_of
from convc.schedules.operators import OPERATORS, OpAlgorithm
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
    return _turns(node, target) and node.attributes.perm[1] == node.type.rank - 1  # type: ignore[attr-defined]


def goes_last(node: Node, target: Target) -> bool:
    """Whether a node brings the channels of an image behind it, likewise."""
    return _turns(node, target) and node.attributes.perm[-1] == 1  # type: ignore[attr-defined]


def quantized_operands(graph: Graph, node: Node, target: Target) -> Operands | None:
    """Return the memory orders of a convolution of bytes, if the kernel on blocks of channels computes it."""
    attributes = node.attributes
    if not isinstance(attributes, QuantizedConvAttributes):
        return None
    data, *constants = graph.operands(node)[: 3 if attributes.dynamic else 4]
    if "quantized" not in backend_of(target).schedules or any(n.op != CONSTANT for n in constants):
        return None
    spec = quantized.in_one_row(quantized_spec(data.type, constants[0].type, attributes))
    return quantized.operands(spec, target, quantized.knobs(spec, target))


def _turns(node: Node, target: Target) -> bool:
    if node.op != "transpose" or not node.type.is_image or not node.type.size:
        return False
    perm, axes = node.attributes.perm, range(node.type.rank)  # type: ignore[attr-defined]
    turned = ((0, *axes[2:], 1), (0, axes[-1], *axes[1:-1]))
    return perm in turned and "channels_last" in backend_of(target).schedules
