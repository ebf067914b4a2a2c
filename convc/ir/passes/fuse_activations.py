"""Recognise activations that exporters write as several ops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.ir.graph import Graph, Node
from convc.ir.ops import Attributes
from convc.ir.ops.elementwise import ClipAttributes, HardSigmoidAttributes
from convc.ir.passes.rewrite import Rewriter, read_once
from convc.ir.passes.uniform import is_uniform, uniform_element
from convc.ir.types import numpy_dtype

__all__ = ["fuse_activations"]

_SIXTH: Final = 1 / 6
# Two roundings of the narrowest type that such a constant may have come from.
_NEAR: Final = {"float64": 2.0**-22, "float32": 2.0**-22, "float16": 2.0**-9, "bfloat16": 2.0**-6}


@dataclass(frozen=True, slots=True)
class _Activation:
    """An activation of `data`, and the nodes on the way to it: all but the last."""

    op: str
    data: Node
    between: tuple[Node, ...]
    attributes: Attributes | None = None


def _is_constant(node: Node, value: float) -> bool:
    """Whether a node is a constant with `value` throughout, as its element type writes it."""
    return is_uniform(node, np.asarray(value).astype(numpy_dtype(node.type.dtype)).item())


def _is_near(node: Node, value: float) -> bool:
    """Whether a node is a constant with `value` throughout, but for its last digits: exporters write 1.4142135 for a root of 2."""
    element = uniform_element(node)
    return element is not None and abs(float(element) / value - 1) < _NEAR[node.type.dtype]


def _either_way(r: Rewriter, node: Node) -> Iterator[tuple[Node, Node]]:
    a, b = r.operands(node)
    yield a, b
    yield b, a


def _gated_by(gate: Node) -> str | None:
    """Return the activation f with f(x) = x * gate(x)."""
    if gate.op == "sigmoid":
        return "silu"
    a = gate.attributes
    # Exporters write 1/6 as a float32.
    if (
        isinstance(a, HardSigmoidAttributes)
        and np.float32(a.alpha) == np.float32(_SIXTH)
        and a.beta == 0.5
    ):
        return "hard_swish"
    return None


def _gated(r: Rewriter, node: Node) -> _Activation | None:
    """Recognise x * gate(x)."""
    if node.op != "mul":
        return None
    for data, gate in _either_way(r, node):
        op = _gated_by(gate) if gate.inputs == (data.name,) else None
        if op is not None:
            return _Activation(op, data, (gate,))
    return None


def _ramp(r: Rewriter, node: Node) -> tuple[Node, tuple[Node, ...]] | None:
    """Return x and the nodes of clip(x + 3, 0, 6)."""
    if node.attributes != ClipAttributes(0.0, 6.0):
        return None
    (shifted,) = r.operands(node)
    if shifted.op != "add":
        return None
    for data, shift in _either_way(r, shifted):
        if _is_constant(shift, 3.0):
            return data, (shifted, node)
    return None


def _numerator(r: Rewriter, node: Node) -> Node | None:
    """Return v of v / 6 or v * (1/6)."""
    if node.op == "div":
        value, divisor = r.operands(node)
        return value if _is_constant(divisor, 6.0) else None
    if node.op == "mul":
        for value, factor in _either_way(r, node):
            if _is_constant(factor, _SIXTH):
                return value
    return None


def _sixth(r: Rewriter, node: Node) -> _Activation | None:
    """Recognise clip(x + 3, 0, 6) / 6 and x * clip(x + 3, 0, 6) / 6."""
    value = _numerator(r, node)
    if value is None:
        return None
    ramp = _ramp(r, value)
    if ramp is not None:
        return _Activation("hard_sigmoid", *ramp, HardSigmoidAttributes(_SIXTH, 0.5))
    if value.op == "mul":
        for data, gate in _either_way(r, value):
            ramp = _ramp(r, gate)
            if ramp is not None and ramp[0] is data:
                return _Activation("hard_swish", data, (*ramp[1], value))
    return None


def _halved(r: Rewriter, node: Node) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """Yield (a, b, the products on the way but for `node`) of every reading of a node as a * b / 2."""
    if node.op != "mul":
        return
    for value, other in _either_way(r, node):
        if _is_constant(other, 0.5) and value.op == "mul":
            for a, b in _either_way(r, value):
                yield a, (b, value)
        elif value.op == "mul":
            for a, half in _either_way(r, value):
                if _is_constant(half, 0.5):
                    yield a, (other, value)
                    yield other, (a, value)


def _erf_gate(r: Rewriter, gate: Node) -> tuple[Node, tuple[Node, ...]] | None:
    """Return x and the nodes of 1 + erf(x / sqrt 2)."""
    if gate.op != "add":
        return None
    for erf, one in _either_way(r, gate):
        if erf.op != "erf" or not _is_constant(one, 1.0):
            continue
        (scaled,) = r.operands(erf)
        if scaled.op == "div" and _is_near(r.operands(scaled)[1], math.sqrt(2)):
            return r.operands(scaled)[0], (scaled, erf, gate)
        if scaled.op == "mul":
            for data, factor in _either_way(r, scaled):
                if _is_near(factor, math.sqrt(0.5)):
                    return data, (scaled, erf, gate)
    return None


def _gelu(r: Rewriter, node: Node) -> _Activation | None:
    """Recognise x * (1 + erf(x / sqrt 2)) / 2."""
    for data, (gate, product) in _halved(r, node):
        found = _erf_gate(r, gate)
        if found is not None and found[0] is data:
            return _Activation("gelu", data, (*found[1], product))
    return None


def fuse_activations(graph: Graph) -> Graph:
    """Return the graph with silu, hard_sigmoid, hard_swish and gelu for the ops that exporters write in their place.

    x * sigmoid(x) is silu(x); clip(x + 3, 0, 6) / 6 is hard_sigmoid(x; 1/6, 1/2), and x times that is hard_swish(x), whether the
    sixth is taken before or after the product, and divided by 6 or multiplied by 1/6 as the element type rounds it;
    x * (1 + erf(x / sqrt 2)) / 2 is gelu(x).

    Rewrite:
        %s = sigmoid(%x);  %y = mul(%x, %s)
        -->
        %y = silu(%x)

        %three = constant splat(3.0) : f32[];  %six = constant splat(6.0) : f32[]
        %a = add(%x, %three);  %c = clip(%a) {min = 0.0, max = 6.0};  %m = mul(%x, %c);  %y = div(%m, %six)
        -->
        %y = hard_swish(%x)

        %root = constant splat(1.4142135) : f32[];  %one = constant splat(1.0) : f32[];  %half = constant splat(0.5) : f32[]
        %s = div(%x, %root);  %e = erf(%s);  %g = add(%e, %one);  %m = mul(%x, %g);  %y = mul(%m, %half)
        -->
        %y = gelu(%x)
    Unless:
        a value in between has another user or is a graph output.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        kept = r.keep(node)
        found = _gated(r, kept) or _sixth(r, kept) or _gelu(r, kept)
        if found is None or found.data.type != kept.type:
            continue
        between = [n.name for n in found.between]
        if not all(read_once(graph, n) for n in between):
            continue
        for name in (*between, node.name):
            r.remove(name)
        r.add(node.name, found.op, [found.data], found.attributes)
    return r.finish()
