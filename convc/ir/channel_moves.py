"""Moves of channels: ops each of whose result's channels is a channel of some operand, unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from convc.ir.graph import Node
from convc.ir.ops.shape import ConcatAttributes, PickChannelsAttributes, SliceAttributes
from convc.ir.types import TensorType

__all__ = ["Picks", "picks_of"]

# Of every channel of the result, the operand and the operand's channel.
Picks: TypeAlias = tuple[tuple[int, int], ...]


def picks_of(node: Node, types: Sequence[TensorType]) -> Picks | None:
    """Return where each channel of a node's result comes from; None if it does anything but move channels of images.

    Args:
        node: any.
        types: of its operands.

    Example:
        >>> from convc.ir.text import parse
        >>> g = parse("graph @g { %x = input : f32[1,2,4,4]  %y = input : f32[1,1,4,4]  %z = concat(%x, %y) {axis = 1}  return %z }")
        >>> picks_of(g["z"], [g["x"].type, g["y"].type])
        ((0, 0), (0, 1), (1, 0))
    """
    if not types or not all(t.is_image for t in types):
        return None
    match node.attributes:
        case ConcatAttributes(axis=1):
            return tuple((i, c) for i, t in enumerate(types) for c in range(t.shape[1]))
        case PickChannelsAttributes(operands=operands, channels=channels):
            return tuple(zip(operands, channels, strict=True))
        case SliceAttributes(begins=begins, ends=ends, steps=steps):
            batch, _, *rest = types[0].shape
            if (*begins[:1], *begins[2:]) != (0,) * (len(rest) + 1):
                return None
            if (*ends[:1], *ends[2:]) != (batch, *rest) or {*steps[:1], *steps[2:]} != {1}:
                return None
            return tuple((0, c) for c in range(begins[1], ends[1], steps[1]))
    return None
