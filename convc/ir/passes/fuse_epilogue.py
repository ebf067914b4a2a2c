"""Fuse what follows a layer element by element into its epilogue, where it costs no memory traffic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from convc.ir.epilogue import Step, is_small
from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.elementwise import UNARY
from convc.ir.ops.group_norm import GroupNormAttributes
from convc.ir.ops.linear import MatmulAttributes
from convc.ir.ops.shape import ReshapeAttributes
from convc.ir.passes.channels import LAYERS, LayerAttributes, is_layer_attributes, is_per_channel
from convc.ir.passes.rewrite import Rewriter, read_once
from convc.ir.passes.uniform import splat, uniform_element

__all__ = ["fuse_epilogue"]

# What takes factors, what takes sums, and what takes functions.
_PRODUCTS: Final = frozenset({"matmul"})
_SUMS: Final = LAYERS | _PRODUCTS
_HOSTS: Final = _SUMS | {"group_norm"}

_BIAS: Final = Step("bias")
_ADD: Final = Step("add")
_MUL: Final = Step("mul")

# Smaller factors are not normal numbers of float16.
_LEAST: Final = 2.0**-14


@dataclass(frozen=True, slots=True)
class _End:
    """The old node whose value a layer of the new graph computes by now, and that node's place in the old graph."""

    node: Node
    position: int


@dataclass(frozen=True, slots=True)
class _Fusion:
    """A step to append to a layer, and its operand in the new graph, if it takes one."""

    layer: Node
    step: Step
    operand: Node | None = None


def _attributes(layer: Node) -> LayerAttributes | GroupNormAttributes | MatmulAttributes:
    a = layer.attributes
    assert is_layer_attributes(a) or isinstance(a, GroupNormAttributes | MatmulAttributes), layer
    return a


def _channel_vector(r: Rewriter, bias: Node, channels: int) -> Node:
    """Return a bias as a (K,) value: itself, a reshaped or broadcast constant, or a new reshape node."""
    if bias.type.shape == (channels,):
        return bias
    if bias.op == CONSTANT:
        element = uniform_element(bias)
        value = splat(element, (channels,)) if element is not None else bias.value.reshape(channels)
        return r.constant(f"{bias.name}_vector", value)
    return r.add(r.unique(f"{bias.name}_vector"), "reshape", [bias], ReshapeAttributes((channels,)))


def _addition(r: Rewriter, layer: Node, other: Node) -> _Fusion | None:
    """Return how a layer takes the other operand of the addition that follows it."""
    axis = layer.type.rank - 1 if layer.op == "matmul" else 1
    if is_per_channel(other.type.shape, layer.type, axis) and layer.type.size:
        channels = layer.type.shape[axis]
        # A scalar that is computed would have to be broadcast by a node of its own.
        if other.op == CONSTANT or other.type.size == channels:
            return _Fusion(layer, _BIAS, _channel_vector(r, other, channels))
    # A sum of the product's type: its other operand broadcasts to it.
    fits = layer.op == "matmul" or other.type == layer.type
    return _Fusion(layer, _ADD, other) if fits else None


def _quotient(r: Rewriter, layer: Node, divisor: Node) -> _Fusion | None:
    """Return how a product takes a constant divisor, times whose reciprocal is rounded once more than divided by it."""
    element = uniform_element(divisor)
    if layer.op != "matmul" or element is None or not layer.type.is_float:
        return None
    with np.errstate(all="ignore"):
        factor = 1 / np.float64(element)
    # A factor that is not a normal number of the type would lose digits.
    if not _LEAST < abs(factor) < 1 / _LEAST:
        return None
    value = np.asarray(factor).astype(divisor.value.dtype)
    return _Fusion(layer, _MUL, r.constant(f"{divisor.name}_reciprocal", value))


def _fusion(r: Rewriter, node: Node, ends: dict[str, _End]) -> _Fusion | None:
    """Return how `node` becomes a step of a layer that it reads; None if it does not."""
    operands = r.operands(node)

    def is_open(value: Node, hosts: frozenset[str] = _SUMS) -> bool:
        """Whether a value is a layer's that nothing but `node` reads, so that it may vanish."""
        if value.op not in hosts or value.type != node.type:
            return False
        return read_once(r.graph, ends[value.name].node.name)

    if node.op in UNARY and is_open(operands[0], _HOSTS):
        row = UNARY[node.op].attributes
        arguments = (getattr(node.attributes, name) for name in row.__dataclass_fields__)
        layer = operands[0]
        earlier = [s.name for s in _attributes(layer).epilogue if not s.takes_operand]
        if not is_small([*earlier, node.op]):
            return None
        return _Fusion(layer, Step(node.op, tuple(map(float, arguments))))
    if node.op in ("add", "mul") and operands[0] is not operands[1]:
        # The layer that runs last finds the other operand ready, and in cache.
        hosts = _SUMS if node.op == "add" else _PRODUCTS
        pairs = [(a, b) for a, b in (operands, operands[::-1]) if is_open(a, hosts)]
        if pairs:
            layer, other = max(pairs, key=lambda pair: ends[pair[0].name].position)
            return _addition(r, layer, other) if node.op == "add" else _Fusion(layer, _MUL, other)
    if node.op == "div" and is_open(operands[0], _PRODUCTS):
        return _quotient(r, *operands)
    return None


def fuse_epilogue(graph: Graph) -> Graph:
    """Return the graph with biases, residuals and activations in the epilogue of the layer before them.

    Layers are conv, conv_transpose, dense and matmul; group_norm takes functions alone. A bias is added per channel, a residual has the
    type of the result. A matmul's channels are its last axis, its residuals broadcast, and it takes factors, too.

    A fused layer keeps its name, by which users know it, and stands where the last fused node stood. Of two layers that are added,
    the one that runs last takes the other as its residual.

    Rewrite:
        %c = conv(%x, %w);  %a = add(%c, %b);  %z = add(%a, %r);  %o = relu(%z)
        -->
        %b_vector = reshape(%b) {shape = [4]};  %c = conv(%x, %w, %b_vector, %r) {epilogue = [bias, add, relu]}

        %m = matmul(%q, %k);  %s = mul(%m, %f);  %y = add(%s, %mask)
        -->
        %m = matmul(%q, %k, %f, %mask) {epilogue = [mul, add]}
    Unless:
        a value in between has another user or is a graph output; the added operand is neither per channel nor of the result's
        type; the epilogue would hold so many functions that its code explodes, see `epilogue.is_small`.
    """
    r = Rewriter(graph)
    ends: dict[str, _End] = {}
    for position, node in enumerate(graph.nodes):
        end = _End(node, position)
        fusion = _fusion(r, node, ends)
        if fusion is None:
            r.keep(node)
            ends[node.name] = end
            continue
        layer = fusion.layer
        a = _attributes(layer)
        extras = [] if fusion.operand is None else [fusion.operand]
        operands = [*(r.written[i] for i in layer.inputs), *extras]
        r.remove(layer.name)
        r.add(layer.name, layer.op, operands, replace(a, epilogue=(*a.epilogue, fusion.step)))
        r.forward(node, layer.name)
        ends[layer.name] = end
    return r.finish()
