"""Write concatenations in terms of values that hold several of their operands already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convc.ir.graph import Graph
from convc.ir.ops.shape import ConcatAttributes, SliceAttributes
from convc.ir.passes.rewrite import Rewriter

__all__ = ["nest_concats"]


def nest_concats(graph: Graph) -> Graph:
    """Return the graph with concatenations of fewer, larger operands, so that each element is written to one place.

    DenseNet concatenates all earlier results anew before every layer: 532 copies, 3 % of DenseNet-121's time (one thread of a Zen 4),
    where one image holds them all and each layer reads the front of it. YOLOv8 splits a value and concatenates its parts again.

    Rewrite:
        %c = concat(%a, %b) {axis = 1};  %u = relu(%c);  %d = concat(%a, %b, %u) {axis = 1}
        -->
        %c = concat(%a, %b) {axis = 1};  %u = relu(%c);  %d = concat(%c, %u) {axis = 1}

        %p = slice(%a) {begins = [0, 0, 0, 0], ends = [1, 3, 2, 2], steps = [1, 1, 1, 1]}
        %q = slice(%a) {begins = [0, 3, 0, 0], ends = [1, 4, 2, 2], steps = [1, 1, 1, 1]};  %d = concat(%p, %q, %b) {axis = 1}
        -->
        %d = concat(%a, %b) {axis = 1}
    Unless:
        the earlier concatenation is along another axis, or its operands are not next to each other.
    """
    r = Rewriter(graph)
    # (Axis, first operand) -> earlier concatenations that begin with it: all their operands, in each way that they are known.
    earlier: dict[tuple[int, str], list[tuple[list[str], str]]] = {}
    for node in graph.nodes:
        if not isinstance(node.attributes, ConcatAttributes):
            r.keep(node)
            continue
        axis = node.attributes.axis
        whole = _whole(graph, node.inputs, axis)
        operands = _joined(earlier, whole, axis)
        if len(operands) == 1:
            r.forward(node, r.resolve(operands[0]))
            continue
        for known in (whole, operands):
            earlier.setdefault((axis, known[0]), []).append((known, node.name))
        if operands == list(node.inputs):
            r.keep(node)
        else:
            written = [r.written[r.resolve(name)] for name in operands]
            r.add(node.name, "concat", written, node.attributes)
    return r.finish()


def _whole(graph: Graph, names: Sequence[str], axis: int) -> list[str]:
    """Return the operands with a value in the place of slices that are all of it, one behind the other."""
    found: list[str] = []
    at = 0
    while at < len(names):
        source, end = _slices(graph, names[at:], axis)
        found.append(source or names[at])
        at += end or 1
    return found


def _slices(graph: Graph, names: Sequence[str], axis: int) -> tuple[str, int]:
    """Return (the value that the first operands are all of, how many they are); ("", 0) if there is none."""
    source, reached = "", 0
    for count, name in enumerate(names, 1):
        node = graph[name]
        a = node.attributes
        if not isinstance(a, SliceAttributes) or set(a.steps) != {1}:
            break
        whole = graph[node.inputs[0]].type.shape
        others = [i for i in range(len(whole)) if i != axis]
        if (source and node.inputs[0] != source) or a.begins[axis] != reached:
            break
        if any(a.begins[i] or a.ends[i] != whole[i] for i in others):
            break
        source, reached = node.inputs[0], a.ends[axis]
        if reached == whole[axis]:
            return source, count
    return "", 0


def _joined(
    earlier: Mapping[tuple[int, str], Sequence[tuple[list[str], str]]], names: list[str], axis: int
) -> list[str]:
    """Return the operands with the longest earlier concatenations in place of theirs."""
    found: list[str] = []
    at = 0
    while at < len(names):
        count, name = 1, names[at]
        for known, held in earlier.get((axis, names[at]), ()):
            if len(known) > count and known == names[at : at + len(known)]:
                count, name = len(known), held
        found.append(name)
        at += count
    return found
