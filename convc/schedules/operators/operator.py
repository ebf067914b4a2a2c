"""Operator: how one op is computed, and in which memory orders; and the other ways to compute it that some backends have.

Blocked tensors come as (N, C/b, H, W, b), plain ones in their own shape, so that H and W are axes 2 and 3 either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvm import te

from convc.ir.graph import Node
from convc.ir.types import TensorType
from convc.schedules.plan import Knobs, Unsupported
from convc.target import Target

__all__ = ["OpAlgorithm", "Operator", "Tensors", "Types", "follow_images", "is_image"]


Types: TypeAlias = Sequence[TensorType]
Tensors: TypeAlias = Sequence[te.Tensor]


@dataclass(frozen=True, slots=True)
class OpAlgorithm:
    """Another way to compute an op than its row's own, for backends that have a schedule for it.

    Attributes:
        name: as pins, plans and reports have it.
        schedule: key of the backend's schedules.
        compute: (operand tensors, node, operand types, block, target) -> result.
        knobs: (node, operand types, target) -> the schedule's knobs.
        supports: (node, operand types) -> why not, or None.
        follows: as `Operator.follows`.
        on_request: what is said where nobody has asked for it; "" if it goes before the op's own wherever it applies.
        differs: where its result may be another one than the op's: then only a pin on the node takes it.
    """

    name: str
    schedule: str
    compute: Callable[[Tensors, Node, Types, int, Target], te.Tensor]
    knobs: Callable[[Node, Types, Target], Knobs] = lambda node, types, target: {}
    supports: Callable[[Node, Types], Unsupported | None] = lambda node, types: None
    follows: Callable[[Node, Types, int], bool] = lambda node, types, block: False
    on_request: str = ""
    differs: str = ""


@dataclass(frozen=True, slots=True)
class Operator:
    """How one op is computed.

    Attributes:
        compute: (operand tensors, node, operand types, block) -> result; block 0 means plain tensors.
        follows: (node, operand types without literals, block) -> whether it works on operands in that block, leaves its result
            so, and makes zeros of the zeros beyond the last channel (elementwise ops need not).
        algorithms: other ways, see `schedules.op_choice`.
        tables: operands from this position on are no images: constants that are read as they are in whatever block.
    """

    compute: Callable[[Tensors, Node, Types, int], te.Tensor]
    follows: Callable[[Node, Types, int], bool] = lambda node, types, block: False
    algorithms: tuple[OpAlgorithm, ...] = ()
    tables: int | None = None


def is_image(types: Types) -> bool:
    """Return whether the first operand is (N, C, H, W)."""
    return bool(types) and types[0].is_image


def follow_images(node: Node, types: Types, block: int) -> bool:
    """Return whether an op that works on any image in any block has one."""
    return is_image(types)
