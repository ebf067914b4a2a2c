"""What a graph costs: FLOPs of its layers, as the direct method counts them, and its parameters."""

from __future__ import annotations

from convc.ir.graph import Graph, Node
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, conv_spec
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes, forward_spec
from convc.ir.ops.quantized import QuantizedConvAttributes, quantized_spec

__all__ = ["flops", "graph_flops", "parameters"]


def flops(graph: Graph, node: Node) -> int:
    """Return the FLOPs of a convolution, dense layer or matrix product; 0 for every other op, which is bound by memory.

    One multiply-add counts as two; epilogues are not counted.
    """
    operands = graph.operands(node)
    if isinstance(node.attributes, ConvAttributes | ConvTransposeAttributes):
        return conv_spec(operands[0].type, operands[1].type, node.attributes).flops
    if isinstance(node.attributes, ConvWeightGradAttributes):
        return forward_spec(operands[0].type, operands[1].type, node.attributes).flops
    if isinstance(node.attributes, QuantizedConvAttributes):
        return quantized_spec(operands[0].type, operands[1].type, node.attributes).flops
    if node.op in ("dense", "matmul"):
        return 2 * node.type.size * operands[0].type.shape[-1]
    return 0


def graph_flops(graph: Graph) -> int:
    """Return the FLOPs of one run."""
    return sum(flops(graph, node) for node in graph.compute_nodes)


def parameters(graph: Graph, node: Node | None = None) -> int:
    """Return how many constant float elements a node reads, or the whole graph holds."""
    constants = (
        graph.constants if node is None else [n for n in graph.operands(node) if n.op == "constant"]
    )
    return sum(n.type.size for n in constants if n.type.is_float)
