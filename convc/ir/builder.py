"""GraphBuilder: append nodes, get a graph. The DSL and the importer both end here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from convc.errors import ShapeError, VerifyError
from convc.ir.graph import Graph, Node, Output, constant, placeholder
from convc.ir.ops import Attributes
from convc.ir.ops.definition import Array
from convc.ir.types import TensorType

__all__ = ["GraphBuilder"]

# More than the memory of any machine; what plans and times kernels is not made for extents that overflow.
GREATEST_BYTES: Final = 1 << 40


class GraphBuilder:
    """An append-only tape of nodes; every call infers and checks shapes at once.

    Example:
        >>> from convc.ir.types import TensorType
        >>> b = GraphBuilder("g")
        >>> x = b.input("x", TensorType((1, 3, 8, 8)))
        >>> [(o.name, o.value) for o in b.finish({"y": b.add("relu", [x])}).outputs]
        [('y', 'relu')]
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: dict[str, Node] = {}
        self._suffix: dict[str, int] = {}

    def unique(self, stem: str) -> str:
        """Return `stem`, or `stem_1`, `stem_2` ... if it is taken."""
        name = stem
        while name in self._nodes:
            self._suffix[stem] = self._suffix.get(stem, 0) + 1
            name = f"{stem}_{self._suffix[stem]}"
        return name

    def _append(self, node: Node) -> str:
        if node.name in self._nodes:
            raise VerifyError(f"value %{node.name} must have one definition; it has two.")
        if node.type.nbytes >= GREATEST_BYTES:
            raise ShapeError(
                f"value %{node.name} must have less than {GREATEST_BYTES >> 40} TiB; got {node.type}."
            )
        self._nodes[node.name] = node
        return node.name

    def input(self, name: str, type: TensorType, batch: str = "") -> str:
        """Add a graph input; its name is kept as it is. `batch`: its leading axis is a symbolic dimension; see `ir.batch`."""
        return self._append(placeholder(name, type, batch))

    def constant(self, value: Array, name: str = "constant") -> str:
        """Add a constant; the array is not copied."""
        return self._append(constant(self.unique(name), np.asarray(value)))

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        attributes: Attributes | None = None,
        name: str | None = None,
    ) -> str:
        """Add one op and return its value's name.

        Raises:
            ShapeError, DTypeError: if the op does not take these operands.
        """
        operands = [(i, self._nodes[i].type) for i in inputs]
        return self._append(Node.of(self.unique(name or op), op, operands, attributes))

    def type(self, value: str) -> TensorType:
        """Return the type of a value."""
        return self._nodes[value].type

    def node(self, value: str) -> Node:
        """Return the node that defines a value."""
        return self._nodes[value]

    def finish(
        self, outputs: dict[str, str], counts: Mapping[str, tuple[str, int]] | None = None
    ) -> Graph:
        """Return the verified graph.

        Args:
            outputs: public name -> value.
            counts: public name -> (public name of the output that counts it, axis), where the size is data; see `Output`.
        """
        results = []
        for name, value in outputs.items():
            count, axis = (counts or {}).get(name, ("", 0))
            results.append(Output(name, value, count, axis))
        graph = Graph(self.name, tuple(self._nodes.values()), tuple(results))
        graph.verify()
        return graph
