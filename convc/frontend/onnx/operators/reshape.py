"""Operators that give the same elements another shape or order, or nothing at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.definition import Array
from convc.ir.ops.shape import ReshapeAttributes, TransposeAttributes
from convc.ir.types import Shape

__all__ = ["ROWS", "axes_operand", "normalized_axes"]


def normalized_axes(node: OperatorNode, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Return axes counted from the front, in the given order, each in range and once."""
    result = tuple(a + rank if a < 0 else a for a in axes)
    if any(not 0 <= a < rank for a in result) or len(set(result)) != len(result):
        raise InvalidModelError(
            f"{node.op_type} axes must be distinct and in [{-rank}, {rank}); got {list(axes)} for {node.type()}."
        )
    return result


def axes_operand(node: OperatorNode, since_input: int) -> tuple[int, ...] | None:
    """Return axes from the attribute (versions before `since_input`) or from input 1; None if they are left out."""
    if node.version < since_input:
        return node.attributes.integers("axes") if "axes" in node.attributes else None
    return node.constant_integers(1) if node.has(1) else None


def _reshaped(node: OperatorNode, shape: Shape) -> str:
    return node.emit("reshape", [node.value()], ReshapeAttributes(shape))


def reshape(node: OperatorNode) -> str:
    """Write Reshape: 0 copies the data's extent (unless allowzero), one -1 takes the rest."""
    allow_zero = node.attributes.flag("allowzero", False)
    data, wanted = node.type(), list(node.constant_integers(1))
    if not allow_zero:
        if any(n == 0 and i >= data.rank for i, n in enumerate(wanted)):
            raise InvalidModelError(
                f"Reshape must copy (0) only extents that the data has; got {wanted} for {data}."
            )
        wanted = [data.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    if wanted.count(-1) > 1 or min(wanted, default=0) < -1:
        raise InvalidModelError(f"Reshape must have one -1 at most; got {wanted} for {data}.")
    if -1 in wanted:
        rest = -math.prod(wanted)
        if rest == 0 or data.size % rest:
            raise InvalidModelError(
                f"Reshape must have extents that divide {data.size} elements; got {wanted} for {data}."
            )
        wanted[wanted.index(-1)] = data.size // rest
    return _reshaped(node, tuple(wanted))


def flatten(node: OperatorNode) -> str:
    """Write Flatten: a matrix (axes before `axis`) x (the others)."""
    axis, shape = node.attributes.integer("axis", 1), node.type().shape
    rank = len(shape)
    if not -rank <= axis <= rank:
        raise InvalidModelError(
            f"Flatten axis must be in [{-rank}, {rank}]; got {axis} for {node.type()}."
        )
    axis = axis + rank if axis < 0 else axis
    return _reshaped(node, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def squeeze(node: OperatorNode) -> str:
    """Write Squeeze: drop the given extents of 1, or all of them."""
    shape, axes = node.type().shape, axes_operand(node, 13)
    if axes is None:
        return _reshaped(node, tuple(n for n in shape if n != 1))
    dropped = normalized_axes(node, axes, len(shape))
    if any(shape[a] != 1 for a in dropped):
        raise InvalidModelError(
            f"Squeeze must drop extents of 1; got axes {list(axes)} for {node.type()}."
        )
    return _reshaped(node, tuple(n for i, n in enumerate(shape) if i not in dropped))


def unsqueeze(node: OperatorNode) -> str:
    """Write Unsqueeze: extents of 1 at the given axes of the result."""
    axes = axes_operand(node, 13)
    if axes is None:
        raise InvalidModelError("Unsqueeze must have axes; they are missing.")
    rest = list(node.type().shape)
    rank = len(rest) + len(axes)
    added = normalized_axes(node, axes, rank)
    return _reshaped(node, tuple(1 if i in added else rest.pop(0) for i in range(rank)))


def transpose(node: OperatorNode) -> str:
    """Write Transpose; all axes reversed by default."""
    rank = node.type().rank
    perm = node.attributes.integers("perm", tuple(reversed(range(rank))))
    return node.emit("transpose", [node.value()], TransposeAttributes(perm))


def identity(node: OperatorNode) -> str | Array:
    """Pass the value on, without a node."""
    return node.constant(0) if node.is_constant(0) else node.value()


def dropout(node: OperatorNode) -> Result:
    """Pass the value on: at inference nothing is dropped. The mask keeps everything."""
    if node.version < 12:
        node.attributes.ignore("ratio")
        return identity(node)
    node.attributes.ignore("seed")
    if node.has(2) and node.constant_scalar(2):
        raise Unsupported("training_mode=1 (only 0)")
    return identity(node), np.broadcast_to(np.True_, node.type().shape)


RESHAPED: Final = (13, 21, 23, 24, 25)

ROWS: Final = (
    Converter(
        "Reshape",
        (5, 13, 14, 19, 21, 23, 24, 25),
        reshape,
        "constant shape",
        folds=True,
        narrow="moves",
    ),
    Converter("Flatten", (1, 9, 11, *RESHAPED), flatten, folds=True, narrow="moves"),
    Converter("Squeeze", (1, 11, *RESHAPED), squeeze, "constant axes", folds=True, narrow="moves"),
    Converter(
        "Unsqueeze", (1, 11, *RESHAPED), unsqueeze, "constant axes", folds=True, narrow="moves"
    ),
    Converter("Transpose", (1, *RESHAPED), transpose, folds=True, narrow="moves"),
    Converter("Identity", (1, 13, 14, 16, 19, 21, 23, 24, 25), identity, narrow="moves"),
    Converter("Dropout", (7, 10, 12, 13, 22), dropout, "inference"),
)
