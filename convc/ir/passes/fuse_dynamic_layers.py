"""Products of bytes whose scale and zero point are measured at run time become layers of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.definition import Array
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.ops.shape import PadAttributes, ReshapeAttributes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.rewrite import Rewriter, read_once
from convc.ir.types import Shape

__all__ = ["fuse_dynamic_layers"]

# Terms whose sum, of products of 255 and -128, is in int32.
_MOST_TERMS: Final = 2**31 // (255 * 128)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums of products of bytes: of the nodes that write them.

    Attributes:
        data: uint8.
        zero: of the data, i32[].
        weight: int8, (K, C/group, *kernel).
        geometry: of a convolution; the default one for a matrix product.
    """

    data: Node
    zero: Node
    weight: Array
    geometry: QuantizedConvAttributes


def _sums(r: Rewriter, node: Node) -> _Sums | None:
    if node.op not in ("matmul", "conv") or node.type.dtype != "int32":
        return None
    centred, weight = r.operands(node)[:2]
    if centred.op != "sub" or weight.op != CONSTANT or len(node.inputs) > 2:
        return None
    wide, zero = r.operands(centred)
    if wide.op != "cast" or zero.type.shape != ():
        return None
    (data,) = r.operands(wide)
    stored = np.asarray(weight.value)
    form = QuantizedConvAttributes(dtype="float32", dynamic=True)
    a = node.attributes
    if isinstance(a, ConvAttributes):
        bytes_ = _padded(r, data, zero, a.pads) if any(a.pads) else data
        if bytes_ is None:
            return None
        data = bytes_
        form = QuantizedConvAttributes(
            a.strides, (), a.dilations, a.group, dtype="float32", dynamic=True
        )
    elif stored.ndim == 2:
        stored = stored.T[:, :, None, None]
    else:
        return None
    if data.type.dtype != "uint8" or not stored.size or stored[0].size > _MOST_TERMS:
        return None
    if stored.min() < -128 or stored.max() > 127:
        return None
    return _Sums(data, zero, np.ascontiguousarray(stored.astype(np.int8)), form)


def _padded(r: Rewriter, data: Node, zero: Node, pads: Shape) -> Node | None:
    """Return bytes with what stands for zeros around them; None if it is not known that this is their zero point.

    Floats are padded before they are rounded: of 0.0 rounding makes the zero point.
    """
    if data.op != "quantize" or zero.op != "cast":
        return None
    floats, scale, own = r.operands(data)
    if own.op != "cast" or own.inputs != zero.inputs or r.operands(own)[0].type.dtype != "uint8":
        return None
    n = len(pads) // 2
    border = PadAttributes((0, 0, *pads[:n], 0, 0, *pads[n:]))
    wide = r.add(r.unique(f"{data.name}_border"), "pad", [floats], border)
    return r.add(r.unique(f"{data.name}_padded"), "quantize", [wide, scale, own], data.attributes)


def _factor(r: Rewriter, name: str, scale: Node, sums: _Sums, image: bool) -> Node | None:
    """Return the scales of a layer's results, one a channel; None if they are no such."""
    filters = len(sums.weight)
    shape, rank = scale.type.shape, sums.weight.ndim
    per_channel = (filters,) if not image else (filters, *(1,) * (rank - 2))
    if shape in (per_channel, (1, *per_channel)):
        return r.add(r.unique(f"{name}_factor"), "reshape", [scale], ReshapeAttributes((filters,)))
    if scale.type.size != 1 or len(shape) > rank:
        return None
    ones = r.constant(f"{name}_ones", np.ones(filters, np.float32))
    scalar = r.add(r.unique(f"{name}_scale"), "reshape", [scale], ReshapeAttributes(()))
    return r.add(r.unique(f"{name}_factor"), "mul", [ones, scalar])


def _fused(r: Rewriter, graph: Graph, node: Node) -> bool:
    """Write a scaled sum as a layer of bytes; False if it is none."""
    for side, scale in (node.inputs, node.inputs[::-1]):
        cast = graph[side]
        if cast.op != "cast" or node.type.dtype != "float32" or not read_once(graph, side):
            continue
        (inner,) = graph.operands(cast)
        sums = _sums(r, r.written[r.resolve(inner.name)]) if read_once(graph, inner.name) else None
        if sums is None or inner.type.shape != node.type.shape:
            continue
        image = inner.op == "conv"
        factor = _factor(r, node.name, r.written[r.resolve(scale)], sums, image)
        if factor is None:
            continue
        bias = -sums.weight.reshape(len(sums.weight), -1).sum(1, dtype=np.int64)
        data = sums.data
        if not image:
            rows = ReshapeAttributes(
                (node.type.size // len(sums.weight), data.type.shape[-1], 1, 1)
            )
            data = r.add(r.unique(f"{node.name}_image"), "reshape", [data], rows)
        operands = [
            data,
            r.constant(f"{node.name}_weight", sums.weight),
            r.constant(f"{node.name}_bias", bias.astype(np.int32)),
            factor,
            sums.zero,
        ]
        if image:
            r.add(node.name, "conv_quantized", operands, sums.geometry)
            return True
        y = r.add(node.name, "conv_quantized", operands, sums.geometry)
        flat = ReshapeAttributes(node.type.shape)
        r.forward(node, r.add(r.unique(f"{node.name}_flat"), "reshape", [y], flat).name)
        return True
    return False


def fuse_dynamic_layers(graph: Graph) -> Graph:
    """Return the graph with scaled sums of products of bytes as layers of bytes, which have an instruction for four products.

    Rewrite:
        %w = constant dense([1, -2]) : i32[2,1];  %c = cast(%x) {dtype = "int32"};  %d = sub(%c, %z);  %m = matmul(%d, %w)
        %f = cast(%m) {dtype = "float32"};  %y = mul(%f, %s)
        -->
        %y_factor = reshape(%s) {shape = [1]};  %y_image = reshape(%x) {shape = [3, 2, 1, 1]}
        %y_weight = constant dense([1, -2]) : i8[1,2,1,1];  %y_bias = constant dense([1]) : i32[1]
        %y = conv_quantized(%y_image, %y_weight, %y_bias, %y_factor, %z) {dtype = "float32", dynamic = true}
        %y_flat = reshape(%y) {shape = [3, 1]}
    Unless:
        weights less their zero point are not constant or do not fit int8; a convolution pads what is not seen to be rounded with that zero
        point; something else reads the sums.
    """
    if not any(n.op == "cast" for n in graph.nodes):
        return graph
    r = Rewriter(graph)
    for node in graph.nodes:
        if node.op != "mul" or len(node.inputs) != 2 or not _fused(r, graph, node):
            r.keep(node)
    return eliminate_dead_nodes(r.finish())
