"""Which images lie in larger ones: operands of concatenations along channels, which are written there, and slices of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convc.ir.graph import Graph, Node
from convc.lowering.partition import Unit
from convc.lowering.parts import first_channel

__all__ = ["Home", "homes_of", "joins_blocks"]


@dataclass(frozen=True, slots=True)
class Home:
    """A value that lies in an image of more channels: an operand that is written straight into it, or a slice.

    Attributes:
        image: the value that it is a part of, itself in no other.
        channel: where it begins there.
        by: the concatenation that wants it there, and as which operand; of a slice itself.
    """

    image: str
    channel: int
    by: tuple[str, int]


def joins_blocks(graph: Graph, node: Node, block: int) -> bool:
    """Whether the node puts images of whole blocks of channels one behind the other, so that each may be written in its place."""
    if node.op != "concat" or not block or not node.type.is_image:
        return False
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    return axis == 1 and all(n.type.shape[1] % block == 0 for n in graph.operands(node))


def homes_of(
    graph: Graph, units: Sequence[Unit], block: Mapping[str, int], written: Mapping[str, int]
) -> dict[str, Home]:
    """Return which values lie in which images: the last concatenation of a chain holds all its operands, a slice lies in its own."""
    homes: dict[str, Home] = {}
    slices = {}
    for unit in units:
        node = unit.result
        begin = first_channel(graph, node, block[node.name])
        if begin is not None and written[node.inputs[0]] == block[node.name]:
            slices[node.name] = begin
    for unit in reversed(units):
        node = unit.result
        b = block[node.name]
        if not joins_blocks(graph, node, b):
            continue
        outer = homes.get(node.name)
        begin = outer.channel if outer else 0
        for index, operand in enumerate(node.inputs):
            # A value has one home; inputs, constants and values in another block must be copied.
            if operand not in homes and operand not in slices and block.get(operand) == b:
                image = outer.image if outer else node.name
                homes[operand] = Home(image, begin, (node.name, index))
            begin += graph[operand].type.shape[1]
    for name, begin in slices.items():
        source = graph[name].inputs[0]
        outer = homes.get(source, Home(source, 0, ("", 0)))
        homes[name] = Home(outer.image, outer.channel + begin, (name, 0))
    return homes
