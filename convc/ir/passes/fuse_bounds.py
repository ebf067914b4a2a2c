"""Recognise activations that exporters write as a maximum and a minimum with numbers."""

from __future__ import annotations

import math
from typing import Final

from convc.ir.graph import Graph, Node
from convc.ir.ops.elementwise import ClipAttributes, LeakyAttributes, NoAttributes
from convc.ir.passes.rewrite import Rewriter, read_once
from convc.ir.passes.uniform import uniform_element

__all__ = ["fuse_bounds"]

_BOUNDS: Final = frozenset({"maximum", "minimum"})
_RELU: Final = ClipAttributes(0.0)
_NOWHERE: Final = ClipAttributes()


def _clip(node: Node) -> ClipAttributes | None:
    """Return the bounds of an activation that does nothing but bound."""
    a = node.attributes
    if isinstance(a, ClipAttributes):
        return a
    return _RELU if node.op == "relu" else None


def _bounded(r: Rewriter, node: Node) -> tuple[Node, ClipAttributes] | None:
    """Return (data, bounds) of a maximum or minimum with one number."""
    operands = r.operands(node)
    for data, bound in (operands, operands[::-1]):
        element = uniform_element(bound)
        if element is None or data.type != node.type or math.isnan(element):
            continue
        number = float(element)
        found = ClipAttributes(min=number) if node.op == "maximum" else ClipAttributes(max=number)
        # A bound that nothing passes is an identity, which `remove_identities` drops.
        return None if found == _NOWHERE else (data, found)
    return None


def _slope(r: Rewriter, node: Node) -> tuple[Node, Node, float] | None:
    """Return (x, alpha x, alpha) of max(x, alpha x), alpha within (0, 1]: 0 times infinity is NaN, and so is its maximum."""
    operands = r.operands(node)
    for data, scaled in (operands, operands[::-1]):
        if node.op != "maximum" or scaled.op != "mul" or data.name not in scaled.inputs:
            continue
        other = next((i for i in scaled.inputs if i != data.name), data.name)
        alpha = uniform_element(r.written[other])
        if alpha is not None and 0 < alpha <= 1 and data.type == node.type:
            return data, scaled, float(alpha)
    return None


def fuse_bounds(graph: Graph) -> Graph:
    """Return the graph with relu, clip and leaky_relu for maxima and minima: TensorFlow's exporters write ReLU6 as two of them.

    A maximum with one number is relu(x) or clip(x; number, inf), a minimum clip(x; -inf, number), both one clip; max(x, alpha x) with alpha
    in (0, 1] is leaky_relu(x; alpha). All are exact; layers compute these functions in their own kernels.

    Rewrite:
        %zero = constant splat(0.0) : f32[];  %six = constant splat(6.0) : f32[]
        %a = maximum(%x, %zero);  %y = minimum(%a, %six)
        -->
        %y = clip(%x) {min = 0.0, max = 6.0}

        %tenth = constant splat(0.1) : f32[]
        %s = mul(%x, %tenth);  %y = maximum(%s, %x)
        -->
        %y = leaky_relu(%x) {alpha = 0.10000000149011612}
    Unless:
        the number varies, is NaN or makes the result larger; elements are no floats. Two become one where nothing else reads what is
        in between and the lower bound is not above the upper.
    """
    if not any(n.op in _BOUNDS for n in graph.nodes):
        return graph
    r = Rewriter(graph)
    for node in graph.nodes:
        kept = r.keep(node)
        if kept.op not in _BOUNDS or not kept.type.is_float:
            continue
        sloped = _slope(r, kept)
        if sloped is not None:
            data, scaled, alpha = sloped
            if read_once(graph, scaled.name):
                r.remove(scaled.name)
            r.add(node.name, "leaky_relu", [data], LeakyAttributes(alpha))
            continue
        found = _bounded(r, kept)
        if found is None:
            continue
        data, bounds = found
        inner = _clip(data)
        if inner is not None and read_once(graph, data.name):
            both = ClipAttributes(max(inner.min, bounds.min), min(inner.max, bounds.max))
            if both.min <= both.max:
                r.remove(data.name)
                data, bounds = r.written[data.inputs[0]], both
        if bounds == _RELU:
            r.add(node.name, "relu", [data], NoAttributes())
        else:
            r.add(node.name, "clip", [data], bounds)
    return r.finish()
