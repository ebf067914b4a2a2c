"""The gradient of a convolution with respect to its weight, an op of its own; the one with respect to its data is `conv_transpose`.

With y = conv(x, w) and a scalar loss L, dy = dL/dy:

    dL/dw[k, c, r...] = sum over n, p... of dy[n, k, p...] x[n, c, p stride + r dilation - pad]      conv_weight_grad(x, dy)
    dL/dx             = conv_transpose(dy, w) of the same strides, pads, dilations and group

Both are linear in both operands, so their own gradients are these three ops again. `conv_transpose` reaches every shape that a
convolution's data can have: floor((H + pads - covered) / stride) drops a remainder of less than one stride, and that remainder
is its `output_padding`, which may be as large as max(stride, dilation) - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.conv import check_accumulate, taps_of, window_of
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.spec import ConvSpec
from convc.ir.types import TensorType

__all__ = ["ROWS", "ConvWeightGradAttributes", "convolve_weight_grad", "forward_spec"]


@dataclass(frozen=True, slots=True)
class ConvWeightGradAttributes(Attributes):
    """The convolution's geometry, as in `ConvSpec`, and its filter's spatial shape, which its operands do not tell.

    Attributes:
        accumulate: element type of the sums, as in `ConvAttributes`.
        algorithm: what the model's author asks for, as in `ConvAttributes`.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    accumulate: str = ""
    algorithm: str = ""


def forward_spec(
    data: TensorType, gradient: TensorType, attributes: ConvWeightGradAttributes
) -> ConvSpec:
    """Return the convolution whose weight gradient this is.

    Raises:
        ShapeError: if there is none: no convolution of this geometry makes a result of the gradient's shape from the data.
        DTypeError: if data and gradient differ in element type; if their products cannot be added up in `accumulate`.

    Example:
        >>> data, gradient = TensorType((2, 4, 8, 8)), TensorType((2, 6, 4, 4))
        >>> forward_spec(data, gradient, ConvWeightGradAttributes((3, 3), (2, 2), (1, 1, 1, 1))).weight
        (6, 4, 3, 3)
    """
    if data.dtype != gradient.dtype:
        raise DTypeError(
            f"conv_weight_grad data and gradient must have one element type; got {data} and {gradient}."
        )
    check_accumulate(data.dtype, attributes.accumulate)
    if data.rank < 3 or gradient.rank != data.rank or len(attributes.kernel) != data.rank - 2:
        raise ShapeError(
            f"conv_weight_grad must have data (N, C, *spatial), a gradient (N, K, *spatial') of the same rank and one kernel "
            f"extent per spatial axis; got {data}, {gradient} and kernel {attributes.kernel}."
        )
    channels, group = data.shape[1], attributes.group
    if group < 1 or channels % group:
        raise ShapeError(
            f"conv_weight_grad group must divide the data's channels {channels}; got {group}."
        )
    spec = ConvSpec.of(
        data.shape,
        (gradient.shape[1], channels // group, *attributes.kernel),
        strides=attributes.strides,
        pads=attributes.pads,
        dilations=attributes.dilations,
        group=group,
        dtype=data.dtype,
    )
    if spec.output != gradient.shape:
        raise ShapeError(
            f"conv_weight_grad gradient must have the convolution's output shape {spec.output}; got {gradient.shape} "
            f"(data {data}, kernel {attributes.kernel})."
        )
    return spec


def convolve_weight_grad(x: Array, dy: Array, spec: ConvSpec) -> Array:
    """Return the weight gradient of the convolution `spec` in the arrays' own precision: one matrix product a filter tap."""
    n, g = spec.rank, spec.group
    batch, k, *extents = spec.output
    border = [(0, 0), (0, 0), *zip(spec.pads[:n], spec.pads[n:], strict=True)]
    padded = np.pad(x, border)
    grouped = padded.reshape(batch, g, spec.in_channels // g, *padded.shape[2:])
    gradients = dy.reshape(batch, g, k // g, int(np.prod(extents)))
    w = np.zeros((g, k // g, spec.in_channels // g, *spec.kernel), np.result_type(x, dy))
    for tap in taps_of(spec):
        patch = grouped[(..., *window_of(spec, tap, extents))]
        points = patch.reshape(batch, g, spec.in_channels // g, gradients.shape[-1])
        w[(..., *tap)] = (gradients @ np.swapaxes(points, 2, 3)).sum(0)
    return w.reshape(spec.weight)


def _infer(types: Sequence[TensorType], attributes: ConvWeightGradAttributes) -> TensorType:
    spec = forward_spec(types[0], types[1], attributes)
    return TensorType(spec.weight, spec.dtype)


def _reference(arrays: Sequence[Array], attributes: ConvWeightGradAttributes) -> Array:
    x, dy = arrays
    types = (TensorType(x.shape, "float64"), TensorType(dy.shape, "float64"))
    spec = forward_spec(*types, replace(attributes, accumulate=""))
    return convolve_weight_grad(x, dy, spec)


ROWS: Final = (
    OpDef(
        "conv_weight_grad",
        ConvWeightGradAttributes,
        (2, 2),
        _infer,
        _reference,
        floats=Floats.PRODUCT,
    ),
)
