"""Comparisons, logic, bits, Where and casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from convc.errors import InvalidModelError, UnsupportedModelError
from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.input_shapes import element_type
from convc.frontend.onnx.narrow import NARROW, NarrowValue, narrow_name
from convc.frontend.onnx.narrowing import narrowed, widened
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.logic import BitCastAttributes, InfinityAttributes
from convc.ir.types import numpy_dtype

__all__ = ["ROWS"]


def _all_operands(op: str) -> Callable[[OperatorNode], str]:
    """Return the converter of an operator that is one IR op of all its operands."""
    return lambda node: node.emit(op, [node.value(i) for i in range(len(node.inputs))])


def _wanted(node: OperatorNode) -> str:
    """Return the element type that attribute `to` names."""
    code = node.attributes.integer("to")
    if narrow_name(code):
        return narrow_name(code)
    try:
        return element_type(code, f"output '{node.outputs[0]}'")
    except UnsupportedModelError as error:
        raise Unsupported(str(error).rstrip(".")) from None


def cast(node: OperatorNode) -> Result:
    """Write Cast and CastLike; the value itself if it has the wanted type already."""
    a = node.attributes
    saturate, mode = a.flag("saturate", True), a.text("round_mode", "up")
    like = node.op_type == "CastLike"
    wanted = (node.narrow(1) or node.type(1).dtype) if like else _wanted(node)
    source = node.narrow()
    if node.is_constant(0) and like and not source and wanted not in NARROW:
        return node.constant(0).astype(numpy_dtype(wanted))
    if source == wanted:
        return NarrowValue(node.value(), wanted)
    value = widened(node, node.value(), source) if source else node.value()
    if wanted in NARROW:
        # round_mode is of the one format that has only powers of 2.
        rounding = mode if wanted == "float8_e8m0fnu" else "nearest"
        return narrowed(node, value, wanted, saturate=saturate, mode=rounding)
    return node.cast(value, wanted)


def is_inf(node: OperatorNode) -> str:
    """Write IsInf."""
    a = node.attributes
    attributes = InfinityAttributes(
        a.flag("detect_negative", True), a.flag("detect_positive", True)
    )
    return node.emit("is_inf", [node.value()], attributes)


def mod(node: OperatorNode) -> str:
    """Write Mod: the sign of the divisor, with fmod=1 that of the dividend."""
    fmod = node.attributes.flag("fmod", False)
    if node.type().is_float and not fmod and node.version < 28:
        raise InvalidModelError(f"Mod of floats must have fmod=1; got fmod=0 for {node.type()}.")
    return node.emit("fmod" if fmod else "mod", [node.value(0), node.value(1)])


def bit_shift(node: OperatorNode) -> str:
    """Write BitShift."""
    direction = node.attributes.text("direction", choices=("LEFT", "RIGHT"))
    return node.emit(f"shift_{direction.lower()}", [node.value(0), node.value(1)])


def not_(node: OperatorNode) -> str:
    """Write Not."""
    return node.emit("logical_not", [node.value()])


def bit_cast(node: OperatorNode) -> Result:
    """Write BitCast: the same bits as another type of the same width."""
    wanted = _wanted(node)
    if wanted in NARROW:
        raise Unsupported(f"to {wanted}")
    if node.type().dtype == wanted:
        return node.value()
    if node.type().dtype == "bool" and wanted in ("int8", "uint8"):
        return node.cast(node.value(), wanted)  # a bool is a byte, 0 or 1
    return node.emit("bit_cast", [node.value()], BitCastAttributes(node.type().dtype, wanted))


ALWAYS: Final = (13, 19, 21, 23, 24, 25)

ROWS: Final = (
    Converter("Equal", (7, 11, 13, 19), _all_operands("equal"), folds=True),
    Converter("Less", (7, 9, 13), _all_operands("less"), folds=True),
    Converter("Greater", (7, 9, 13), _all_operands("greater"), folds=True),
    Converter("LessOrEqual", (12, 16), _all_operands("less_equal"), folds=True),
    Converter("GreaterOrEqual", (12, 16), _all_operands("greater_equal"), folds=True),
    Converter("And", (7,), _all_operands("logical_and"), folds=True),
    Converter("Or", (7,), _all_operands("logical_or"), folds=True),
    Converter("Xor", (7,), _all_operands("logical_xor"), folds=True),
    Converter("Not", (1,), not_, folds=True),
    Converter("BitwiseAnd", (18,), _all_operands("bit_and"), folds=True),
    Converter("BitwiseOr", (18,), _all_operands("bit_or"), folds=True),
    Converter("BitwiseXor", (18,), _all_operands("bit_xor"), folds=True),
    Converter("BitwiseNot", (18,), _all_operands("bit_not"), folds=True),
    Converter("BitShift", (11, 28), bit_shift, folds=True),
    Converter("Mod", (10, 13, 28), mod, folds=True),
    Converter("Where", (9, 16), _all_operands("where"), folds=True),
    Converter("IsNaN", (9, 13, 20), _all_operands("is_nan"), folds=True),
    Converter("IsInf", (10, 20), is_inf, folds=True),
    Converter("BitCast", (26,), bit_cast),
    Converter("Cast", (6, 9, *ALWAYS, 28), cast, folds=True, narrow="reads"),
    Converter("CastLike", (15, 19, 21, 23, 24, 25), cast, folds=True, narrow="reads"),
)
