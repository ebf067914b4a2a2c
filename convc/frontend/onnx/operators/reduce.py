"""Reductions: one IR op each, or one between two elementwise ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.reshape import axes_operand, normalized_axes
from convc.ir.ops.linear import ReduceAttributes

__all__ = ["ROWS"]

Core = Callable[[OperatorNode, str, ReduceAttributes], str]


def _reduce(core: Core, axes_input_since: int) -> Callable[[OperatorNode], Result]:
    """Return the converter of a reduction whose axes are an input from version `axes_input_since` on."""

    def convert(node: OperatorNode) -> Result:
        rank, keepdims = node.type().rank, node.attributes.flag("keepdims", True)
        axes = axes_operand(node, axes_input_since)
        does_nothing = node.attributes.flag("noop_with_empty_axes", False)
        if not axes:
            axes = () if does_nothing else tuple(range(rank))
        attributes = ReduceAttributes(tuple(sorted(normalized_axes(node, axes, rank))), keepdims)
        return core(node, node.value(), attributes)

    return convert


def _plain(op: str) -> Core:
    return lambda node, x, a: node.emit(op, [x], a)


def _extreme(op: str) -> Core:
    """Return the core of ReduceMax and ReduceMin; of bools it is that of 0 and 1, of nothing the type's own extreme."""

    def core(node: OperatorNode, x: str, a: ReduceAttributes) -> str:
        data = node.type()
        if data.dtype == "bool":
            return node.cast(node.step(op, [node.cast(x, "uint8")], a), "bool")
        if not data.size:
            from convc.ir.types import numpy_dtype

            dtype = numpy_dtype(data.dtype)
            shape = [1 if i in a.axes else n for i, n in enumerate(data.shape)]
            if not a.keepdims:
                shape = [n for i, n in enumerate(data.shape) if i not in a.axes]
            if dtype.kind == "f":
                value: float = -np.inf if op == "reduce_max" else np.inf
            else:
                value = np.iinfo(dtype).min if op == "reduce_max" else np.iinfo(dtype).max
            return node.literal(np.full(shape, value, dtype), data.dtype, "extreme")
        return node.emit(op, [x], a)

    return core


def _mean(node: OperatorNode, x: str, a: ReduceAttributes) -> str:
    if node.type().is_float:
        return node.emit("reduce_mean", [x], a)
    dtype = node.type().dtype
    return node.cast(node.step("reduce_mean", [node.cast(x, "float64")], a), dtype)


def _l1(node: OperatorNode, x: str, a: ReduceAttributes) -> str:
    return node.emit("reduce_sum", [node.step("abs", [x])], a)


def _sum_square(node: OperatorNode, x: str, a: ReduceAttributes) -> str:
    return node.emit("reduce_sum", [node.step("mul", [x, x])], a)


def _floats(node: OperatorNode, x: str) -> str:
    return x if node.type().is_float else node.cast(x, "float64")


def _l2(node: OperatorNode, x: str, a: ReduceAttributes) -> str:
    x = _floats(node, x)
    total = node.step("reduce_sum", [node.step("mul", [x, x])], a)
    return node.cast(node.step("sqrt", [total]), node.type().dtype)


def _log_sum(node: OperatorNode, x: str, a: ReduceAttributes) -> str:
    total = node.step("reduce_sum", [_floats(node, x)], a)
    return node.cast(node.step("log", [total]), node.type().dtype)


def _log_sum_exp(node: OperatorNode, x: str, a: ReduceAttributes) -> str:
    """Write log(sum(exp(x - top))) + top, which does not overflow."""
    x = _floats(node, x)
    if not node.type().size or not a.axes:
        total = node.step("reduce_sum", [node.step("exp", [x])], a)
        return node.cast(node.step("log", [total]), node.type().dtype)
    top = node.step("reduce_max", [x], ReduceAttributes(a.axes))
    # An infinite top would make inf - inf of itself.
    limit = node.literal(float(np.finfo(np.float32).max), node.step_type(x).dtype, "limit")
    low = node.step("neg", [limit])
    top = node.step("minimum", [node.step("maximum", [top, low]), limit])
    total = node.step("reduce_sum", [node.step("exp", [node.step("sub", [x, top])])], a)
    if not a.keepdims:
        top = node.step("reduce_sum", [top], ReduceAttributes(a.axes, keepdims=False))
    return node.cast(node.step("add", [node.step("log", [total]), top]), node.type().dtype)


NOTE: Final = "constant axes"


def _row(
    name: str, core: Core, since: tuple[int, ...] = (1, 11, 13, 18), axes_input: int = 18
) -> Converter:
    return Converter(name, since, _reduce(core, axes_input), NOTE, folds=True)


ROWS: Final = (
    _row("ReduceMean", _mean),
    _row("ReduceSum", _plain("reduce_sum"), (1, 11, 13), 13),
    _row("ReduceMax", _extreme("reduce_max"), (1, 11, 12, 13, 18, 20)),
    _row("ReduceMin", _extreme("reduce_min"), (1, 11, 12, 13, 18, 20)),
    _row("ReduceProd", _plain("reduce_prod")),
    _row("ReduceL1", _l1),
    _row("ReduceL2", _l2),
    _row("ReduceLogSum", _log_sum, (1, 11, 13, 18, 28)),
    _row("ReduceLogSumExp", _log_sum_exp, (1, 11, 13, 18, 28)),
    _row("ReduceSumSquare", _sum_square),
)
