"""Which operators take a value whose size is data (see `counted`), and which axis of their result is as large as it.

Behind what is there lies nothing of meaning. So an operator takes such a value only if every row of its result comes from one row of the
operand: then the result has as many. Those that look along the axis (a sum, a Softmax, Shape) are refused, each by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from convc.frontend.onnx.converter import Value
from convc.frontend.onnx.counted import Counted, CountedValue
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.types import Shape

__all__ = ["check_operator", "counted_result"]

# (node, which operand, its counted axis, the result's shape) -> the result's axis; None if rows do not stay rows.
Rule: TypeAlias = "Callable[[OperatorNode, int, int, Shape], int | None]"


def _elementwise(node: OperatorNode, index: int, axis: int, result: Shape) -> int | None:
    """Broadcasting counts axes from the end; what is joined must be one row, or as many rows."""
    place = axis + len(result) - node.type(index).rank
    for other in range(len(node.inputs)):
        if other == index or not node.has(other) or node.is_counted(other):
            continue
        at = place - len(result) + node.type(other).rank
        if at >= 0 and node.type(other).shape[at] != 1:
            return None
    return place


def _gather(node: OperatorNode, index: int, axis: int, result: Shape) -> int | None:
    (along,) = normalized_axes(node, (node.attributes.integer("axis", 0),), node.type(0).rank)
    if index == 1:
        return along + axis
    if axis == along:
        return None
    return axis if axis < along else axis + node.type(1).rank - 1


def _gather_nd(node: OperatorNode, index: int, axis: int, result: Shape) -> int | None:
    rows = index == 1 and axis < node.type(1).rank - 1
    return axis if rows and not node.attributes.integer("batch_dims", 0) else None


def _reshape(node: OperatorNode, index: int, axis: int, result: Shape) -> int | None:
    """The axis stays one, with as much before it; an extent of 1 could be any axis of 1."""
    shape = node.type(0).shape
    if index or shape[axis] == 1:
        return None
    before = math.prod(shape[:axis])
    found = (
        i for i, n in enumerate(result) if n == shape[axis] and math.prod(result[:i]) == before
    )
    return next(found, None)


def _transpose(node: OperatorNode, index: int, axis: int, result: Shape) -> int | None:
    perm = node.attributes.integers("perm", tuple(reversed(range(len(result)))))
    return list(perm).index(axis)


def _along_another(node: OperatorNode, index: int, axis: int, result: Shape) -> int | None:
    """Concat and Split: not along the axis; what is joined must all have as many rows."""
    (along,) = normalized_axes(node, (node.attributes.integer("axis", 0),), len(result))
    operands = [i for i in range(len(node.inputs)) if node.has(i)]
    same = node.op_type == "Split" or all(node.is_counted(i) for i in operands)
    return axis if same and along != axis else None


def _slice(node: OperatorNode, index: int, axis: int, result: Shape) -> int | None:
    rank = node.type(0).rank
    if index or node.version < 10:
        return None
    axes = node.constant_integers(3) if node.has(3) else range(len(node.constant_integers(1)))
    return axis if axis not in normalized_axes(node, tuple(axes), rank) else None


def _matmul(node: OperatorNode, index: int, axis: int, result: Shape) -> int | None:
    rank = node.type(0).rank
    return axis if not index and rank == node.type(1).rank == 2 and not axis else None


_ELEMENTWISE: Final = (
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Erf", "Exp", "Floor", "Greater", "GreaterOrEqual",
    "HardSigmoid", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow",
    "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sqrt", "Sub", "Tanh", "Where", "Xor",
)  # fmt: skip
_RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), _reshape),
    **dict.fromkeys(("Concat", "Split"), _along_another),
    "Gather": _gather,
    "GatherND": _gather_nd,
    "MatMul": _matmul,
    "Slice": _slice,
    "Transpose": _transpose,
}


def counted_result(
    node: OperatorNode,
    counted: Mapping[int, Counted],
    result: Value,
) -> CountedValue:
    """Return a result and how much of it is there.

    Args:
        node: what was converted.
        counted: its operands of which only a part is there.
        result: what the converter answered.

    Raises:
        Unsupported: if the operator does not compute row by row.
    """
    rule = _RULES.get(node.op_type) if isinstance(result, str) else None
    found = set[Counted]()
    for index, (axis, count) in counted.items():
        place = rule(node, index, axis, node.step_type(str(result)).shape) if rule else None
        if place is None:
            raise _refusal(node, index, axis)
        found.add(Counted(place, count))
    if len(found) > 1:
        names = ", ".join(f"'{node.inputs[i]}'" for i in counted)
        raise Unsupported(f"{names} have sizes that are known at run time only, each its own")
    return CountedValue(str(result), found.pop())


def check_operator(node: OperatorNode, counted: Mapping[int, Counted]) -> None:
    """Raise Unsupported if the operator takes no value whose size is data, however it is used."""
    if node.op_type not in _RULES:
        for index, (axis, _) in counted.items():
            raise _refusal(node, index, axis)


def _refusal(node: OperatorNode, index: int, axis: int) -> Unsupported:
    return Unsupported(
        f"the size of '{node.inputs[index]}' is known at run time only, and axis {axis} does not pass through"
    )
