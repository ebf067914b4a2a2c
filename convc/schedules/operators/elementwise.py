"""Scalar functions of one or two operands."""

from __future__ import annotations

from typing import Final

from tvm import te

from convc.ir.graph import Node
from convc.schedules import scalar
from convc.schedules.operators.operator import Operator, Tensors, Types, follow_images
from convc.schedules.scalar_pairs import BINARY

__all__ = ["ROWS"]


def _unary(name: str) -> Operator:
    def compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
        fields = type(node.attributes).__dataclass_fields__
        arguments = [getattr(node.attributes, field) for field in fields]
        return scalar.UNARY[name](tensors[0], *arguments)

    return Operator(compute, follow_images)


def _broadcasts_in_blocks(node: Node, types: Types, block: int) -> bool:
    """Whether all operands are images with all channels: then blocks broadcast like channels."""
    result = node.type
    return result.is_image and all(
        t.rank == result.rank and t.shape[1] == result.shape[1] for t in types
    )


def _binary(name: str) -> Operator:
    def compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
        return BINARY[name](*tensors)

    return Operator(compute, _broadcasts_in_blocks)


ROWS: Final[dict[str, Operator]] = {
    **{name: _unary(name) for name in scalar.UNARY},
    **{name: _binary(name) for name in BINARY},
}
