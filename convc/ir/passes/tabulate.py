"""A function of one byte is a table: what stands between two roundings, element by element, is looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops import OPS
from convc.ir.ops.definition import Array
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.quantized_ends import alone
from convc.ir.passes.rewrite import Rewriter

__all__ = ["tabulate"]

_BYTES: Final = np.arange(256, dtype=np.uint8)

# Enough for a SiLU whose parts are rounded; only what is small is worth walking through for every quantize node.
_MOST_NODES: Final = 24


class _Function:
    """A value as a function of one value of bytes, walked through backwards."""

    def __init__(self, r: Rewriter) -> None:
        self.r = r
        self.source: Node | None = None
        self._values: dict[str, Array] = {}
        self._walked = 0

    def of(self, node: Node) -> Array | None:
        """Return the value for each of the 256 bytes that the source may be; None if it depends on more, or on none."""
        if node.name not in self._values:
            value = self._computed(node)
            if value is None:
                return None
            self._values[node.name] = value
        return self._values[node.name]

    def _computed(self, node: Node) -> Array | None:
        if node.op == CONSTANT:
            return np.asarray(node.value).reshape(()) if node.type.size == 1 else None
        # On the way down, where no value is known yet: a chain without an end is not followed either.
        self._walked += 1
        if self._walked > _MOST_NODES:
            return None
        operands = [self.r.written[name] for name in node.inputs]
        if node.op == "lookup":
            return self._looked_up(*operands)
        if node.op == "dequantize" and operands[0].op not in ("lookup", CONSTANT):
            operands, first = operands[1:], self._begins(operands[0])
        elif node.op in OPS and OPS[node.op].elementwise:
            first = []
        else:
            return None
        if first is None:
            return None
        arrays: list[Array] = list(first)
        for operand in operands:
            array = self.of(operand)
            # Values of a constant, stored as bytes or not, are a single one.
            if array is None or (array.ndim and operand.type.shape != node.type.shape):
                return None
            arrays.append(array)
        # As the oracle has them: floats as float64.
        wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
        return np.asarray(OPS[node.op].reference(wide, node.attributes))

    def _begins(self, data: Node) -> list[Array] | None:
        if data.type.dtype != "uint8" or data.op == CONSTANT:
            return None
        if self.source is not None and self.source.name != data.name:
            return None
        self.source = data
        return [_BYTES]

    def _looked_up(self, data: Node, table: Node) -> Array | None:
        begins = self._begins(data)
        return None if begins is None else np.asarray(table.value)


def _table(r: Rewriter, value: Node, end: Node) -> tuple[Node, Array] | None:
    """Return (source, table) of a value rounded as `end`, a quantize node, rounds."""
    function = _Function(r)
    floats = function.of(value)
    if floats is None or function.source is None:
        return None
    constants = [np.asarray(r.written[r.resolve(i)].value, np.float64) for i in end.inputs[1:]]
    if any(c.size != 1 for c in constants):
        return None
    operands = [np.broadcast_to(floats, 256), *(c.reshape(()) for c in constants)]
    return function.source, OPS["quantize"].reference(operands, end.attributes)


def tabulate(graph: Graph) -> Graph:
    """Return the graph with functions of one value of bytes as lookups, also behind a concatenation of such.

    Rewrite:
        %a = dequantize(%x, %sx, %zx);  %b = silu(%a);  %y = quantize(%b, %sy, %zy)
        -->
        %y = lookup(%x, %table)
    And:
        %a = dequantize(%u, %su, %zu);  %b = dequantize(%v, %sv, %zv);  %c = concat(%a, %b);  %y = quantize(%c, %sy, %zy)
        -->
        %a = lookup(%u, %table0);  %b = lookup(%v, %table1);  %y = concat(%a, %b)
    Unless:
        a scale is not one constant, an operand has another shape, the bytes are int8.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        constants = [graph[i].op == CONSTANT for i in node.inputs[1:]]
        if node.op != "quantize" or node.type.dtype != "uint8" or not all(constants):
            r.keep(node)
            continue
        value = r.written[r.resolve(node.inputs[0])]
        inner = graph[node.inputs[0]]
        joined = inner.op == "concat" and alone(graph, inner, node)
        parts = r.operands(inner) if joined else [value]
        tables = [_table(r, part, node) for part in parts]
        if not _wanted(tables):
            r.keep(node)
            continue
        made = [_lookup(r, node, *table) for table in tables if table is not None]
        if joined:
            r.remove(inner.name)
            made = [r.add(inner.name, "concat", made, inner.attributes)]
        r.forward(node, made[0].name)
    return eliminate_dead_nodes(r.finish())


def _wanted(tables: Sequence[tuple[Node, Array] | None]) -> bool:
    return bool(tables) and all(table is not None for table in tables)


def _lookup(r: Rewriter, node: Node, source: Node, table: Array) -> Node:
    if np.array_equal(table, _BYTES):
        return source
    stored = r.constant(f"{node.name}_table", table)
    return r.add(r.unique(f"{node.name}_lookup"), "lookup", [source, stored])
