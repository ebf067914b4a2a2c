"""What a graph must satisfy to be compiled, beyond the rules of the IR."""

from __future__ import annotations

from typing import Final

from convc.errors import DTypeError, ShapeError
from convc.ir.graph import Graph
from convc.ir.types import SHORT_NAMES

__all__ = ["ELEMENT_TYPES", "check_graph"]

# TVM 0.27 turns bfloat16 into uint16 before it writes the checks of a kernel's arguments, so that every call would fail them.
ELEMENT_TYPES: Final = tuple(name for name in SHORT_NAMES if name != "bfloat16")


def check_graph(graph: Graph) -> None:
    """Check that every value is one that kernels can have.

    Raises:
        DTypeError: for an element type without kernels.
        ShapeError: for an input or output without elements.

    Example:
        >>> from convc.ir.text import parse
        >>> check_graph(parse("graph @g { %x = input : f16[2]  %y = relu(%x)  return %y }"))
    """
    for node in graph.nodes:
        if node.type.dtype not in ELEMENT_TYPES:
            raise DTypeError(
                f"value '{node.name}' must have an element type among {', '.join(ELEMENT_TYPES)} to be compiled; "
                f"got {node.type}."
            )
    ports = [("input", n.name, n.type) for n in graph.inputs]
    ports += [("output", o.name, graph[o.value].type) for o in graph.outputs]
    for kind, name, type in ports:
        if not type.size:
            raise ShapeError(f"{kind} '{name}' must have elements to be compiled; got {type}.")
