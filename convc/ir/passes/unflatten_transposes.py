"""Transpose images as images, where exporters flatten them to tokens first."""

from __future__ import annotations

from typing import Final

from convc.ir.graph import Graph, Node
from convc.ir.ops.shape import ReshapeAttributes, TransposeAttributes
from convc.ir.passes.rewrite import Rewriter
from convc.ir.types import Shape

__all__ = ["unflatten_transposes"]

# Between (N, C, points) and tokens (N, points, C), either way.
_TOKENS: Final = (0, 2, 1)


def _is_tokens(node: Node) -> bool:
    a = node.attributes
    return isinstance(a, TransposeAttributes) and a.perm == _TOKENS


def _spatial(image: Shape, flat: Shape) -> Shape | None:
    """Return the spatial axes of an image of which `flat` is (N, C, points); None if it is not."""
    whole = len(image) in (4, 5) and len(flat) == 3 and image[:2] == flat[:2]
    return image[2:] if whole and 0 not in image else None


def _last(r: Rewriter, node: Node, flat: Node) -> bool:
    """Write tokens of a flattened image as the image, channels last, flattened; return whether they are."""
    if flat.op != "reshape":
        return False
    (image,) = r.operands(flat)
    spatial = _spatial(image.type.shape, flat.type.shape)
    if spatial is None:
        return False
    perm = (0, *range(2, image.type.rank), 1)
    turned = r.add(r.unique(f"{node.name}_image"), "transpose", [image], TransposeAttributes(perm))
    r.add(node.name, "reshape", [turned], ReshapeAttributes(node.type.shape))
    return True


def _first(r: Rewriter, node: Node, turned: Node) -> bool:
    """Write an image that is made of tokens as the tokens in rows, channels brought first; return whether it is."""
    if not _is_tokens(turned) or len(r.graph.users[turned.name]) != 1:
        return False
    spatial = _spatial(node.type.shape, turned.type.shape)
    if spatial is None or turned.name in r.graph.output_values:
        return False
    (tokens,) = r.operands(turned)
    shape = (node.type.shape[0], *spatial, node.type.shape[1])
    rows = r.add(r.unique(f"{node.name}_rows"), "reshape", [tokens], ReshapeAttributes(shape))
    perm = (0, node.type.rank - 1, *range(1, node.type.rank - 1))
    r.add(node.name, "transpose", [rows], TransposeAttributes(perm))
    return True


def unflatten_transposes(graph: Graph) -> Graph:
    """Return the graph with transposes of images where it had transposes of flattened ones.

    Networks with attention read images as rows of tokens, and convolve tokens as images. What is an image on both sides moves between
    blocks of channels and channels last in whole vectors.

    Rewrite:
        %f = reshape(%x) {shape = [1, 3, 16]};  %y = transpose(%f) {perm = [0, 2, 1]}
        -->
        %y_image = transpose(%x) {perm = [0, 2, 3, 1]};  %y = reshape(%y_image) {shape = [1, 16, 3]}

        %f = transpose(%t) {perm = [0, 2, 1]};  %y = reshape(%f) {shape = [1, 3, 4, 4]}
        -->
        %y_rows = reshape(%t) {shape = [1, 4, 4, 3]};  %y = transpose(%y_rows) {perm = [0, 3, 1, 2]}
    Unless:
        batch or channels are no axes of their own; the second's transpose has another user or is a graph output.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        operands = r.operands(node)
        found = (_is_tokens(node) and _last(r, node, operands[0])) or (
            node.op == "reshape" and _first(r, node, operands[0])
        )
        if not found:
            r.keep(node)
    return r.finish()
