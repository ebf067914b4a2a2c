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
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["Operator", "Special", "Tensors", "Types", "follow_images", "is_image"]


Types: TypeAlias = Sequence[TensorType]
Tensors: TypeAlias = Sequence[te.Tensor]


@dataclass(frozen=True, slots=True)
class Special:
    """A second way to compute an op, for backends that have a schedule of its own for it.

    Attributes:
        schedule: key of the backend's schedules.
        compute: (operand tensors, node, operand types, target) -> result, of plain tensors.
        knobs: (node, operand types, target) -> the schedule's knobs.
    """

    schedule: str
    compute: Callable[[Tensors, Node, Types, Target], te.Tensor]
    knobs: Callable[[Node, Types, Target], Knobs]


@dataclass(frozen=True, slots=True)
class Operator:
    """How one op is computed.

    Attributes:
        compute: (operand tensors, node, operand types, block) -> result; block 0 means plain tensors.
        follows: (node, operand types without literals, block) -> whether it works on operands in that block, leaves its result
            so, and makes zeros of the zeros beyond the last channel (elementwise ops need not).
        special: how backends that have a schedule for it compute it instead.
    """

    compute: Callable[[Tensors, Node, Types, int], te.Tensor]
    follows: Callable[[Node, Types, int], bool] = lambda node, types, block: False
    special: Special | None = None


def is_image(types: Types) -> bool:
    """Return whether the first operand is (N, C, H, W)."""
    return bool(types) and types[0].is_image


def follow_images(node: Node, types: Types, block: int) -> bool:
    """Return whether an op that works on any image in any block has one."""
    return is_image(types)
