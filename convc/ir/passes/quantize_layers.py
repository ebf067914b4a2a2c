"""Layers between dequantize and quantize become layers of integers: the same numbers, but for the rounding of float sums.

Not in the PIPELINE: this decides what a quantised model means, and so comes before its reference is taken.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops import Attributes
from convc.ir.ops.conv import ConvAttributes, DenseAttributes
from convc.ir.ops.definition import Array
from convc.ir.ops.quantized import QuantizeAttributes, QuantizedConvAttributes
from convc.ir.ops.shape import PadAttributes, ReshapeAttributes
from convc.ir.passes.add_quantized import add_residuals
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.quantized_ends import Ending, alone, scaled
from convc.ir.passes.rewrite import Rewriter
from convc.ir.passes.tabulate import tabulate
from convc.ir.spec import ConvSpec

__all__ = ["quantize_layers"]

# They move elements, or pick some: the same on integers as on what these stand for.
_MOVES: Final = ("max_pool", "reshape", "transpose", "slice", "resize")


def unsigned(graph: Graph) -> Graph:
    """Return the graph with int8 between quantize and dequantize made uint8, which the kernels read.

    Rewrite:
        %q = quantize(%x, %s, %z) {dtype = "int8"};  %y = dequantize(%q, %s, %z)
        -->
        %q = quantize(%x, %s, %z + 128) {dtype = "uint8"};  %y = dequantize(%q, %s, %z + 128)
    """
    r, moved = Rewriter(graph), set()
    for node in graph.nodes:
        attributes = node.attributes
        if (
            isinstance(attributes, QuantizeAttributes)
            and attributes.dtype == "int8"
            and scaled(graph, node)
            and node.name not in graph.output_values
            and all(u.op == "dequantize" and scaled(graph, u) for u in graph.users[node.name])
        ):
            moved.add(node.name)
            shifted = replace(attributes, dtype="uint8")
            r.add(node.name, node.op, _shifted(r, node), shifted)
        elif node.op == "dequantize" and node.inputs[0] in moved:
            r.add(node.name, node.op, _shifted(r, node))
        else:
            r.keep(node)
    return r.finish()


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


def _weights(graph: Graph, node: Node) -> tuple[Array, Array] | None:
    """Return (int8 weights of zero point 0, one scale a filter) of a constant that is dequantised, or of its transpose."""
    if node.op == "transpose" and node.type.rank == 2:
        (source,) = graph.operands(node)
        if source.op != "dequantize" or any(n.op != CONSTANT for n in graph.operands(source)):
            return None
        return _filters(*(np.asarray(n.value).T for n in graph.operands(source)))
    if node.op != "dequantize" or any(n.op != CONSTANT for n in graph.operands(node)):
        return None
    return _filters(*(np.asarray(n.value) for n in graph.operands(node)))


def _filters(stored: Array, scale: Array, zero: Array) -> tuple[Array, Array] | None:
    filters = stored.shape[0]
    per_filter = (filters, *(1,) * (stored.ndim - 1))
    if scale.size != 1 and scale.shape != per_filter:
        return None
    centred = stored.astype(np.int64) - zero.astype(np.int64)
    if centred.min(initial=0) < -128 or centred.max(initial=0) > 127:
        return None
    scales = np.broadcast_to(scale.reshape(-1), (filters,)).astype(np.float32)
    return (centred.astype(np.int8), scales) if (scales > 0).all() else None


def _bias(graph: Graph, layer: Node, sums: Array) -> Array | None:
    """Return the layer's bias as whole sums, or None if it is not constant."""
    if len(layer.inputs) == 2:
        return np.zeros(sums.shape, np.int64)
    node = graph[layer.inputs[2]]
    if node.op == "dequantize" and all(n.op == CONSTANT for n in graph.operands(node)):
        stored, scale, zero = (np.asarray(n.value, np.float64) for n in graph.operands(node))
        value = (stored - zero) * scale
    elif node.op == CONSTANT:
        value = np.asarray(node.value, np.float64)
    else:
        return None
    return np.rint(value / sums).astype(np.int64)


def integer_layer(
    r: Rewriter, graph: Graph, layer: Node, form: QuantizedConvAttributes, scale: float
) -> Node | None:
    """Write a conv or dense layer of dequantised operands in integers, under its own name; None if it is none.

    Args:
        r: the new graph, with the layer in it.
        graph: the old one.
        layer: the layer.
        form: how the result is to be given; its geometry is filled in here.
        scale: of the result; 1 for a float.
    """
    a = layer.attributes
    if not isinstance(a, ConvAttributes | DenseAttributes):
        return None
    if [s.name for s in a.epilogue] not in ([], ["bias"]):
        return None
    data, weight = graph[layer.inputs[0]], graph[layer.inputs[1]]
    if data.op != "dequantize" or graph[data.inputs[0]].type.dtype != "uint8":
        return None
    given, found = scaled(graph, data), _weights(graph, weight)
    if given is None or found is None:
        return None
    stored, scales = found
    sums = np.float32(given[0]) * scales
    bias = _bias(graph, layer, sums.astype(np.float64))
    if bias is None:
        return None
    bias = bias - given[1] * stored.reshape(len(stored), -1).sum(1, dtype=np.int64)
    if np.abs(bias).max(initial=0) >= 2**31:
        return None
    x = r.operands(data)[0]
    r.remove(layer.name)
    factor = sums / np.float32(scale)
    constants = [
        r.constant(f"{layer.name}_bias", bias.astype(np.int32)),
        r.constant(f"{layer.name}_factor", factor.astype(np.float32)),
    ]
    if isinstance(a, DenseAttributes):
        image = ReshapeAttributes((*x.type.shape, 1, 1))
        x = r.add(r.unique(f"{layer.name}_image"), "reshape", [x], image)
        filters = r.constant(f"{layer.name}_weight", stored[:, :, None, None])
        y = r.add(layer.name, "conv_quantized", [x, filters, *constants], form)
        flat = ReshapeAttributes(layer.type.shape)
        return r.add(r.unique(f"{layer.name}_flat"), "reshape", [y], flat)
    spec = ConvSpec.of(
        data.type.shape,
        stored.shape,
        strides=a.strides,
        pads=a.pads,
        dilations=a.dilations,
        group=a.group,
    )
    pads, n = spec.pads, spec.rank
    if given[1] and any(
        taps > extent for taps, extent in zip(spec.effective_kernel, spec.data[2:], strict=True)
    ):  # a kernel that sums over the data reads nothing around them
        border: Attributes = PadAttributes((0, 0, *pads[:n], 0, 0, *pads[n:]), float(given[1]))
        x = r.add(r.unique(f"{layer.name}_padded"), "pad", [x], border)
        pads = (0,) * len(pads)
    pad = given[1] if any(pads) else 0
    filters = r.constant(f"{layer.name}_weight", stored)
    geometry = replace(
        form, strides=spec.strides, pads=pads, pad=pad, dilations=spec.dilations, group=spec.group
    )
    return r.add(layer.name, "conv_quantized", [x, filters, *constants], geometry)


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
