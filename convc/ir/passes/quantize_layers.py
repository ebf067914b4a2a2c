"""Layers between dequantize and quantize become layers of integers: the same numbers, but for the rounding of float sums.

Not in the PIPELINE: this decides what a quantised model means, and so comes before its reference is taken.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from convc.ir.graph import Graph, Node
from convc.ir.ops.quantized import QuantizeAttributes, QuantizedConvAttributes
from convc.ir.passes.add_quantized import add_residuals
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.integer_layer import integer_layer
from convc.ir.passes.quantized_ends import Ending, alone, scaled
from convc.ir.passes.rewrite import Rewriter
from convc.ir.passes.tabulate import tabulate

__all__ = ["quantize_layers"]

# They move elements, or pick some: the same on integers as on what these stand for.
_MOVES: Final = ("max_pool", "reshape", "transpose", "slice", "resize")


def unsigned(graph: Graph) -> Graph:
    """Return the graph with int8 between quantize and dequantize made uint8, which the kernels read.

    Rewrite:
        %q = quantize(%x, %s, %z) {dtype = "int8"};  %p = max_pool(%q);  %y = dequantize(%p, %s, %z)
        -->
        %q = quantize(%x, %s, %z + 128) {dtype = "uint8"};  %p = max_pool(%q);  %y = dequantize(%p, %s, %z + 128)
    Unless:
        something else than moves of elements and dequantize reads the bytes.
    """
    r, shifted = Rewriter(graph), _shiftable(graph)
    for node in graph.nodes:
        attributes = node.attributes
        if node.name in shifted and isinstance(attributes, QuantizeAttributes):
            r.add(node.name, node.op, _shifted(r, node), replace(attributes, dtype="uint8"))
        elif node.name in shifted:
            r.add(node.name, node.op, r.operands(node), attributes)
        elif node.op == "dequantize" and node.inputs[0] in shifted:
            r.add(node.name, node.op, _shifted(r, node))
        else:
            r.keep(node)
    return r.finish()


def _shiftable(graph: Graph) -> set[str]:
    """Return the int8 values that begin in quantize, are moved, and end in dequantize, all of them."""
    left = {
        node.name
        for node in graph.nodes
        if node.type.dtype == "int8"
        and node.name not in graph.output_values
        and (node.op in (*_MOVES, "concat") or (node.op == "quantize" and scaled(graph, node)))
    }

    def ends(user: Node) -> bool:
        return user.name in left or (user.op == "dequantize" and scaled(graph, user) is not None)

    while True:
        fails = {
            name
            for name in left
            if not all(map(ends, graph.users[name]))
            or (graph[name].op != "quantize" and not left.issuperset(graph[name].inputs))
        }
        if not fails:
            return left
        left -= fails


def _shifted(r: Rewriter, node: Node) -> list[Node]:
    data, scale, zero = r.operands(node)
    value = np.asarray(zero.value + 128, np.float32)
    return [data, scale, r.constant(f"{zero.name}_unsigned", value)]


class _Layers:
    """One walk that makes layers of integers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.r = Rewriter(graph)

    def run(self) -> Graph:
        for node in self.graph.nodes:
            if node.op == "quantize" and self._ends(node):
                continue
            self.r.keep(node)
        return self.r.finish()

    def _ends(self, node: Node) -> bool:
        """Write what ends in a quantize node in integers; False if it stays as it is."""
        (inner, *_) = self.graph.operands(node)
        out = scaled(self.graph, node)
        if inner.op in _MOVES and out is not None and alone(self.graph, inner, node):
            return self._move(node, inner, out)
        ending = Ending.of(self.graph, node)
        if ending is None:
            return False
        form = QuantizedConvAttributes(
            dtype=node.type.dtype,
            zero=ending.zero,
            least=ending.least,
            greatest=ending.greatest,
        )
        layer = integer_layer(self.r, self.graph, ending.inner, form, ending.scale)
        if layer is None:
            return False
        for gone in ending.chain:
            self.r.remove(gone.name)
        self.r.forward(node, layer.name)
        return True

    def _move(self, node: Node, inner: Node, out: tuple[float, int]) -> bool:
        source = self.graph[inner.inputs[0]]
        if source.op != "dequantize" or scaled(self.graph, source) != out:
            return False
        data = self.r.operands(source)[0]
        if data.type.dtype != node.type.dtype:
            return False
        self.r.remove(inner.name)
        self.r.add(inner.name, inner.op, [data], inner.attributes)
        self.r.forward(node, inner.name)
        return True


def _float_results(graph: Graph) -> Graph:
    """Return the graph with the layers of dequantised operands whose results stay floats computed in integers, too."""
    r = Rewriter(graph)
    form = QuantizedConvAttributes(dtype="float32")
    for node in graph.nodes:
        r.keep(node)
        layer = integer_layer(r, graph, node, form, 1.0)
        if layer is not None and layer.name != node.name:
            r.forward(node, layer.name)
    return r.finish()


def quantize_layers(graph: Graph) -> Graph:
    """Return the graph with convolutions and dense layers of dequantised operands computed in integers.

    Rewrite:
        %a = dequantize(%x, %sx, %zx);  %b = dequantize(%w, %sw, %zw);  %c = conv(%a, %b);  %d = relu(%c)
        %y = quantize(%d, %sy, %zy)
        -->
        %y = conv_quantized(%x, %w, %bias, %factor)      bias = - zx sum(w), factor = sx sw / sy
    and then what is added to such a layer's result, see `add_residuals`.
    Unless:
        a scale or zero point of data is not one constant, weights are not constant or do not fit int8, something else reads a
        value in between.

    Source:
        Jacob et al., CVPR'18, equations 4 to 7.
    """
    if not any(node.op == "dequantize" for node in graph.nodes):
        return graph
    layers = eliminate_dead_nodes(_Layers(unsigned(graph)).run())
    return eliminate_dead_nodes(_float_results(tabulate(add_residuals(layers))))
