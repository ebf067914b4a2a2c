"""Pictures of a graph: Graphviz's language, and an SVG that needs no other program. Constants are not drawn."""

from __future__ import annotations

import json
from html import escape
from typing import Final

import networkx as nx

from convc.ir.graph import CONSTANT, INPUT, Graph, Node

__all__ = ["to_dot", "to_svg"]

_WIDTH: Final = 190
_HEIGHT: Final = 44
_GAP: Final = 26
_COLOURS: Final = {INPUT: "#dbeafe", "output": "#dcfce7", "other": "#f3f4f6"}


def _drawn(graph: Graph) -> nx.DiGraph:
    drawing = nx.DiGraph()
    for node in graph.nodes:
        if node.op == CONSTANT:
            continue
        drawing.add_node(node.name)
        drawing.add_edges_from((i, node.name) for i in node.inputs if graph[i].op != CONSTANT)
    for output in graph.outputs:
        # A name of its own: values and outputs may be called alike.
        if graph[output.value].op != CONSTANT:
            drawing.add_edge(output.value, f"return {output.name}")
    return drawing


def _lines(graph: Graph, name: str) -> tuple[str, str, str]:
    """Return title, details and colour of a box."""
    node: Node | None = graph.by_name.get(name)
    if node is None:
        return name, "", _COLOURS["output"]
    title = node.name if node.op == INPUT else f"{node.name} = {node.op}"
    return title, str(node.type), _COLOURS.get(node.op, _COLOURS["other"])


def to_dot(graph: Graph) -> str:
    r"""Return the graph in the language of Graphviz, inputs on top.

    Example:
        >>> from convc.ir.text import parse
        >>> print(to_dot(parse("graph @g { %x = input : f32[2]  %y = relu(%x)  return %y }")), end="")
        digraph "g" {
          node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=10]
          "x" [label="x\nf32[2]", fillcolor="#dbeafe"]
          "y" [label="y = relu\nf32[2]", fillcolor="#f3f4f6"]
          "return y" [label="return y", fillcolor="#dcfce7"]
          "x" -> "y"
          "y" -> "return y"
        }
    """
    drawing = _drawn(graph)
    lines = [f"digraph {json.dumps(graph.name)} {{"]
    lines.append('  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=10]')
    for name in drawing:
        title, details, colour = _lines(graph, name)
        label = json.dumps("\n".join(filter(None, (title, details))))
        lines.append(f'  {json.dumps(name)} [label={label}, fillcolor="{colour}"]')
    lines += [f"  {json.dumps(a)} -> {json.dumps(b)}" for a, b in drawing.edges]
    return "\n".join([*lines, "}", ""])


def to_svg(graph: Graph) -> str:
    """Return an SVG drawing: one row per distance from the inputs.

    Example:
        >>> from convc.ir.text import parse
        >>> svg = to_svg(parse("graph @g { %x = input : f32[2]  %y = relu(%x)  return %y }"))
        >>> svg.startswith("<svg"), svg.count("<rect"), svg.count("<path")
        (True, 3, 2)
    """
    drawing = _drawn(graph)
    rows = [list(row) for row in nx.topological_generations(drawing)]
    widest = max(map(len, rows), default=1)
    wide = widest * (_WIDTH + _GAP) + _GAP
    high = len(rows) * (_HEIGHT + _GAP) + _GAP
    corner = {}
    for y, row in enumerate(rows):
        begin = (wide - len(row) * (_WIDTH + _GAP) + _GAP) / 2
        for x, name in enumerate(row):
            corner[name] = (begin + x * (_WIDTH + _GAP), _GAP + y * (_HEIGHT + _GAP))
    font = 'font-family="Helvetica, sans-serif" font-size="11" text-anchor="middle"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" {font}>',
    ]
    for a, b in drawing.edges:
        (x1, y1), (x2, y2) = corner[a], corner[b]
        begin, end = (x1 + _WIDTH / 2, y1 + _HEIGHT), (x2 + _WIDTH / 2, y2)
        bend = f"{begin[0]:g} {begin[1] + _GAP:g} {end[0]:g} {end[1] - _GAP:g}"
        parts.append(
            f'<path d="M {begin[0]:g} {begin[1]:g} C {bend} {end[0]:g} {end[1]:g}" fill="none" stroke="#9ca3af"/>'
        )
    for name, (x, y) in corner.items():
        title, details, colour = _lines(graph, name)
        middle = x + _WIDTH / 2
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{colour}" stroke="#6b7280"/>'
            f'<text x="{middle:g}" y="{y + 19:g}">{escape(title)}</text>'
            f'<text x="{middle:g}" y="{y + 34:g}" fill="#6b7280">{escape(details)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
