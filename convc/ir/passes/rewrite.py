"""Rewriter: one walk over an immutable graph that writes the next one.

A pass walks `graph.nodes` in order and for each node either keeps it, appends others in its place, or forwards its value to
another one; operands and outputs follow by themselves. Every step is O(1), so a pass is linear in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from convc.ir.graph import Graph, Node, constant
from convc.ir.ops import Attributes
from convc.ir.ops.definition import Array

__all__ = ["Rewriter", "read_once"]


def read_once(graph: Graph, value: str) -> bool:
    """Return whether a value has one reader and is no output, so that it may vanish."""
    return len(graph.users[value]) == 1 and value not in graph.output_values


class Rewriter:
    """The graph being written.

    Example:
        >>> from convc.ir.text import parse, print_graph
        >>> graph = parse("graph @g { %x = input : f32[2]  %y = abs(%x)  %z = relu(%y)  return %z }")
        >>> r = Rewriter(graph)
        >>> for node in graph.nodes:
        ...     _ = r.forward(node, "x") if node.op == "abs" else r.keep(node)
        >>> print(print_graph(r.finish()), end="")
        graph @g {
          %x = input : f32[2]
          %z = relu(%x) : f32[2]
          return %z
        }
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.written: dict[str, Node] = {}
        self._forwarded: dict[str, str] = {}
        self._taken = {n.name for n in graph.nodes}
        self._changed = False

    def resolve(self, value: str) -> str:
        """Return the new graph's name of one of the old graph's values."""
        return self._forwarded.get(value, value)

    def operands(self, node: Node) -> list[Node]:
        """Return the new graph's definitions of an old node's operands."""
        return [self.written[self.resolve(i)] for i in node.inputs]

    def keep(self, node: Node) -> Node:
        """Append an old node, reading its operands' new values."""
        inputs = tuple(map(self.resolve, node.inputs))
        kept = node if inputs == node.inputs else replace(node, inputs=inputs)
        self.written[node.name] = kept
        return kept

    def forward(self, node: Node, value: str) -> None:
        """Drop an old node: its users read `value`, which is already in the new graph."""
        self._forwarded[node.name] = value
        self._changed = True

    def add(
        self, name: str, op: str, operands: Sequence[Node], attributes: Attributes | None = None
    ) -> Node:
        """Append a new node; `name` is the value it replaces, or comes from `unique`."""
        self._changed = True
        node = Node.of(name, op, [(o.name, o.type) for o in operands], attributes)
        self.written[name] = node
        return node

    def constant(self, stem: str, value: Array) -> Node:
        """Append a constant called after `stem`."""
        return self.replace(constant(self.unique(stem), value))

    def replace(self, node: Node) -> Node:
        """Append a node that is complete already."""
        self._changed = True
        self.written[node.name] = node
        return node

    def remove(self, value: str) -> None:
        """Take back a node that a later one has absorbed."""
        del self.written[value]
        self._changed = True

    def unique(self, stem: str) -> str:
        """Return `stem`, or `stem_1`, `stem_2` ... whichever neither graph uses."""
        name, count = stem, 0
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name

    def finish(self) -> Graph:
        """Return the new graph, or the old one if nothing changed."""
        if not self._changed:
            return self.graph
        outputs = [replace(o, value=self.resolve(o.value)) for o in self.graph.outputs]
        return self.graph.with_nodes(self.written.values(), outputs)
