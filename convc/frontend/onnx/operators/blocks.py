"""DepthToSpace and SpaceToDepth -> reshape, transpose, reshape."""

from __future__ import annotations

from typing import Final

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.ir.ops.shape import ReshapeAttributes, TransposeAttributes
from convc.ir.types import Shape

__all__ = ["ROWS"]


def _through(node: OperatorNode, split: Shape, perm: Shape, joined: Shape) -> str:
    parts = node.step("reshape", [node.value()], ReshapeAttributes(split))
    moved = node.step("transpose", [parts], TransposeAttributes(perm))
    return node.emit("reshape", [moved], ReshapeAttributes(joined))


def _read(node: OperatorNode) -> tuple[Shape, int, str]:
    block = node.attributes.integer("blocksize")
    mode = node.attributes.text("mode", "DCR", ("DCR", "CRD"))
    shape = node.type().shape
    if len(shape) != 4 or block < 1:
        raise InvalidModelError(
            f"{node.op_type} must have data (N, C, H, W) and a positive blocksize; got {node.type()} and {block}."
        )
    return shape, block, mode


def depth_to_space(node: OperatorNode) -> str:
    """Write DepthToSpace; DCR: the channel's leading digits are the place in the block, CRD: its trailing ones.

    Source:
        ONNX DepthToSpace-13.
    """
    (n, c, h, w), b, mode = _read(node)
    if c % (b * b):
        raise InvalidModelError(
            f"DepthToSpace blocksize must divide the channels by its square; got {b} for {node.type()}."
        )
    rest = c // (b * b)
    joined = (n, rest, h * b, w * b)
    if mode == "DCR":
        return _through(node, (n, b, b, rest, h, w), (0, 3, 4, 1, 5, 2), joined)
    return _through(node, (n, rest, b, b, h, w), (0, 1, 4, 2, 5, 3), joined)


def space_to_depth(node: OperatorNode) -> str:
    """Write SpaceToDepth, the inverse of DepthToSpace.

    Source:
        ONNX SpaceToDepth-28 (`mode`; DCR before).
    """
    (n, c, h, w), b, mode = _read(node)
    if h % b or w % b:
        raise InvalidModelError(
            f"SpaceToDepth blocksize must divide height and width; got {b} for {node.type()}."
        )
    split, joined = (n, c, h // b, b, w // b, b), (n, c * b * b, h // b, w // b)
    return _through(
        node, split, (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4), joined
    )


ROWS: Final = (
    Converter("DepthToSpace", (1, 11, 13, 28), depth_to_space),
    Converter("SpaceToDepth", (1, 13, 28), space_to_depth),
)
