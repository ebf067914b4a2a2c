"""Convolution, transposed convolution and dense layers, each with an epilogue.

The references are short and slow: one float64 matrix product per filter tap, accumulated.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.epilogue import Step, apply_epilogue, check_epilogue
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.spec import ConvSpec
from convc.ir.types import FLOATS, HALVES, TensorType

__all__ = [
    "ROWS",
    "ConvAttributes",
    "ConvTransposeAttributes",
    "DenseAttributes",
    "accumulator",
    "check_accumulate",
    "conv_spec",
    "convolve",
    "convolve_transposed",
    "taps_of",
    "window_of",
]


@dataclass(frozen=True, slots=True)
class ConvAttributes(Attributes):
    """Geometry, as in `ConvSpec`; empty means ONNX's default.

    Attributes:
        accumulate: element type of the sums; empty: float32 for narrower operands, else their own type.
        algorithm: what the model's author asks for: names in order of preference, separated by commas; empty: convc chooses.
    """

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    epilogue: tuple[Step, ...] = ()
    accumulate: str = ""
    algorithm: str = ""


@dataclass(frozen=True, slots=True)
class ConvTransposeAttributes(Attributes):
    """Geometry, as in `ConvSpec`; empty means ONNX's default.

    Attributes:
        accumulate: element type of the sums; empty: float32 for narrower operands, else their own type.
        algorithm: what the model's author asks for: names in order of preference, separated by commas; empty: convc chooses.
    """

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    output_padding: tuple[int, ...] = ()
    epilogue: tuple[Step, ...] = ()
    accumulate: str = ""
    algorithm: str = ""


@dataclass(frozen=True, slots=True)
class DenseAttributes(Attributes):
    """What follows x weight^T."""

    epilogue: tuple[Step, ...] = ()


def conv_spec(
    data: TensorType, weight: TensorType, attributes: ConvAttributes | ConvTransposeAttributes
) -> ConvSpec:
    """Return the resolved geometry of a `conv` or `conv_transpose` node with these operand types.

    Raises:
        ShapeError, DTypeError: as `ConvSpec`; also if data and weight differ in element type.
    """
    if data.dtype != weight.dtype:
        raise DTypeError(
            f"conv data and weight must have one element type; got {data} and {weight}."
        )
    transposed = isinstance(attributes, ConvTransposeAttributes)
    return ConvSpec.of(
        data.shape,
        weight.shape,
        strides=attributes.strides,
        pads=attributes.pads,
        dilations=attributes.dilations,
        group=attributes.group,
        transposed=transposed,
        output_padding=attributes.output_padding if transposed else (),
        dtype=data.dtype,
    )


def accumulator(dtype: str, accumulate: str = "") -> str:
    """Return the element type in which a convolution of `dtype` adds its products.

    Example:
        >>> accumulator("float16"), accumulator("float16", "float16"), accumulator("float64")
        ('float32', 'float16', 'float64')
    """
    return accumulate or ("float32" if dtype in HALVES else dtype)


def check_accumulate(dtype: str, accumulate: str) -> None:
    """Raise DTypeError unless products of `dtype` may be added up in `accumulate`."""
    if accumulate and accumulate != dtype:
        wider = FLOATS[: FLOATS.index(dtype)] if dtype != "bfloat16" else FLOATS[:2]
        if accumulate not in wider:
            raise DTypeError(
                f"conv accumulate must be {' or '.join((*wider, dtype))} for operands of {dtype}; got '{accumulate}'."
            )


def _infer_conv(
    types: Sequence[TensorType], attributes: ConvAttributes | ConvTransposeAttributes
) -> TensorType:
    spec = conv_spec(types[0], types[1], attributes)
    result = TensorType(spec.output, spec.dtype)
    check_accumulate(spec.dtype, attributes.accumulate)
    check_epilogue("conv", attributes.epilogue, types[2:], result, channel_axis=1)
    return result


def _infer_dense(types: Sequence[TensorType], attributes: DenseAttributes) -> TensorType:
    data, weight = types[:2]
    if data.rank != 2 or weight.rank != 2 or data.shape[1] != weight.shape[1]:
        raise ShapeError(
            f"dense data (M, C) and weight (K, C) must agree in C; got {data} and {weight}."
        )
    if data.dtype != weight.dtype or not data.is_float:
        raise DTypeError(f"dense operands must have one float type; got {data} and {weight}.")
    result = TensorType((data.shape[0], weight.shape[0]), data.dtype)
    check_epilogue("dense", attributes.epilogue, types[2:], result, channel_axis=1)
    return result


def taps_of(spec: ConvSpec) -> itertools.product[tuple[int, ...]]:
    """Return the index of every tap of the filter."""
    return itertools.product(*map(range, spec.kernel))


def window_of(spec: ConvSpec, tap: Sequence[int], extents: Sequence[int]) -> tuple[slice, ...]:
    """Return where one tap touches the padded large side: a strided box of `extents` points."""
    begins = [t * d for t, d in zip(tap, spec.dilations, strict=True)]
    return tuple(
        slice(b, b + (n - 1) * s + 1, s)
        for b, n, s in zip(begins, extents, spec.strides, strict=True)
    )


def convolve(x: Array, w: Array, spec: ConvSpec) -> Array:
    """Return the convolution of `x` with `w` in the arrays' own precision."""
    n, g = spec.rank, spec.group
    batch, k, *extents = spec.output
    border = [(0, 0), (0, 0), *zip(spec.pads[:n], spec.pads[n:], strict=True)]
    padded = np.pad(x, border)
    grouped = padded.reshape(batch, g, spec.in_channels // g, *padded.shape[2:])
    weights = w.reshape(g, k // g, spec.in_channels // g, *spec.kernel)
    y = np.zeros((batch, g, k // g, int(np.prod(extents))), np.result_type(x, w))
    for tap in taps_of(spec):
        patch = grouped[(..., *window_of(spec, tap, extents))]
        y += weights[(..., *tap)] @ patch.reshape(batch, g, spec.in_channels // g, y.shape[-1])
    return y.reshape(spec.output)


def convolve_transposed(x: Array, w: Array, spec: ConvSpec) -> Array:
    """Return the transposed convolution: every input point adds its scaled filter to the (uncropped) output."""
    n, g = spec.rank, spec.group
    batch, k, *extents = spec.output
    full = [e + a + b for e, a, b in zip(extents, spec.pads[:n], spec.pads[n:], strict=True)]
    y = np.zeros((batch, g, k // g, *full), np.result_type(x, w))
    points = x.reshape(batch, g, spec.in_channels // g, int(np.prod(x.shape[2:])))
    weights = w.reshape(g, spec.in_channels // g, k // g, *spec.kernel)
    for tap in taps_of(spec):
        scaled = np.swapaxes(weights[(..., *tap)], 1, 2) @ points
        y[(..., *window_of(spec, tap, x.shape[2:]))] += scaled.reshape(
            batch, g, k // g, *x.shape[2:]
        )
    crop = tuple(slice(a, a + e) for a, e in zip(spec.pads[:n], extents, strict=True))
    return y[(..., *crop)].reshape(spec.output)


def _conv_reference(
    arrays: Sequence[Array], attributes: ConvAttributes | ConvTransposeAttributes
) -> Array:
    x, w, *extras = arrays
    spec = conv_spec(TensorType(x.shape, "float64"), TensorType(w.shape, "float64"), attributes)
    y = convolve_transposed(x, w, spec) if spec.transposed else convolve(x, w, spec)
    return apply_epilogue(y, attributes.epilogue, extras, channel_axis=1)


def _dense_reference(arrays: Sequence[Array], attributes: DenseAttributes) -> Array:
    x, w, *extras = arrays
    return apply_epilogue(x @ w.T, attributes.epilogue, extras, channel_axis=1)


ROWS: Final = (
    OpDef("conv", ConvAttributes, (2, None), _infer_conv, _conv_reference, floats=Floats.PRODUCT),
    OpDef(
        "conv_transpose",
        ConvTransposeAttributes,
        (2, None),
        _infer_conv,
        _conv_reference,
        floats=Floats.PRODUCT,
    ),
    OpDef(
        "dense", DenseAttributes, (2, None), _infer_dense, _dense_reference, floats=Floats.PRODUCT
    ),
)
