"""Convolutions made of others: separable ones, and the causal one of signals."""

from __future__ import annotations

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import whole
from convc.frontend.dsl.tensor import Operand, Tensor, building
from convc.frontend.nnet.conv_layers import Numbers
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import BorderMode, DeclaredShape, float_tensor, per_axis

__all__ = ["causal_conv1d", "separable_conv2d", "separable_conv3d"]


def _separable(
    depthwise: Convolution,
    input: Operand,
    depthwise_filters: Operand,
    pointwise_filters: Operand,
    input_shape: DeclaredShape,
    depthwise_filter_shape: DeclaredShape,
    pointwise_filter_shape: DeclaredShape,
    name: str | None,
) -> Tensor:
    x = float_tensor("input", input, depthwise_filters)
    if len(x.shape) > 1 and x.shape[1] != depthwise.num_groups:
        raise ShapeError(
            f"num_channels must be the input's channels; got {depthwise.num_groups} for {x.node.type}."
        )
    y = depthwise.forward(x, depthwise_filters, input_shape, depthwise_filter_shape)
    pointwise = float_tensor("pointwise_filters", pointwise_filters, x)
    if any(extent != 1 for extent in pointwise.shape[2:]):
        raise ShapeError(
            f"pointwise_filters must be (OC, depthwise channels{', 1' * depthwise.rank}); got {pointwise.node.type}."
        )
    return Convolution(depthwise.rank, name=name).forward(
        y, pointwise, None, pointwise_filter_shape
    )


@building
def separable_conv2d(
    input: Operand,
    depthwise_filters: Operand,
    pointwise_filters: Operand,
    num_channels: int,
    input_shape: DeclaredShape = None,
    depthwise_filter_shape: DeclaredShape = None,
    pointwise_filter_shape: DeclaredShape = None,
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1),
    filter_flip: bool = True,
    filter_dilation: Numbers = (1, 1),
    *,
    name: str | None = None,
) -> Tensor:
    """Return a depthwise convolution and the 1 x 1 convolution behind it; border, stride and dilation are the depthwise one's.

    Shapes:
        input (batch, num_channels, rows, columns), depthwise_filters (num_channels * multiplier, 1, rows, columns),
        pointwise_filters (OC, num_channels * multiplier, 1, 1)

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> x = dsl.input("x", (1, 4, 9, 8))
        >>> nnet.separable_conv2d(x, np.ones((8, 1, 3, 3)), np.ones((5, 8, 1, 1)), 4).shape
        (1, 5, 7, 6)
    """
    groups = whole("num_channels", num_channels)
    depthwise = Convolution(2, border_mode, subsample, filter_flip, filter_dilation, groups)
    return _separable(
        depthwise,
        input,
        depthwise_filters,
        pointwise_filters,
        input_shape,
        depthwise_filter_shape,
        pointwise_filter_shape,
        name,
    )


@building
def separable_conv3d(
    input: Operand,
    depthwise_filters: Operand,
    pointwise_filters: Operand,
    num_channels: int,
    input_shape: DeclaredShape = None,
    depthwise_filter_shape: DeclaredShape = None,
    pointwise_filter_shape: DeclaredShape = None,
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1, 1),
    filter_flip: bool = True,
    filter_dilation: Numbers = (1, 1, 1),
    *,
    name: str | None = None,
) -> Tensor:
    """Return a depthwise 3-D convolution and the 1 x 1 x 1 convolution behind it; as `separable_conv2d`."""
    groups = whole("num_channels", num_channels)
    depthwise = Convolution(3, border_mode, subsample, filter_flip, filter_dilation, groups)
    return _separable(
        depthwise,
        input,
        depthwise_filters,
        pointwise_filters,
        input_shape,
        depthwise_filter_shape,
        pointwise_filter_shape,
        name,
    )


@building
def causal_conv1d(
    input: Operand,
    filters: Operand,
    filter_shape: DeclaredShape,
    input_shape: DeclaredShape = None,
    subsample: int = 1,
    filter_flip: bool = True,
    filter_dilation: int = 1,
    num_groups: int = 1,
    unshared: bool = False,
    *,
    precision: str | None = None,
    name: str | None = None,
) -> Tensor:
    """Return a convolution of signals whose output at time t reads the input up to t, t itself included.

    Shapes:
        input (batch, IC, length), filters (OC, IC/num_groups, length) -> (batch, OC, (length - 1) // subsample + 1);
        unshared filters, which Theano accepts and then cannot use: (OC, output length, IC/num_groups, length)

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> x = dsl.input("x", (1, 2, 16))
        >>> nnet.causal_conv1d(x, np.ones((4, 2, 3)), (4, 2, 3), filter_dilation=2).shape
        (1, 4, 16)
    """
    w = float_tensor("filters", filters, input)
    (dilation,) = per_axis("filter_dilation", filter_dilation, 1)
    before = dilation * max(0, w.shape[-1] - 1) if w.shape else 0
    return Convolution(
        1,
        ((before, 0),),
        subsample,
        filter_flip,
        dilation,
        num_groups,
        unshared,
        precision,
        name=name,
    ).forward(input, w, input_shape, filter_shape)
