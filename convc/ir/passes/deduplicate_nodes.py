"""Compute equal things once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

import numpy as np

from convc.ir.graph import INPUT, ConstantAttributes, Graph
from convc.ir.passes.rewrite import Rewriter
from convc.ir.types import TensorType

__all__ = ["deduplicate_nodes"]

_COMMUTATIVE: Final = frozenset({"add", "mul", "maximum", "minimum"})

# How many elements, evenly spaced, tell most constants apart before their whole contents are hashed.
_SAMPLES: Final = 64


def _sample(type: TensorType, attributes: ConstantAttributes) -> Hashable:
    """Return a key that equal constants share and that is cheap to compute."""
    value = attributes.value
    if attributes.is_splat:
        return type, "splat", value[(0,) * value.ndim].tobytes()
    flat = np.linspace(0, max(value.size - 1, 0), min(_SAMPLES, value.size), dtype=np.int64)
    return type, "array", value[np.unravel_index(flat, value.shape)].tobytes()


class _Constants:
    """Constants seen so far; contents are hashed only where samples agree."""

    def __init__(self) -> None:
        self._first: dict[Hashable, tuple[str, ConstantAttributes]] = {}
        self._by_digest: dict[Hashable, str] = {}

    def representative(self, name: str, type: TensorType, attributes: ConstantAttributes) -> str:
        """Return the name of the first constant equal to this one: `name` itself, if there was none."""
        sample = _sample(type, attributes)
        first, contents = self._first.setdefault(sample, (name, attributes))
        if first == name or attributes.is_splat:
            return first
        self._by_digest.setdefault((sample, contents.digest), first)
        return self._by_digest.setdefault((sample, attributes.digest), name)


def deduplicate_nodes(graph: Graph) -> Graph:
    """Return the graph with one node for all of one op, operands and attributes.

    Constants are equal if their contents are.

    Inputs stay distinct, and outputs keep their names: two outputs may end up returning one value.

    Rewrite:
        %a = relu(%x);  %b = relu(%x);  %y = add(%a, %b)
        -->
        %a = relu(%x);  %y = add(%a, %a)
    """
    r = Rewriter(graph)
    constants = _Constants()
    seen: dict[Hashable, str] = {}
    for node in graph.nodes:
        if node.op == INPUT:
            r.keep(node)
            continue
        if isinstance(node.attributes, ConstantAttributes):
            first = constants.representative(node.name, node.type, node.attributes)
        else:
            inputs = map(r.resolve, node.inputs)
            operands = tuple(sorted(inputs) if node.op in _COMMUTATIVE else inputs)
            first = seen.setdefault((node.op, operands, node.attributes, node.type), node.name)
        if first == node.name:
            r.keep(node)
        else:
            r.forward(node, first)
    return r.finish()
