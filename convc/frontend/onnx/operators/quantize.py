"""Quantised operators, written in plain integer arithmetic: products and sums in int32, one rounding at the end."""

from __future__ import annotations

from typing import Final

import numpy as np
from ml_dtypes import iinfo
from onnx import TensorProto

from convc.errors import InvalidModelError
from convc.frontend.onnx.auto_pad import read_window, same_pads
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.input_shapes import element_type
from convc.frontend.onnx.narrow import NARROW, NarrowValue, carrier, narrow_name
from convc.frontend.onnx.narrowing import narrowed, widened
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.refusal import Unsupported
from convc.ir import Step
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.elementwise import ClipAttributes
from convc.ir.ops.quantized import QuantizeAttributes
from convc.ir.ops.shape import (
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
)
from convc.ir.types import Shape, numpy_dtype

__all__ = ["ROWS", "parameters_of"]


def _along(node: OperatorNode, value: str, data: Shape, axis: int, block: int = 0) -> str:
    """Return a scale or zero point as it broadcasts with the data: of the tensor, of an axis, or of blocks of an axis."""
    have = node.step_type(value)
    if have.size == 1:
        return node.step("reshape", [value], ReshapeAttributes(()))
    if have.rank == 1 and not block:
        shape = [1] * len(data)
        shape[axis] = have.size
        return node.step("reshape", [value], ReshapeAttributes(tuple(shape)))
    if have.rank != len(data) or not block:
        raise InvalidModelError(
            f"{node.op_type} scale must be a scalar, one value along the axis, or one a block; got {have} for {node.type()}."
        )
    factors = [1] * len(data)
    factors[axis] = block
    grown = node.step("resize", [value], ResizeAttributes(tuple(factors)))
    if node.step_type(grown).shape != data:  # the last block may be shorter
        grown = node.step(
            "slice", [grown], SliceAttributes((0,) * len(data), data, (1,) * len(data))
        )
    return grown


def _axis(node: OperatorNode) -> tuple[int, int]:
    """Return the axis of the scales, and the block size."""
    rank = max(1, node.type().rank)
    axis = node.attributes.integer("axis", 1) if node.version >= 13 else 1
    axis += rank if axis < 0 else 0
    block = node.attributes.integer("block_size", 0) if node.version >= 21 else 0
    # Of a scalar scale the axis means nothing, and exporters write 1 for vectors.
    return min(axis, rank - 1), block


def _saturated(node: OperatorNode, x: str, dtype: str) -> str:
    """Return a whole float, brought into the range of an integer type and converted to it."""
    info = np.iinfo(numpy_dtype(dtype))
    kept = node.step("clip", [x], ClipAttributes(float(info.min), float(info.max)))
    return node.cast(kept, dtype)


def _is_plain(node: OperatorNode, block: int, first: int = 0) -> bool:
    """Return whether the floats of a node, from operand `first` to the scale, are float32, without blocks: one op each."""
    return not block and all(node.type(i).dtype == "float32" for i in range(first, 2))


def parameters_of(
    node: OperatorNode, data: Shape, axis: int, at: tuple[int, int] = (1, 2)
) -> list[str]:
    """Return scale and zero point as float32 that broadcast with the data; the zero point is 0 if left out."""
    found = []
    for index, stem in zip(at, ("scale", "zero_point"), strict=True):
        if not node.has(index):
            found.append(node.literal(0.0, "float32", "zero_point"))
        elif node.is_constant(index):
            array = node.constant(index).astype(np.float32)
            if array.size != 1 and array.shape != (data[axis],):
                raise InvalidModelError(
                    f"{node.op_type} scale and zero point must have 1 or {data[axis]} values; got {node.type(index)}."
                )
            shape = [n if i == axis else 1 for i, n in enumerate(data)] if array.size > 1 else []
            found.append(node.literal(array.reshape(shape), "float32", stem))
        else:
            found.append(node.cast(_along(node, node.value(index), data, axis), "float32"))
    return found


def _quantized_type(node: OperatorNode) -> str:
    """Return the element type of the result: the zero point's, else what `output_dtype` names, else uint8."""
    code = node.attributes.integer("output_dtype", 0)
    if node.has(2):
        dtype = node.narrow(2) or node.type(2).dtype
    elif code:
        dtype = narrow_name(code) or element_type(code, f"output '{node.outputs[0]}'")
    else:
        dtype = "uint8"
    if dtype not in ("int8", "uint8", "int16", "uint16", *NARROW):
        raise Unsupported(f"to {dtype} (only integers and floats of 16 bits at most)")
    return dtype


def quantize_linear(node: OperatorNode) -> str | NarrowValue:
    """Write saturate(round(x / scale) + zero point), ties to even."""
    a, data = node.attributes, node.type()
    a.ignore("precision")  # the quotient is taken in the scale's own type
    saturate = a.flag("saturate", True)
    axis, block = _axis(node)
    dtype = _quantized_type(node)
    if _is_plain(node, block) and dtype in ("int8", "uint8"):
        operands = [node.value(0), *parameters_of(node, data.shape, axis)]
        return node.emit("quantize", operands, QuantizeAttributes(dtype))
    scale = _along(node, node.value(1), data.shape, axis, block)
    wide = "float64" if dtype.endswith("16") else "float32"
    x = node.step("div", [node.cast(node.value(0), wide), node.cast(scale, wide)])
    if dtype.startswith("float"):  # the zero point is 0 by definition
        return narrowed(node, x, dtype, saturate=saturate)
    whole = node.step("round", [x])
    if node.has(2):
        zero = _along(node, node.value(2), data.shape, axis, block)
        whole = node.step("add", [whole, node.cast(zero, wide)])
    if dtype not in NARROW:
        return _saturated(node, whole, dtype)
    info = iinfo(NARROW[dtype][0])
    kept = node.step("clip", [whole], ClipAttributes(float(info.min), float(info.max)))
    return NarrowValue(node.cast(kept, carrier(dtype)), dtype)


def dequantize_linear(node: OperatorNode) -> str:
    """Write (x - zero point) * scale."""
    data = node.type()
    axis, block = _axis(node)
    code = node.attributes.integer("output_dtype", 0)
    integer = data.dtype in ("int8", "uint8", "int32") and not node.narrow()
    if _is_plain(node, block, 1) and integer and code in (0, TensorProto.FLOAT):
        return node.emit("dequantize", [node.value(0), *parameters_of(node, data.shape, axis)])
    scale = _along(node, node.value(1), data.shape, axis, block)
    dtype = node.step_type(scale).dtype
    if node.attributes.integer("output_dtype", 0):
        dtype = element_type(
            node.attributes.integer("output_dtype", 0), f"output '{node.outputs[0]}'"
        )
    if node.narrow().startswith("float"):  # the zero point is 0 by definition
        x = widened(node, node.value(0), node.narrow())
        return node.emit("mul", [node.cast(x, dtype), node.cast(scale, dtype)])
    x = node.cast(node.value(0), "int32")
    if node.has(2):
        zero = _along(node, node.value(2), data.shape, axis, block)
        x = node.step("sub", [x, node.cast(zero, "int32")])
    return node.emit("mul", [node.cast(x, dtype), node.cast(scale, dtype)])


def _centred(node: OperatorNode, operand: int, zero_point: int, axis: int) -> str:
    """Return an operand less its zero point, in int32."""
    x = node.cast(node.value(operand), "int32")
    if not node.has(zero_point):
        return x
    zero = node.cast(node.value(zero_point), "int32")
    data = node.type(operand).shape
    return node.step("sub", [x, _along(node, zero, data, axis)])


def _convolved(node: OperatorNode, weight: int, zero_points: tuple[int, int]) -> str:
    """Return the sums of a convolution in int32: a pad is the zero point, so after subtraction it is 0."""
    window = read_window(node, node.type(weight).shape[2:])
    pads = same_pads(node.type().shape[2:], window) if window.is_same else window.pads
    operands = [_centred(node, 0, zero_points[0], 1), _centred(node, weight, zero_points[1], 0)]
    group = node.attributes.integer("group", 1)
    attributes = ConvAttributes(window.strides, pads, window.dilations, group)
    return node.step("conv", operands, attributes)


def conv_integer(node: OperatorNode) -> str:
    """Write ConvInteger."""
    return _convolved(node, 1, (2, 3))


def _requantized(
    node: OperatorNode, sums: str, scales: tuple[str, str], output: tuple[int, int], axis: int
) -> str:
    """Return saturate(round(sums * a_scale * b_scale / y_scale) + y_zero_point)."""
    shape = node.step_type(sums).shape
    wide = "float64" if node.step_type(scales[0]).dtype == "float64" else "float32"
    factor = node.step("mul", [node.cast(s, wide) for s in scales])
    y_scale = _along(node, node.value(output[0]), shape, axis)
    factor = node.step("div", [factor, node.cast(y_scale, wide)])
    whole = node.step("round", [node.step("mul", [node.cast(sums, wide), factor])])
    zero = _along(node, node.value(output[1]), shape, axis)
    whole = node.step("add", [whole, node.cast(zero, wide)])
    return _saturated(node, whole, node.type(output[1]).dtype)


def _is_layer(node: OperatorNode) -> bool:
    """Return whether everything but the data is constant, and scales are float32: a layer between dequantize and quantize."""
    constants = all(node.is_constant(i) for i in range(1, len(node.inputs)))
    return constants and all(node.type(i).dtype == "float32" for i in (1, 4, 6))


def _bias_of_sums(node: OperatorNode) -> str:
    """Return the bias of QLinearConv, whose scale is that of the sums, as floats."""
    scale = np.broadcast_to(node.constant(1) * node.constant(4), node.type(8).shape)
    factors = node.literal(scale, "float32", "bias_scale")
    zero = node.literal(0.0, "float32", "bias_zero_point")
    return node.step("dequantize", [node.value(8), factors, zero])


def _qlinear_layer(node: OperatorNode) -> str:
    """Write QLinearConv as a float convolution between dequantize and quantize, the one form of quantised layers."""
    weight = node.type(3).shape
    window = read_window(node, weight[2:])
    pads = same_pads(node.type().shape[2:], window) if window.is_same else window.pads
    x = node.step("dequantize", [node.value(0), *parameters_of(node, node.type().shape, 1)])
    w = node.step("dequantize", [node.value(3), *parameters_of(node, weight, 0, (4, 5))])
    bias = [_bias_of_sums(node)] if node.has(8) else []
    epilogue = (Step("bias"),) if bias else ()
    group = node.attributes.integer("group", 1)
    attributes = ConvAttributes(window.strides, pads, window.dilations, group, epilogue)
    y = node.step("conv", [x, w, *bias], attributes)
    parameters = parameters_of(node, node.step_type(y).shape, 1, (6, 7))
    return node.emit("quantize", [y, *parameters], QuantizeAttributes(node.type(7).dtype))


def qlinear_conv(node: OperatorNode) -> str:
    """Write QLinearConv: inputs x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias."""
    if _is_layer(node):
        return _qlinear_layer(node)
    sums = _convolved(node, 3, (2, 5))
    shape = node.step_type(sums).shape
    if node.has(8):
        column = (1, shape[1], *(1,) * (len(shape) - 2))
        bias = node.step("reshape", [node.value(8)], ReshapeAttributes(column))
        sums = node.step("add", [sums, bias])
    scales = (_along(node, node.value(1), shape, 1), _along(node, node.value(4), shape, 1))
    return _requantized(node, sums, scales, (6, 7), 1)


def _product(node: OperatorNode, left: str, right: str) -> str:
    a, b = node.step_type(left), node.step_type(right)
    if a.rank < 2 or b.rank < 2:
        raise Unsupported(f"vectors {a} and {b} (only matrices)")
    return node.step("matmul", [left, right])


def matmul_integer(node: OperatorNode) -> str:
    """Write MatMulInteger: a zero point for each row of A and each column of B at most."""
    left = _centred(node, 0, 2, max(0, node.type(0).rank - 2))
    return _product(node, left, _centred(node, 1, 3, max(0, node.type(1).rank - 1)))


def qlinear_matmul(node: OperatorNode) -> str:
    """Write QLinearMatMul: inputs a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point."""
    # Of a matrix a scale may be one a row; of several of them it is one.
    whole = node.type(0).rank == 2 or all(node.type(i).size == 1 for i in (1, 2, 6, 7))
    if _is_layer(node) and node.type(0).rank >= node.type(3).rank == 2 and whole:
        x = node.step("dequantize", [node.value(0), *parameters_of(node, node.type().shape, 0)])
        parameters = parameters_of(node, node.type(3).shape, 1, (4, 5))
        w = node.step("dequantize", [node.value(3), *parameters])
        y = node.step("matmul", [x, w])
        parameters = parameters_of(node, node.step_type(y).shape, 1, (6, 7))
        return node.emit("quantize", [y, *parameters], QuantizeAttributes(node.type(7).dtype))
    rows, columns = max(0, node.type(0).rank - 2), max(0, node.type(3).rank - 1)
    sums = _product(node, _centred(node, 0, 2, rows), _centred(node, 3, 5, columns))
    shape = node.step_type(sums).shape
    scales = (
        _along(node, node.value(1), shape, len(shape) - 2),
        _along(node, node.value(4), shape, len(shape) - 1),
    )
    return _requantized(node, sums, scales, (6, 7), len(shape) - 1)


NOTE: Final = "integers and floats of 16 bits at most"

ROWS: Final = (
    Converter(
        "QuantizeLinear", (10, 13, 19, 21, 23, 24, 25, 28), quantize_linear, NOTE, narrow="reads"
    ),
    Converter(
        "DequantizeLinear",
        (10, 13, 19, 21, 23, 24, 25, 28),
        dequantize_linear,
        "2- to 32-bit integers, 4- and 8-bit floats",
        narrow="reads",
    ),
    Converter("ConvInteger", (10,), conv_integer),
    Converter("QLinearConv", (10,), qlinear_conv),
    Converter("MatMulInteger", (10,), matmul_integer, "matrices"),
    Converter("QLinearMatMul", (10, 21), qlinear_matmul, "matrices"),
)
