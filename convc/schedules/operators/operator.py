"""Operator: how one op is computed, and in which memory orders.

Blocked tensors come as (N, C/b, H, W, b), plain ones in their own shape, so that H and W are axes 2 and 3 either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvm import te

from convc.ir.graph import Node
from convc.ir.types import TensorType

__all__ = ["Operator", "Tensors", "Types", "follow_images", "is_image"]


Types: TypeAlias = Sequence[TensorType]
Tensors: TypeAlias = Sequence[te.Tensor]


@dataclass(frozen=True, slots=True)
class Operator:
    """How one op is computed.

    Attributes:
        compute: (operand tensors, node, operand types, block) -> result; block 0 means plain tensors.
        follows: (node, operand types without literals, block) -> whether it works on operands in that block, leaves its result
            so, and makes zeros of the zeros beyond the last channel (elementwise ops need not).
    """

    compute: Callable[[Tensors, Node, Types, int], te.Tensor]
    follows: Callable[[Node, Types, int], bool] = lambda node, types, block: False


def is_image(types: Types) -> bool:
    """Return whether the first operand is (N, C, H, W)."""
    return bool(types) and types[0].is_image


def follow_images(node: Node, types: Types, block: int) -> bool:
    """Return whether an op that works on any image in any block has one."""
    return is_image(types)
