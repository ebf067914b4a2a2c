"""Operators on sequences of tensors, all done at import; see `convc.frontend.onnx.sequences`."""

from __future__ import annotations

from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.control import stack
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.frontend.onnx.sequences import SequenceValue
from convc.ir.ops.definition import Array
from convc.ir.ops.shape import ConcatAttributes, ReshapeAttributes, SliceAttributes

__all__ = ["ROWS"]


def construct(node: OperatorNode) -> SequenceValue:
    """SequenceConstruct: of all operands."""
    return SequenceValue(tuple(node.operand(i) for i in range(len(node.inputs))))


def empty(node: OperatorNode) -> SequenceValue:
    """SequenceEmpty; the type of what will be in it is that of what is put in."""
    node.attributes.ignore("dtype")
    return SequenceValue(())


def _place(node: OperatorNode, count: int) -> int:
    """Return which of `count` places the second operand says, the last one by default, counted from the front."""
    place = int(node.constant_scalar(1)) if node.has(1) else -1
    if not -count <= place < count:
        raise InvalidModelError(
            f"{node.op_type} position must be in [{-count}, {count}); got {place}."
        )
    return place % count


def insert(node: OperatorNode) -> SequenceValue:
    """SequenceInsert: before a place, at the end by default."""
    had = node.sequence(0)
    place = count = len(had)
    if node.has(2):
        place = int(node.constant_scalar(2))
        if not -count <= place <= count:
            raise InvalidModelError(f"SequenceInsert position must be in [{-count}, {count}]; got {place}.")  # fmt: skip
        place += count if place < 0 else 0
    return SequenceValue((*had[:place], node.operand(1), *had[place:]))


def erase(node: OperatorNode) -> SequenceValue:
    """SequenceErase: the last one by default."""
    had = node.sequence(0)
    place = _place(node, len(had))
    return SequenceValue((*had[:place], *had[place + 1 :]))


def at(node: OperatorNode) -> str | Array:
    """SequenceAt."""
    had = node.sequence(0)
    return had[_place(node, len(had))]


def length(node: OperatorNode) -> Array:
    """SequenceLength."""
    return np.asarray(len(node.sequence(0)), np.int64)


def split_to_sequence(node: OperatorNode) -> SequenceValue:
    """SplitToSequence: by sizes, by one size (the last one is what is left), or in single ones, whose axis goes if keepdims is 0."""
    shape = node.type().shape
    a = node.attributes
    (axis,) = normalized_axes(node, (a.integer("axis", 0),), len(shape))
    keep = a.flag("keepdims", True) or node.has(1)
    extent = shape[axis]
    if not node.has(1):
        sizes = (1,) * extent
    elif node.type(1).rank:
        sizes = node.constant_integers(1)
    else:
        size = int(node.constant_scalar(1))
        if size < 1:
            raise InvalidModelError(f"SplitToSequence split must be 1 or more; got {size}.")
        sizes = tuple(min(size, extent - at) for at in range(0, extent, size))
    if sum(sizes) != extent or min(sizes, default=0) < 0:
        raise InvalidModelError(
            f"SplitToSequence sizes must add up to {extent}; got {list(sizes)} for {node.type()}."
        )
    ends = np.cumsum(sizes)
    parts = []
    for end, size in zip(ends.tolist(), sizes, strict=True):
        low = tuple(end - size if i == axis else 0 for i in range(len(shape)))
        high = tuple(end if i == axis else n for i, n in enumerate(shape))
        part = node.step("slice", [node.value()], SliceAttributes(low, high, (1,) * len(shape)))
        if not keep:
            part = node.step("reshape", [part], ReshapeAttributes((*shape[:axis], *shape[axis + 1 :])))  # fmt: skip
        parts.append(part)
    return SequenceValue(tuple(parts))


def concat_from_sequence(node: OperatorNode) -> str | Array:
    """ConcatFromSequence: along an axis, or a new one."""
    had = list(node.sequence(0))
    if not had:
        raise InvalidModelError("ConcatFromSequence must have a tensor or more; got an empty sequence.")  # fmt: skip
    a = node.attributes
    is_new = a.flag("new_axis", False)
    rank = (had[0].ndim if isinstance(had[0], np.ndarray) else node.step_type(had[0]).rank) + is_new
    (axis,) = normalized_axes(node, (a.integer("axis"),), rank)
    if is_new:
        return stack(node, had, axis)
    arrays = [v for v in had if isinstance(v, np.ndarray)]
    if len(arrays) == len(had) and len({(*v.shape[:axis], -1, *v.shape[axis + 1 :]) for v in arrays}) == 1:  # fmt: skip
        return np.concatenate(arrays, axis)
    return node.emit("concat", [node.as_value(v) for v in had], ConcatAttributes(axis))


NOTE: Final = "constant places"

ROWS: Final = (
    Converter("SequenceConstruct", (11,), construct),
    Converter("SequenceEmpty", (11,), empty),
    Converter("SequenceInsert", (11,), insert, NOTE),
    Converter("SequenceErase", (11,), erase, NOTE),
    Converter("SequenceAt", (11,), at, NOTE),
    Converter("SequenceLength", (11,), length),
    Converter("SplitToSequence", (11, 24), split_to_sequence, "constant sizes"),
    Converter("ConcatFromSequence", (11,), concat_from_sequence),
)
