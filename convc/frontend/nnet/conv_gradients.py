"""Transposed convolutions and the gradients of convolutions, by Theano's names and argument names.

`input_shape`, `output_shape` and `filter_shape` are required where the operands leave several possibilities, and always checked.
"""

from __future__ import annotations

from convc.frontend.dsl.tensor import Operand, Tensor, building
from convc.frontend.nnet.conv_layers import Numbers
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import BorderMode, DeclaredShape

__all__ = [
    "conv2d_grad_wrt_inputs",
    "conv2d_grad_wrt_weights",
    "conv2d_transpose",
    "conv3d_grad_wrt_inputs",
    "conv3d_grad_wrt_weights",
    "conv3d_transpose",
]


@building
def conv2d_transpose(
    input: Operand,
    filters: Operand,
    output_shape: DeclaredShape,
    filter_shape: DeclaredShape = None,
    border_mode: BorderMode = "valid",
    input_dilation: Numbers = (1, 1),
    filter_flip: bool = True,
    filter_dilation: Numbers = (1, 1),
    num_groups: int = 1,
    unshared: bool = False,
    *,
    precision: str | None = None,
    name: str | None = None,
) -> Tensor:
    """Return a transposed 2-D convolution: the gradient of `conv2d` with respect to its input.

    Args:
        input: (batch, input channels, rows, columns).
        filters: (input channels, output channels/num_groups, rows, columns): the order of `conv2d` for the reversed direction.
        output_shape: required: with a stride there are several; None for batch and channels.
        filter_shape: checked.
        border_mode: how much is cut off.
        input_dilation: the stride of the convolution that this transposes.
        filter_flip: as `conv2d`.
        filter_dilation: as `conv2d`.
        num_groups: as `conv2d`.
        unshared: as `conv2d`.
        precision: as `conv2d`.
        name: of the result.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> x = dsl.input("x", (1, 8, 4, 4))
        >>> nnet.conv2d_transpose(x, np.ones((8, 3, 4, 4)), (None, None, 8, 8), border_mode=1, input_dilation=(2, 2)).shape
        (1, 3, 8, 8)
    """
    return Convolution(
        2,
        border_mode,
        input_dilation,
        filter_flip,
        filter_dilation,
        num_groups,
        unshared,
        precision,
        name=name,
    ).input_gradient(input, filters, output_shape, filter_shape)


@building
def conv3d_transpose(
    input: Operand,
    filters: Operand,
    output_shape: DeclaredShape,
    filter_shape: DeclaredShape = None,
    border_mode: BorderMode = "valid",
    input_dilation: Numbers = (1, 1, 1),
    filter_flip: bool = True,
    filter_dilation: Numbers = (1, 1, 1),
    num_groups: int = 1,
    unshared: bool = False,
    *,
    precision: str | None = None,
    name: str | None = None,
) -> Tensor:
    """Return a transposed 3-D convolution; as `conv2d_transpose`."""
    return Convolution(
        3,
        border_mode,
        input_dilation,
        filter_flip,
        filter_dilation,
        num_groups,
        unshared,
        precision,
        name=name,
    ).input_gradient(input, filters, output_shape, filter_shape)


@building
def conv2d_grad_wrt_inputs(
    output_grad: Operand,
    filters: Operand,
    input_shape: DeclaredShape,
    filter_shape: DeclaredShape = None,
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1),
    filter_flip: bool = True,
    filter_dilation: Numbers = (1, 1),
    num_groups: int = 1,
    unshared: bool = False,
    *,
    precision: str | None = None,
    name: str | None = None,
) -> Tensor:
    """Return the gradient of `conv2d` with respect to its input, of shape `input_shape`: None for batch and channels.

    Raises:
        ShapeError: if `input_shape` is one that does not give an output of `output_grad`'s shape.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> g = dsl.input("g", (1, 4, 3, 3))
        >>> nnet.conv2d_grad_wrt_inputs(g, np.ones((4, 2, 3, 3)), (None, None, 8, 8), subsample=(2, 2)).shape
        (1, 2, 8, 8)
    """
    return Convolution(
        2,
        border_mode,
        subsample,
        filter_flip,
        filter_dilation,
        num_groups,
        unshared,
        precision,
        name=name,
    ).input_gradient(output_grad, filters, input_shape, filter_shape)


@building
def conv3d_grad_wrt_inputs(
    output_grad: Operand,
    filters: Operand,
    input_shape: DeclaredShape,
    filter_shape: DeclaredShape = None,
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1, 1),
    filter_flip: bool = True,
    filter_dilation: Numbers = (1, 1, 1),
    num_groups: int = 1,
    unshared: bool = False,
    *,
    precision: str | None = None,
    name: str | None = None,
) -> Tensor:
    """Return the gradient of `conv3d` with respect to its input; as `conv2d_grad_wrt_inputs`."""
    return Convolution(
        3,
        border_mode,
        subsample,
        filter_flip,
        filter_dilation,
        num_groups,
        unshared,
        precision,
        name=name,
    ).input_gradient(output_grad, filters, input_shape, filter_shape)


@building
def conv2d_grad_wrt_weights(
    input: Operand,
    output_grad: Operand,
    filter_shape: DeclaredShape,
    input_shape: DeclaredShape = None,
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1),
    filter_flip: bool = True,
    filter_dilation: Numbers = (1, 1),
    num_groups: int = 1,
    unshared: bool = False,
    *,
    precision: str | None = None,
    name: str | None = None,
) -> Tensor:
    """Return the gradient of `conv2d` with respect to its filters, of shape `filter_shape`: all but the kernel may be None.

    Raises:
        ShapeError: if such filters do not give an output of `output_grad`'s shape.

    Example:
        >>> from convc import dsl, nnet
        >>> x, g = dsl.input("x", (2, 3, 8, 8)), dsl.input("g", (2, 4, 6, 6))
        >>> nnet.conv2d_grad_wrt_weights(x, g, (None, None, 3, 3)).shape
        (4, 3, 3, 3)
    """
    return Convolution(
        2,
        border_mode,
        subsample,
        filter_flip,
        filter_dilation,
        num_groups,
        unshared,
        precision,
        name=name,
    ).weight_gradient(input, output_grad, filter_shape, input_shape)


@building
def conv3d_grad_wrt_weights(
    input: Operand,
    output_grad: Operand,
    filter_shape: DeclaredShape,
    input_shape: DeclaredShape = None,
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1, 1),
    filter_flip: bool = True,
    filter_dilation: Numbers = (1, 1, 1),
    num_groups: int = 1,
    unshared: bool = False,
    *,
    precision: str | None = None,
    name: str | None = None,
) -> Tensor:
    """Return the gradient of `conv3d` with respect to its filters; as `conv2d_grad_wrt_weights`."""
    return Convolution(
        3,
        border_mode,
        subsample,
        filter_flip,
        filter_dilation,
        num_groups,
        unshared,
        precision,
        name=name,
    ).weight_gradient(input, output_grad, filter_shape, input_shape)
