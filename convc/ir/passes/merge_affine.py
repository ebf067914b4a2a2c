"""Merge a chain of scales and shifts that no layer takes (BatchNormalization before an activation) into one of each."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from convc.ir.graph import Graph, Node
from convc.ir.ops.definition import Array
from convc.ir.passes.affine import IDENTITY, Affine, follow, is_finite
from convc.ir.passes.rewrite import Rewriter, read_once
from convc.ir.passes.uniform import splat
from convc.ir.types import TensorType, numpy_dtype

__all__ = ["merge_affine"]


@dataclass(frozen=True, slots=True)
class _Chain:
    """Nodes that scale and shift `data` one after the other, and what all of them do, rounded to its element type."""

    data: Node
    steps: tuple[Node, ...]
    scale: Array
    shift: Array

    @property
    def scales(self) -> bool:
        return bool((self.scale != 1).any())

    @property
    def shifts(self) -> bool:
        return bool((self.shift != 0).any())

    @property
    def saves_a_node(self) -> bool:
        return self.scales + self.shifts < len(self.steps)


def _rounded(affine: Affine, type: TensorType) -> tuple[Array, Array] | None:
    """Return scale and shift in the element type; None if one overflows, or a scale loses digits to underflow."""
    dtype = numpy_dtype(type.dtype)
    scale, shift = affine.scale.astype(dtype), affine.shift.astype(dtype)
    if not is_finite(scale) or not is_finite(shift):
        return None
    smallest = float(ml_dtypes.finfo(dtype).smallest_normal)
    is_exact = (affine.scale == 0) | (np.abs(affine.scale) >= smallest)
    return (scale, shift) if is_exact.all() else None


def _chain_on(graph: Graph, data: Node, first: Node) -> _Chain | None:
    """Return the longest chain from `data` through `first` whose scale and shift its element type can hold."""
    affine, value, node, steps = IDENTITY, data, first, []
    held, length = None, 0
    while (longer := follow(graph, affine, value, node)) is not None:
        # Beyond float64's range nothing comes back; beyond a smaller type's range a later step may lead back.
        if not is_finite(longer.scale) or not is_finite(longer.shift):
            break
        steps.append(node)
        rounded = _rounded(longer, node.type)
        if rounded is not None:
            held, length = rounded, len(steps)
        if not read_once(graph, node.name):
            break
        affine, value, node = longer, node, graph.users[node.name][0]
    return None if held is None else _Chain(data, tuple(steps[:length]), *held)


def _chain(graph: Graph, first: Node) -> _Chain | None:
    """Return the chain that starts with this node; None if it neither scales nor shifts by a constant."""
    if not first.type.is_float or not first.type.size:
        return None
    chains = (_chain_on(graph, data, first) for data in graph.operands(first)[:2])
    return next((chain for chain in chains if chain is not None), None)


def _write(r: Rewriter, chain: _Chain) -> None:
    last = chain.steps[-1]
    value = r.written[r.resolve(chain.data.name)]

    def constant(stem: str, array: Array) -> Node:
        if (array == array[0]).all():
            return r.constant(stem, splat(array[:1], ()))
        return r.constant(stem, array.reshape(1, -1, *(1,) * (last.type.rank - 2)))

    if chain.scales:
        name = r.unique(f"{last.name}_product") if chain.shifts else last.name
        value = r.add(name, "mul", [value, constant(f"{last.name}_scale", chain.scale)])
    if chain.shifts:
        value = r.add(last.name, "add", [value, constant(f"{last.name}_shift", chain.shift)])
    if value.name != last.name:
        r.forward(last, value.name)


def merge_affine(graph: Graph) -> Graph:
    """Return the graph with at most one mul and one add for mul, div, add and sub by constants that follow each other.

    Constants are scalars or per channel, along axis 1. Their products and sums are float64 and rounded once; what then scales by
    one or shifts by zero vanishes. Runs after `fold_channel_affine`, which needs neither mul nor add.

    Rewrite:
        %s = constant dense([2.0, 4.0]) : f32[2,1,1];  %t = constant dense([1.0, 3.0]) : f32[1,2,1,1]
        %h = constant splat(0.5) : f32[];  %k = constant splat(8.0) : f32[]
        %a = mul(%x, %s);  %b = add(%a, %t);  %c = div(%b, %h);  %d = sub(%c, %k);  %y = relu(%d)
        -->
        %d_scale = constant dense([4.0, 8.0]) : f32[1,2,1,1];  %d_product = mul(%x, %d_scale)
        %d_shift = constant dense([-6.0, -2.0]) : f32[1,2,1,1];  %d = add(%d_product, %d_shift);  %y = relu(%d)
    Unless:
        an intermediate value has another user or is a graph output; a constant would overflow, or underflow.
    """
    r = Rewriter(graph)
    chains: dict[str, _Chain] = {}
    absorbed: set[str] = set()
    visited: set[str] = set()
    for node in graph.nodes:
        if node.name not in visited:
            # 0/0 and overflow give what is not finite, and that is not merged.
            with np.errstate(all="ignore"):
                chain = _chain(graph, node)
            if chain is not None:
                names = [n.name for n in chain.steps]
                visited.update(names)
                if chain.saves_a_node:
                    chains[names[-1]] = chain
                    absorbed.update(names)
        if node.name in chains:
            _write(r, chains[node.name])
        elif node.name not in absorbed:
            r.keep(node)
    return r.finish()
