"""Conversions to and from the narrow types, written in plain ops: a look-up, or a count of the thresholds that a magnitude exceeds."""

from __future__ import annotations

from convc.frontend.onnx.narrow import (
    NarrowValue,
    carrier,
    decoded,
    thresholds,
)
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.linear import AxisAttributes, ReduceAttributes
from convc.ir.ops.logic import BitCastAttributes
from convc.ir.ops.shape import ReshapeAttributes

__all__ = ["narrowed", "widened"]


def widened(node: OperatorNode, value: str, name: str) -> str:
    """Return what a carrier stands for: of a float its float32, of an integer the carrier itself."""
    if not name.startswith("float"):
        return value
    table = node.literal(decoded(name), "float32", name)
    index = node.cast(value, "int32")
    return node.step("gather", [table, index], AxisAttributes(0))


def _as_integer(node: OperatorNode, value: str, name: str) -> str:
    """Return the low bits of a whole number, sign-extended: what a cast to a narrow integer keeps."""
    bits, kind = int(name[-1]), carrier(name)
    wide = node.cast(node.cast(value, "int64"), kind)
    shift = node.literal(8 - bits, kind, "shift")
    return node.step("shift_right", [node.step("shift_left", [wide, shift]), shift])


def narrowed(
    node: OperatorNode, value: str, name: str, *, saturate: bool = True, mode: str = "nearest"
) -> NarrowValue:
    """Return numbers in a narrow type: floats rounded to the nearest (ties to even), integers cut to their low bits."""
    if not name.startswith("float"):
        return NarrowValue(_as_integer(node, value, name), name)
    if mode not in ("nearest", "up", "down"):
        raise Unsupported(f"attribute round_mode={mode} (only nearest, up, down)")
    if node.step_type(value).dtype != "float64":
        value = node.cast(value, "float32")
    data = node.step_type(value)
    column = node.step("reshape", [value], ReshapeAttributes((*data.shape, 1)))
    limits = thresholds(name, saturate=saturate, mode=mode, dtype=data.dtype)
    row = node.literal(limits, data.dtype, "thresholds")
    above = node.cast(node.step("greater", [node.step("abs", [column]), row]), "int32")
    code = node.step("reduce_sum", [above], ReduceAttributes((data.rank,), keepdims=False))
    return NarrowValue(node.cast(_signed(node, value, code, name), "uint8"), name)


def _signed(node: OperatorNode, value: str, code: str, name: str) -> str:
    """Return a magnitude's code with the sign bit and NaN put in."""
    bits = "int64" if node.step_type(value).dtype == "float64" else "int32"
    unordered = node.step("is_nan", [value])
    if name == "float8_e8m0fnu":  # no sign; NaN is its last code
        return node.step("where", [unordered, node.literal(255, "int32", "nan"), code])
    sign = 8 if name.startswith("float4") else 128
    pattern = node.step("bit_cast", [value], BitCastAttributes(node.step_type(value).dtype, bits))
    negative = node.step("less", [pattern, node.literal(0, bits, "zero")])
    if name.endswith("fnuz"):  # one zero, and the code of -0 is NaN
        inside = node.step(
            "logical_and",
            [
                node.step("greater", [code, node.literal(0, "int32", "none")]),
                node.step("less", [code, node.literal(sign, "int32", "sign")]),
            ],
        )
        negative = node.step("logical_and", [negative, inside])
    moved = node.step("add", [code, node.literal(sign, "int32", "sign")])
    # float4 has no NaN; NumPy's conversion makes it -0.
    nan = {"float8_e4m3fn": 127, "float8_e5m2": 126}.get(name, sign)
    signed = node.step("where", [negative, moved, code])
    return node.step("where", [unordered, node.literal(nan, "int32", "nan"), signed])
