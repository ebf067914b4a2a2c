"""Slices that run no code: what they name lies in their operand's memory as they are read.

Rewrite:
    %g = dense(%h, %r);  %z = slice(%g) {begins = [0, 256], ends = [1, 512]}      plain: bytes in a row, from a multiple of 64 on
    %a = slice(%x) {begins = [0, 32, 0, 0], ends = [1, 64, 28, 28]}               in blocks: whole blocks of channels of whole images
    -->
    %z and %a are views of what %g and %x are
Unless:
    the operand lies in another order; more channels than are taken would share the last block.
"""

from __future__ import annotations

import math

from convc.ir.graph import Graph, Node
from convc.ir.ops.shape import SliceAttributes
from convc.ir.types import numpy_dtype
from convc.schedules.layout import ALIGNMENT

__all__ = ["first_byte", "first_channel"]


def first_byte(graph: Graph, node: Node) -> int | None:
    """Return where a slice's elements begin in its plain operand, in bytes; None if they are no run of bytes that kernels can read.

    Example:
        >>> from convc.ir.text import parse
        >>> cut = "%y = slice(%x) {begins = [2, 0, 16], ends = [3, 1, 48], steps = [1, 1, 1]}"
        >>> g = parse(f"graph @g {{ %x = input : f32[4,1,48]  {cut}  return %y }}")
        >>> first_byte(g, g["y"])
        448
    """
    a = node.attributes
    if not isinstance(a, SliceAttributes) or set(a.steps) != {1} or not node.type.size:
        return None
    source, taken = graph[node.inputs[0]].type.shape, node.type.shape
    inner = next((i for i, n in enumerate(taken) if n > 1), len(taken))
    if taken[inner + 1 :] != source[inner + 1 :]:
        return None
    element = sum(b * math.prod(source[i + 1 :]) for i, b in enumerate(a.begins))
    first = element * numpy_dtype(node.type.dtype).itemsize
    return None if first % ALIGNMENT else first


def first_channel(graph: Graph, node: Node, block: int) -> int | None:
    """Return the channel at which a slice begins in its operand, if it is whole blocks of channels of whole images; else None.

    Example:
        >>> from convc.ir.text import parse
        >>> cut = "%y = slice(%x) {begins = [0, 16, 0, 0], ends = [1, 40, 4, 4], steps = [1, 1, 1, 1]}"
        >>> g = parse(f"graph @g {{ %x = input : f32[1,40,4,4]  {cut}  return %y }}")
        >>> first_channel(g, g["y"], 16)
        16
    """
    a, source = node.attributes, graph[node.inputs[0]].type if node.inputs else None
    if not isinstance(a, SliceAttributes) or source is None or not source.is_image:
        return None
    begin, end, whole = a.begins[1], a.ends[1], source.shape[1]
    if not block or set(a.steps) != {1} or begin % block or (end % block and end != whole):
        return None
    others = (node.type.shape[:1], node.type.shape[2:])
    return begin if others == (source.shape[:1], source.shape[2:]) and end > begin else None
