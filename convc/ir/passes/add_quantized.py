"""What is added to the result of a layer of integers becomes part of the layer: no pass over the sum's operands in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from convc.ir.graph import Graph, Node
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.passes.quantized_ends import Ending, alone, scaled
from convc.ir.passes.rewrite import Rewriter

__all__ = ["add_residuals"]


def add_residuals(graph: Graph) -> Graph:
    """Return the graph with sums of a layer's rounded result and other bytes as part of the layer.

    Rewrite:
        %c = conv_quantized(%x, %w, %bias, %factor)
        %a = dequantize(%c, %sc, %zc);  %b = dequantize(%r, %sr, %zr);  %s = add(%a, %b);  %d = relu(%s);  %y = quantize(%d, %sy, %zy)
        -->
        %y = conv_quantized(%x, %w, %bias, %factor, %r) {added = [sc / sy, sr / sy, - zr sr / sy]}
    Unless:
        a scale is not one constant, the bytes are int8, something else reads a value in between.
    """
    r = Rewriter(graph)
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        ending = Ending.of(graph, node) if node.op == "quantize" else None
        if ending is None or not _added(r, graph, node, ending, order):
            r.keep(node)
    return r.finish()


def _added(r: Rewriter, graph: Graph, node: Node, ending: Ending, order: dict[str, int]) -> bool:
    """Write a rounded sum as part of a layer; False if it is none."""
    total = ending.inner
    if total.op != "add" or len(set(total.inputs)) < 2 or node.type.dtype != "uint8":
        return False
    sides = graph.operands(total)
    if any(s.op != "dequantize" or s.type.shape != total.type.shape for s in sides):
        return False
    # The later layer, which finds the other one's result written.
    first, later = sorted(sides, key=lambda s: order[s.inputs[0]])
    for other, own in ((first, later), (later, first)):
        layer, residual = graph[own.inputs[0]], graph[other.inputs[0]]
        form, scales = layer.attributes, (scaled(graph, own), scaled(graph, other))
        if not isinstance(form, QuantizedConvAttributes) or form.added or form.dtype != "uint8":
            continue
        if residual.type.dtype != "uint8" or None in scales:
            continue
        if not alone(graph, layer, own) or not alone(graph, own, total):
            continue
        (sc, zc), (sr, zr) = (s for s in scales if s is not None)
        if zc != form.zero:
            continue
        y = np.float32(ending.scale)
        factor = np.float32(sr) / y
        low, high = form.limits
        with_sum = replace(
            form,
            zero=ending.zero,
            least=ending.least,
            greatest=ending.greatest,
            added=tuple(map(float, (np.float32(sc) / y, factor, -np.float32(zr) * factor))),
            own_least=low - form.zero,
            own_greatest=high - form.zero,
        )
        for gone in (layer, own, total, *ending.chain):
            r.remove(gone.name)
        operands = [*r.operands(layer), r.written[r.resolve(residual.name)]]
        r.add(layer.name, layer.op, operands, with_sum)
        r.forward(node, layer.name)
        return True
    return False
