"""Transposes that run no code: a product reads its operand, or writes its result, with the axes of its memory in another order.

Rewrite:
    %h = transpose(%q) {perm = [0, 2, 1, 3]};  %t = transpose(%k) {perm = [0, 2, 3, 1]};  %s = matmul(%h, %t)
    -->
    %s = matmul(%q, strided, and %k, strided and packed by rows)
    %y = matmul(%p, %v);  %o = transpose(%y) {perm = [0, 2, 1, 3]}
    -->
    %y = matmul(%p, %v), written as %o
Unless:
    somebody else reads the value; the axis along which memory runs would not stay the last, or in right operands one of the matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from convc.ir.graph import CONSTANT, Graph, Node
from convc.lowering.products import product_of
from convc.schedules.backend import backend_of
from convc.schedules.layout import View
from convc.target import Target

__all__ = ["Turned"]


@dataclass(frozen=True, slots=True)
class Turned:
    """The transposes of a graph that run no code.

    Attributes:
        reads: those that products read, all their users.
        writes: product -> the one that alone reads it.
    """

    reads: Mapping[str, Node]
    writes: Mapping[str, Node]

    @staticmethod
    def of(graph: Graph, target: Target) -> Turned:
        """Return the transposes that a target's products take in."""
        if "dense_packing" not in backend_of(target).schedules:
            return Turned({}, {})
        transposes = [n for n in graph.compute_nodes if n.op == "transpose" and n.type.size]
        reads = {n.name: n for n in transposes if _is_read(graph, n, target)}
        writes = {}
        for node in transposes:
            product = graph[node.inputs[0]]
            alone = graph.users[product.name] == (node,) and product.name not in graph.output_values
            stays = _perm(node)[-1] == node.type.rank - 1
            if node.name not in reads and alone and stays and _is_product(graph, product, target):
                writes[product.name] = node
        return Turned(reads, writes)

    @property
    def skipped(self) -> frozenset[str]:
        """Nodes that are no steps."""
        return frozenset(self.reads) | {node.name for node in self.writes.values()}

    def source(self, value: str) -> str:
        """Return the value whose memory holds what a product reads."""
        return self.reads[value].inputs[0] if value in self.reads else value

    def read(self, value: str, view: View) -> View:
        """Return the view of an operand in the order of its axes, of its memory's plain view."""
        if value not in self.reads:
            return view
        perm = _perm(self.reads[value])
        shape, strides = (tuple(of[p] for p in perm) for of in (view.shape, view.strides))
        return replace(view, shape=shape, strides=strides)

    def written(self, product: str, view: View) -> View:
        """Return the view of a product's result in the order of its axes, of the plain view of what is written."""
        if product not in self.writes:
            return view
        perm = _perm(self.writes[product])
        at = [perm.index(axis) for axis in range(len(perm))]
        shape, strides = (tuple(of[i] for i in at) for of in (view.shape, view.strides))
        return replace(view, shape=shape, strides=strides)


def _perm(node: Node) -> tuple[int, ...]:
    attributes: Any = node.attributes
    return attributes.perm


def _is_product(graph: Graph, node: Node, target: Target) -> bool:
    return node.op == "matmul" and product_of(graph, node, target) is not None


def _is_read(graph: Graph, node: Node, target: Target) -> bool:
    users, rank = graph.users[node.name], node.type.rank
    if not users or node.name in graph.output_values or graph[node.inputs[0]].op == CONSTANT:
        return False
    last = _perm(node).index(rank - 1)
    for user in users:
        if not _is_product(graph, user, target) or node.name in user.inputs[2:]:
            return False
        as_data, as_weight = (user.inputs[i] == node.name for i in (0, 1))
        if (as_data and last != rank - 1) or (as_weight and last < rank - 2):
            return False
    return True
