"""If, Loop and Scan: bodies are written into the graph, as often as they run.

A condition that is known at import takes one branch; one known at run time computes both, and Where chooses. A loop must have a trip
count that is known at import.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.operator_node import Operand, OperatorNode
from convc.frontend.onnx.operators.gather import take
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.frontend.onnx.refusal import Unsupported
from convc.frontend.onnx.sequences import SequenceValue
from convc.ir.ops.definition import Array
from convc.ir.ops.shape import ConcatAttributes, ReshapeAttributes

__all__ = ["ROWS", "stack"]


def if_(node: OperatorNode) -> Result:
    """Write If."""
    if node.is_constant(0):
        if node.is_open and any(origin is not None for origin in node.origins(0)):
            raise Unsupported(
                "a condition that follows from an open height or width (give height and width numbers, and compile once for each size)"
            )
        taken = "then_branch" if bool(node.constant(0).reshape(-1)[0]) else "else_branch"
        node.attributes.ignore("then_branch", "else_branch")
        return tuple(node.body(taken, []))
    condition = node.step("reshape", [node.value(0)], ReshapeAttributes(()))
    both = [[node.as_value(v) for v in node.body(n, [])] for n in ("then_branch", "else_branch")]
    results = []
    for index, (a, b) in enumerate(zip(*both, strict=True)):
        if node.step_type(a) != node.step_type(b):
            raise Unsupported(
                f"branches give {node.step_type(a)} and {node.step_type(b)} under a condition known at run time"
            )
        results.append(node.emit("where", [condition, a, b], output=index))
    return tuple(results)


def _tensor(value: Operand) -> str | Array:
    """Return what a turn gives to be stacked."""
    if isinstance(value, SequenceValue):
        raise InvalidModelError("what a body collects must be tensors; got a sequence.")
    return value


def stack(node: OperatorNode, values: list[str | Array], axis: int = 0) -> str | Array:
    """Return values as slices along a new axis; arrays that do not fit together are refused as values of the graph are."""
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    if len(arrays) == len(values) and len({v.shape for v in arrays}) == 1:
        return np.stack(arrays, axis)
    parts = []
    for value in map(node.as_value, values):
        shape = list(node.step_type(value).shape)
        shape.insert(axis, 1)
        parts.append(node.step("reshape", [value], ReshapeAttributes(tuple(shape))))
    return node.step("concat", parts, ConcatAttributes(axis))


def loop(node: OperatorNode) -> Result:
    """Write Loop: inputs trip count, condition, carried values; outputs carried values, then what each turn collects."""
    body = node.attributes.graph("body")
    carried: list[Operand] = [node.argument(i) for i in range(2, len(node.inputs))]
    going = bool(node.constant(1).reshape(-1)[0]) if node.has(1) else True
    count = int(node.constant(0).reshape(-1)[0]) if node.has(0) else None
    collected: list[list[str | Array]] = [[] for _ in range(len(body.output) - 1 - len(carried))]
    turn = 0
    while going and (count is None or turn < count):
        first: list[Operand] = [np.asarray(turn, np.int64), np.asarray(True)]
        condition, *results = node.body("body", [*first, *carried])
        if not isinstance(condition, np.ndarray):
            raise Unsupported("a condition that is known at run time")
        going = bool(condition.reshape(-1)[0])
        carried, scanned = results[: len(carried)], results[len(carried) :]
        for row, value in zip(collected, scanned, strict=True):
            row.append(_tensor(value))
        turn += 1
    if collected and not turn:
        raise Unsupported("a loop that never runs and collects")
    return (*carried, *(stack(node, row) for row in collected))


def scan(node: OperatorNode) -> Result:
    """Write Scan (version 9 on): carried values first, then the scanned ones."""
    a = node.attributes
    body = a.graph("body")
    scans = a.integer("num_scan_inputs")
    states = len(node.inputs) - scans
    outputs = len(body.output) - states
    axes = a.integers("scan_input_axes", (0,) * scans)
    directions = a.integers("scan_input_directions", (0,) * scans)
    out_axes = a.integers("scan_output_axes", (0,) * outputs)
    out_directions = a.integers("scan_output_directions", (0,) * outputs)
    if (
        states < 0
        or not len(axes) == len(directions) == scans
        or not len(out_axes) == len(out_directions) == outputs
    ):
        raise InvalidModelError(
            f"Scan must have an axis and a direction per scanned value; got {axes}, {directions}."
        )
    axes = tuple(
        normalized_axes(node, (axis,), node.type(states + i).rank)[0] for i, axis in enumerate(axes)
    )
    counts = {node.type(states + i).shape[axis] for i, axis in enumerate(axes)}
    if len(counts) != 1:
        raise InvalidModelError(f"Scan inputs must have one length; got {sorted(counts)}.")
    (count,) = counts
    carried: list[Operand] = [node.operand(i) for i in range(states)]
    collected: list[list[str | Array]] = [[] for _ in range(outputs)]
    for turn in range(count):
        slices: list[Operand] = []
        for i, axis in enumerate(axes):
            place = count - 1 - turn if directions[i] else turn
            x = node.value(states + i)
            shape = node.step_type(x).shape
            cut = take(node, x, np.array([place]), axis)
            slices.append(
                node.step("reshape", [cut], ReshapeAttributes((*shape[:axis], *shape[axis + 1 :])))
            )
        results = node.body("body", [*carried, *slices])
        carried = results[:states]
        for row, value in zip(collected, results[states:], strict=True):
            row.append(_tensor(value))
    if not count:
        raise Unsupported("a scan of nothing")
    stacked = []
    for row, axis, backwards in zip(collected, out_axes, out_directions, strict=True):
        rank = (
            len(np.shape(row[0])) if isinstance(row[0], np.ndarray) else node.step_type(row[0]).rank
        )
        stacked.append(
            stack(node, row[::-1] if backwards else row, axis + rank + 1 if axis < 0 else axis)
        )
    return (*carried, *stacked)


ROWS: Final = (
    Converter("If", (1, 11, 13, 16, 19, 21, 23, 24, 25), if_),
    Converter("Loop", (1, 11, 13, 16, 19, 21, 23, 24, 25), loop, "constant trip count"),
    Converter("Scan", (9, 11, 16, 19, 21, 23, 24, 25), scan, "written out"),
)
