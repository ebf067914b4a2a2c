"""Numbers stored in few bits: what stands between them and floats, and convolutions of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.conv import convolve, convolve_transposed
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.ops.elementwise import NoAttributes
from convc.ir.ops.logic import broadcast
from convc.ir.spec import ConvSpec
from convc.ir.types import TensorType

__all__ = ["ROWS", "QuantizeAttributes", "QuantizedConvAttributes", "quantized_spec"]

_BYTES: Final = ("uint8", "int8")


@dataclass(frozen=True, slots=True)
class QuantizeAttributes(Attributes):
    """The element type of the result."""

    dtype: str = "uint8"


@dataclass(frozen=True, slots=True)
class QuantizedConvAttributes(Attributes):
    """Geometry, as in `ConvSpec`, and the form of the result.

    Attributes:
        dtype: uint8, int8, or float32 for sums that are not rounded.
        zero: the result's zero point.
        least, greatest: bounds of a rounded result; `least` is the zero point where a ReLU is part of it.
        transposed: whether the layer is a transposed convolution: one of data with stride - 1 points between them, by the filters turned
            around.
        output_padding: of such, as in `ConvSpec`.
        pad: what stands around the data and, transposed, between them, their zero point.
        added: nothing, or (own, other, shift): an operand r, uint8, is added, y = round(q own + r other + shift) + zero, q being the
            layer's result by itself, less its zero point.
        own_least, own_greatest: bounds of q.
        dynamic: whether the zero point of the data is a fifth operand, i32[], and factor, too, may be known only at run time:
            y = (sum of products + zero bias) factor, a float; bias is minus the sums of the weights.
    """

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    dtype: str = "uint8"
    zero: int = 0
    least: int = -128
    greatest: int = 255
    pad: int = 0
    added: tuple[float, ...] = ()
    own_least: int = 0
    own_greatest: int = 0
    dynamic: bool = False

    @property
    def limits(self) -> tuple[int, int]:
        """The least and greatest value of a rounded result."""
        info = np.iinfo(self.dtype)
        return max(int(info.min), self.least), min(int(info.max), self.greatest)


def quantized_spec(
    data: TensorType, weight: TensorType, attributes: QuantizedConvAttributes
) -> ConvSpec:
    """Return the resolved geometry."""
    a = attributes
    return ConvSpec.of(
        data.shape,
        weight.shape,
        strides=a.strides,
        pads=a.pads,
        dilations=a.dilations,
        group=a.group,
        transposed=a.transposed,
        output_padding=a.output_padding,
        dtype="int32",  # what is added up
    )


def _check_scales(name: str, types: Sequence[TensorType]) -> None:
    for t in types:
        if t.dtype != "float32":
            raise DTypeError(f"{name} scale and zero point must be float32; got {t}.")


def _infer_quantize(types: Sequence[TensorType], a: QuantizeAttributes) -> TensorType:
    _check_scales("quantize", types)
    if a.dtype not in _BYTES:
        raise DTypeError(f"quantize dtype must be uint8 or int8; got {a.dtype}.")
    return broadcast("quantize", types, a.dtype)


def _quantize(arrays: Sequence[Array], a: QuantizeAttributes) -> Array:
    x, scale, zero = (v.astype(np.float32) for v in arrays)
    info = np.iinfo(a.dtype)
    # In float32, as the standard has it: in float64 other values would be ties.
    whole = np.rint(x / scale) + zero
    # NaN, of which the standard says nothing, is the least value, as in ONNX Runtime.
    return np.clip(np.nan_to_num(whole, nan=info.min), info.min, info.max).astype(a.dtype)


def _infer_dequantize(types: Sequence[TensorType], a: Attributes) -> TensorType:
    _check_scales("dequantize", types[1:])
    if types[0].dtype not in (*_BYTES, "int32"):
        raise DTypeError(f"dequantize data must be uint8, int8 or int32; got {types[0]}.")
    return broadcast("dequantize", types, "float32")


def _dequantize(arrays: Sequence[Array], a: Attributes) -> Array:
    x, scale, zero = arrays
    return (x.astype(np.float64) - zero) * scale


def _infer_conv(types: Sequence[TensorType], a: QuantizedConvAttributes) -> TensorType:
    data, weight, bias, factor, *others = types
    if data.dtype != "uint8" or weight.dtype != "int8":
        raise DTypeError(f"conv_quantized must take u8 data and i8 weights; got {data}, {weight}.")
    spec = quantized_spec(data, weight, a)
    channels = (spec.out_channels,)
    if bias != TensorType(channels, "int32") or factor != TensorType(channels, "float32"):
        raise ShapeError(
            f"conv_quantized bias and factor must be i32 and f32 of {channels}; got {bias} and {factor}."
        )
    if a.dtype not in (*_BYTES, "float32"):
        raise DTypeError(f"conv_quantized dtype must be uint8, int8 or float32; got {a.dtype}.")
    result = TensorType(spec.output, a.dtype)
    if a.dynamic:
        if others != [TensorType((), "int32")] or a.added or a.dtype != "float32" or a.pad or spec.transposed:  # fmt: skip
            raise ShapeError(
                f"conv_quantized with a dynamic zero point must take it as i32[], give a float and read no padding; got {others}."
            )
        return result
    residual = others
    if len(residual) != bool(a.added) or len(a.added) not in (0, 3):
        raise ShapeError(
            f"conv_quantized must have as many added operands as factors of one; got {len(residual)} and {a.added}."
        )
    if residual and (residual[0] != TensorType(spec.output, "uint8") or a.dtype == "float32"):
        raise ShapeError(
            f"conv_quantized must add u8 of the result's shape to a rounded result; got {residual[0]} and {result}."
        )
    return result


def _sums(x: Array, w: Array, spec: ConvSpec, pad: int) -> Array:
    """Return the sums of products with `pad` around the data and, transposed, between them."""
    if not spec.transposed:
        begins, ends = spec.pads[: spec.rank], spec.pads[spec.rank :]
        around = [(0, 0), (0, 0), *zip(begins, ends, strict=True)]
        padded = np.pad(x, around, constant_values=pad)
        return convolve(padded, w, replace(spec, data=padded.shape, pads=(0,) * len(spec.pads)))
    filters = w.reshape(spec.group, spec.in_channels // spec.group, w.shape[1], -1)
    around_and_between = pad * filters.sum((1, 3)).reshape(-1, *(1,) * spec.rank)
    return convolve_transposed(x - pad, w, spec) + around_and_between


def _conv(arrays: Sequence[Array], a: QuantizedConvAttributes) -> Array:
    x, w, bias, factor, *others = arrays
    spec = quantized_spec(TensorType(x.shape, "uint8"), TensorType(w.shape, "int8"), a)
    column = (-1, *(1,) * spec.rank)
    # Sums of up to 2^31 are exact in float64.
    sums, residual = _sums(x.astype(np.float64), w.astype(np.float64), spec, a.pad), others
    if a.dynamic:
        # A zero point may be any int32, and sums wrap around as those of the ops that it stands for.
        shift = bias.astype(np.int64) * others[0].astype(np.int64)
        sums = (sums.astype(np.int64) + shift.reshape(column)).astype(np.int32).astype(np.float64)
        residual = []
    else:
        sums = sums + bias.reshape(column)
    if a.dtype == "float32":
        return sums * factor.reshape(column)
    y = np.rint(sums.astype(np.float32) * factor.astype(np.float32).reshape(column))
    if residual:
        # Each a multiply-add of float32, rounded once, as kernels have it: float64 holds what is rounded exactly.
        own, other, shift = (np.float64(np.float32(factor)) for factor in a.added)
        r = (residual[0] * other + shift).astype(np.float32)
        q = np.clip(y, a.own_least, a.own_greatest)
        y = np.rint((q * own + r).astype(np.float32))
    low, high = a.limits
    return np.clip(y + a.zero, low, high).astype(a.dtype)


def _infer_lookup(types: Sequence[TensorType], a: Attributes) -> TensorType:
    data, table = types
    if data.dtype != "uint8" or table.shape != (256,) or table.dtype not in _BYTES:
        raise DTypeError(f"lookup must take u8 data and 256 bytes; got {data} and {table}.")
    return TensorType(data.shape, table.dtype)


def _lookup(arrays: Sequence[Array], a: Attributes) -> Array:
    data, table = arrays
    return table[data]


ROWS: Final = (
    OpDef(
        "quantize",
        QuantizeAttributes,
        (3, 3),
        _infer_quantize,
        _quantize,
        elementwise=True,
        floats=Floats.FIXED,
    ),
    OpDef(
        "dequantize",
        NoAttributes,
        (3, 3),
        _infer_dequantize,
        _dequantize,
        elementwise=True,
        floats=Floats.FIXED,
    ),
    OpDef(
        "conv_quantized", QuantizedConvAttributes, (4, 5), _infer_conv, _conv, floats=Floats.FIXED
    ),
    OpDef("lookup", NoAttributes, (2, 2), _infer_lookup, _lookup, floats=Floats.NEUTRAL),
)
