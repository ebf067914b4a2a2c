"""Graph -> text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from convc.ir.graph import CONSTANT, INPUT, ConstantAttributes, Graph, Node, Output
from convc.ir.ops import Attributes
from convc.ir.text.elements import print_element
from convc.ir.text.fields import attribute_fields

__all__ = [
    "DENSE_LIMIT",
    "constant_form",
    "print_attributes",
    "print_graph",
    "print_node",
    "quoted",
]

# A dense constant stays on one readable line: the 16 lanes of one vector, the longest list in a test.
DENSE_LIMIT: Final = 16

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def _listed(values: Sequence[object]) -> str:
    return f"[{', '.join(map(str, values))}]"


_VALUE: Final[dict[str, Callable[[Any], str]]] = {
    "int": str,
    "float": repr,
    "bool": lambda value: "true" if value else "false",
    "str": lambda value: json.dumps(value, ensure_ascii=False),
    "ints": _listed,
    "floats": lambda values: _listed([repr(v) for v in values]),
    "steps": _listed,
}


def quoted(name: str) -> str:
    """Return a name as it stands after `%` or `@`.

    Example:
        >>> quoted("conv_1"), quoted("gpu_0/data")
        ('conv_1', '"gpu_0/data"')
    """
    return name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def constant_form(node: Node) -> Literal["splat", "dense", "ref"]:
    """Return how a constant is written."""
    attributes = node.attributes
    if isinstance(attributes, ConstantAttributes) and attributes.is_splat:
        return "splat"
    return "dense" if node.type.size <= DENSE_LIMIT else "ref"


def _constant(node: Node, weights: str) -> str:
    form = constant_form(node)
    if form == "ref":
        return f"ref({json.dumps(weights)}, {json.dumps(node.name, ensure_ascii=False)})"
    if form == "splat":
        return f"splat({print_element(node.value[(0,) * node.type.rank])})"
    return f"dense({_listed([print_element(e.reshape(())) for e in node.value.reshape(-1, 1)])})"


def print_attributes(attributes: Attributes) -> str:
    """Return what stands behind the operands: ` {kernel = [2, 2]}`, "" where all are at their defaults."""
    written = [
        f"{field.name} = {_VALUE[field.kind](getattr(attributes, field.name))}"
        for field in attribute_fields(type(attributes))
        if field.is_required or getattr(attributes, field.name) != field.default
    ]
    return f" {{{', '.join(written)}}}" if written else ""


def print_node(node: Node, *, weights: str = "weights.npz") -> str:
    """Return one node's line, without indentation.

    Example:
        >>> from convc.ir.graph import Node
        >>> from convc.ir.types import TensorType
        >>> print_node(Node.of("y", "relu", [("x", TensorType((2, 3)))]))
        '%y = relu(%x) : f32[2,3]'
    """
    if node.op == INPUT:
        body = INPUT + print_attributes(node.attributes)
    elif node.op == CONSTANT:
        body = f"{CONSTANT} {_constant(node, weights)}"
    else:
        operands = ", ".join(f"%{quoted(i)}" for i in node.inputs)
        body = f"{node.op}({operands}){print_attributes(node.attributes)}"
    return f"%{quoted(node.name)} = {body} : {node.type}"


def _output(output: Output) -> str:
    public = json.dumps(output.name, ensure_ascii=False)
    alias = "" if output.name == output.value else f" as {public}"
    count = json.dumps(output.count, ensure_ascii=False)
    counted = f" counted {count} on {output.axis}" if output.count else ""
    return f"%{quoted(output.value)}{alias}{counted}"


def print_graph(graph: Graph, *, weights: str = "weights.npz") -> str:
    """Return the graph's text; large constants refer to the file `weights`, which is not written.

    Same graph, same text.
    """
    lines = [f"  {print_node(node, weights=weights)}" for node in graph.nodes]
    returned = ", ".join(map(_output, graph.outputs))
    return "\n".join([f"graph @{quoted(graph.name)} {{", *lines, f"  return {returned}", "}", ""])
