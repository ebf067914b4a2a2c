"""One convolution, transposed convolution, dense layer or product with a constant matrix, of dequantised operands, written in integers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops import Attributes
from convc.ir.ops.conv import (
    ConvAttributes,
    ConvTransposeAttributes,
    DenseAttributes,
    conv_spec,
)
from convc.ir.ops.definition import Array
from convc.ir.ops.linear import MatmulAttributes
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.ops.shape import ReshapeAttributes
from convc.ir.passes.quantized_ends import scaled
from convc.ir.passes.rewrite import Rewriter

__all__ = ["integer_layer"]


def _weights(graph: Graph, layer: Node) -> tuple[Array, Array] | None:
    """Return (int8 weights of zero point 0, one scale a filter) of a constant that is dequantised, or of its transpose."""
    node, a = graph[layer.inputs[1]], layer.attributes
    if node.op == "transpose" and node.type.rank == 2:
        (source,) = graph.operands(node)
        if source.op != "dequantize" or any(n.op != CONSTANT for n in graph.operands(source)):
            return None
        stored, scale, zero = (np.asarray(n.value).T for n in graph.operands(source))
        return _filters(stored, scale, zero)
    if node.op != "dequantize" or any(n.op != CONSTANT for n in graph.operands(node)):
        return None
    stored, scale, zero = (np.asarray(n.value) for n in graph.operands(node))
    if isinstance(a, MatmulAttributes):
        return _filters(stored.T, scale.T, zero.T) if stored.ndim == 2 else None
    if not isinstance(a, ConvTransposeAttributes):
        return _filters(stored, scale, zero)
    found = _filters(stored, scale, zero, axis=1)
    # All groups' filters of one number have one scale.
    return None if found is None else (found[0], np.tile(found[1], a.group))


def _filters(stored: Array, scale: Array, zero: Array, axis: int = 0) -> tuple[Array, Array] | None:
    filters = stored.shape[axis]
    per_filter = tuple(filters if i == axis else 1 for i in range(stored.ndim))
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
    """Write a conv, conv_transpose, dense or matmul of dequantised operands in integers, under its own name; None if it is none.

    Args:
        r: the new graph, with the layer in it.
        graph: the old one.
        layer: the layer.
        form: how the result is to be given; its geometry is filled in here.
        scale: of the result; 1 for a float.
    """
    a = layer.attributes
    if not isinstance(
        a, ConvAttributes | ConvTransposeAttributes | DenseAttributes | MatmulAttributes
    ):
        return None
    if [s.name for s in a.epilogue] not in ([], ["bias"]):
        return None
    data = graph[layer.inputs[0]]
    if data.op != "dequantize" or graph[data.inputs[0]].type.dtype != "uint8":
        return None
    given, found = scaled(graph, data), _weights(graph, layer)
    if given is None or found is None:
        return None
    stored, scales = found
    sums = np.float32(given[0]) * scales
    bias = _bias(graph, layer, sums.astype(np.float64))
    if bias is None:
        return None
    bias = bias - given[1] * _sums_of_filters(stored, a)
    if np.abs(bias).max(initial=0) >= 2**31:
        return None
    x = r.operands(data)[0]
    r.remove(layer.name)
    factor = sums / np.float32(scale)
    constants = [
        r.constant(f"{layer.name}_bias", bias.astype(np.int32)),
        r.constant(f"{layer.name}_factor", factor.astype(np.float32)),
    ]
    if isinstance(a, DenseAttributes | MatmulAttributes):
        *rows, channels = x.type.shape
        image = ReshapeAttributes((math.prod(rows), channels, 1, 1))
        x = r.add(r.unique(f"{layer.name}_image"), "reshape", [x], image)
        filters = r.constant(f"{layer.name}_weight", stored[:, :, None, None])
        y = r.add(layer.name, "conv_quantized", [x, filters, *constants], form)
        flat = ReshapeAttributes(layer.type.shape)
        return r.add(r.unique(f"{layer.name}_flat"), "reshape", [y], flat)
    spec = conv_spec(data.type, graph[layer.inputs[1]].type, a)
    zero = given[1]
    geometry = replace(
        form,
        strides=spec.strides,
        pads=spec.pads,
        dilations=spec.dilations,
        group=spec.group,
        transposed=spec.transposed,
        output_padding=spec.output_padding,
        pad=zero if any(spec.pads) or spec.transposed else 0,
    )
    filters = r.constant(f"{layer.name}_weight", stored)
    return r.add(layer.name, "conv_quantized", [x, filters, *constants], geometry)


def _sums_of_filters(stored: Array, a: Attributes) -> Array:
    """Return the sum of each filter's weights."""
    if not isinstance(a, ConvTransposeAttributes):
        return stored.reshape(len(stored), -1).sum(1, dtype=np.int64)
    grouped = stored.reshape(a.group, len(stored) // a.group, stored.shape[1], -1)
    return grouped.sum((1, 3), dtype=np.int64).reshape(-1)
