"""Group normalisation; on CPUs by a schedule of its own."""

from __future__ import annotations

from typing import Any, Final

from tvm import te

from convc.ir.graph import Node
from convc.schedules import group_norm
from convc.schedules.operators.operator import OpAlgorithm, Operator, Tensors, Types
from convc.schedules.operators.single import in_single
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["ROWS"]

_PARALLEL_ELEMENTS: Final = 16 << 10


def _follows(node: Node, types: Types, block: int) -> bool:
    return True


def _compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    x, scale, bias = tensors
    return group_norm.compute(
        x, scale, bias, types[0].shape, a.groups, a.epsilon, a.epilogue, block
    )


def _by_chunks(tensors: Tensors, node: Node, types: Types, block: int, target: Target) -> te.Tensor:
    return _compute(tensors, node, types, block)


def _knobs(node: Node, types: Types, target: Target) -> Knobs:
    return {"parallel": int(types[0].size >= _PARALLEL_ELEMENTS), "lanes": target.lanes}


_CHUNKS: Final = OpAlgorithm("chunks", "group_norm", _by_chunks, _knobs, follows=_follows)

ROWS: Final = {"group_norm": in_single(Operator(_compute, _follows, (_CHUNKS,)))}
