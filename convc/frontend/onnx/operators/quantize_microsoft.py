"""Quantised operators of com.microsoft, as ONNX Runtime's quantizer writes them in QOperator format.

Each is the float operator between dequantize and quantize, the one form of quantised layers: what is a layer becomes one of integers
(`ir.passes.quantize_layers`), what is not runs as one kernel that reads and writes bytes.

Source:
    github.com/microsoft/onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from convc.frontend.onnx.auto_pad import read_window, same_pads
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.model_file import MICROSOFT
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.quantize import parameters_of
from convc.frontend.onnx.refusal import Unsupported
from convc.ir import Step
from convc.ir.ops import Attributes
from convc.ir.ops.conv import DenseAttributes
from convc.ir.ops.elementwise import LeakyAttributes
from convc.ir.ops.linear import AxisAttributes, ReduceAttributes
from convc.ir.ops.pool import AveragePoolAttributes
from convc.ir.ops.quantized import QuantizeAttributes
from convc.ir.ops.shape import ConcatAttributes, TransposeAttributes

__all__ = ["ROWS"]


def _float(node: OperatorNode, at: int, axis: int = 1) -> str:
    """Return operand `at`, whose scale and zero point come next, dequantised."""
    data = node.type(at)
    if any(node.type(i).dtype != "float32" for i in (at + 1,)):
        raise Unsupported(f"scales of {node.type(at + 1).dtype} (only float32)")
    axis = min(axis, max(0, data.rank - 1))
    return node.step("dequantize", [node.value(at), *parameters_of(node, data.shape, axis, (at + 1, at + 2))])  # fmt: skip


def _quantized(node: OperatorNode, y: str, at: int) -> str:
    """Return a float as the node's result, whose scale is operand `at`."""
    shape = node.step_type(y).shape
    dtype = node.type(at + 1).dtype if node.has(at + 1) else node.type(0).dtype
    if dtype not in ("int8", "uint8"):
        raise Unsupported(f"results of {dtype} (only int8 and uint8)")
    parameters = parameters_of(node, shape, min(1, max(0, len(shape) - 1)), (at, at + 1))
    return node.emit("quantize", [y, *parameters], QuantizeAttributes(dtype))


def _binary(op: str) -> Callable[[OperatorNode], str]:
    """Return the converter of A, A_scale, A_zero_point, B, B_scale, B_zero_point, C_scale, C_zero_point."""

    def convert(node: OperatorNode) -> str:
        return _quantized(node, node.step(op, [_float(node, 0), _float(node, 3)]), 6)

    return convert


def _unary(op: str, attributes: Callable[[OperatorNode], Attributes | None]) -> Callable[[OperatorNode], str]:  # fmt: skip
    """Return the converter of X, X_scale, X_zero_point, Y_scale, Y_zero_point."""

    def convert(node: OperatorNode) -> str:
        return _quantized(node, node.step(op, [_float(node, 0)], attributes(node)), 3)

    return convert


def _global_pool(node: OperatorNode) -> Attributes:
    node.attributes.only("channels_last", 0)
    return ReduceAttributes(tuple(range(2, node.type().rank)))


def _pool(node: OperatorNode) -> Attributes:
    node.attributes.only("channels_last", 0)
    window = read_window(node)
    include = node.attributes.flag("count_include_pad", False)
    ceil_mode = node.attributes.flag("ceil_mode", False)
    pads = same_pads(node.type().shape[2:], window) if window.is_same else window.pads
    return AveragePoolAttributes(window.kernel, window.strides, pads, window.dilations, ceil_mode and not window.is_same, include)  # fmt: skip


def _softmax(node: OperatorNode) -> Attributes:
    rank = node.type().rank
    axis = node.attributes.integer("axis", -1) % rank
    if node.attributes.integer("opset") < 13 and axis != rank - 1:
        raise Unsupported(f"axis {axis} as before opset 13 (only the last one)")
    return AxisAttributes(axis)


def qlinear_concat(node: OperatorNode) -> str:
    """Write QLinearConcat: Y_scale, Y_zero_point, then each operand with its scale and zero point."""
    parts: Sequence[str] = [_float(node, i) for i in range(2, len(node.inputs), 3)]
    axis = node.attributes.integer("axis") % node.type(2).rank
    return _quantized(node, node.step("concat", parts, ConcatAttributes(axis)), 0)


def qgemm(node: OperatorNode) -> str:
    """Write QGemm: A, a_scale, a_zero_point, B, b_scale, b_zero_point, C, y_scale, y_zero_point; C is of the sums' scale."""
    a = node.attributes
    alpha, across, down = a.real("alpha", 1.0), a.flag("transA", False), a.flag("transB", False)
    if alpha != 1.0 or across:
        raise Unsupported(f"alpha {alpha:g}, transA {int(across)} (only 1 and 0)")
    if not node.has(7):
        raise Unsupported("a result in float32")
    x, w = _float(node, 0), _float(node, 3, 0 if down else 1)
    if not down:
        w = node.step("transpose", [w], TransposeAttributes((1, 0)))
    outputs = node.step_type(w).shape[0]
    bias, steps = [], ()
    if node.has(6):
        if node.type(6).size != outputs:
            raise Unsupported(f"a bias {node.type(6)} (only one value a column)")
        scale = np.broadcast_to(node.constant(1) * node.constant(4), (outputs,))
        zero = node.literal(0.0, "float32", "bias_zero_point")
        value = node.constant(6).reshape(outputs)
        bias = [node.step("dequantize", [node.literal(value, "int32", "bias"), node.literal(scale, "float32", "bias_scale"), zero])]  # fmt: skip
        steps = (Step("bias"),)
    return _quantized(node, node.step("dense", [x, w, *bias], DenseAttributes(steps)), 7)


def _row(name: str, convert: Callable[[OperatorNode], str], note: str = "") -> Converter:
    return Converter(name, (1,), convert, note, domain=MICROSOFT)


ROWS: Final = (
    _row("QLinearAdd", _binary("add")),
    _row("QLinearMul", _binary("mul")),
    _row("QLinearConcat", qlinear_concat),
    _row("QLinearGlobalAveragePool", _unary("reduce_mean", _global_pool), "channels first"),
    _row("QLinearAveragePool", _unary("average_pool", _pool), "channels first"),
    _row("QLinearSigmoid", _unary("sigmoid", lambda node: None)),
    _row("QLinearLeakyRelu", _unary("leaky_relu", lambda node: LeakyAttributes(node.attributes.real("alpha", 0.01)))),
    _row("QLinearSoftmax", _unary("softmax", _softmax)),
    _row("QGemm", qgemm, "A as it is, alpha 1, a result of bytes"),
)  # fmt: skip
