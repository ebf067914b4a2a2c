"""Theano's convolution functions: `aesara.tensor.nnet.conv2d` and its relatives, by their names and argument names.

Keyword arguments that Theano does not have come last: `name`; `precision` as in its cuDNN module. Declared shapes are always checked.
"""

from __future__ import annotations

import warnings
from typing import TypeAlias

from convc.errors import ShapeError
from convc.frontend.dsl.tensor import Operand, Tensor, building
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import BorderMode, DeclaredShape

__all__ = ["Numbers", "conv2d", "conv3d"]

# One number for every spatial axis, or one for each.
Numbers: TypeAlias = int | tuple[int, ...]


@building
def conv2d(
    input: Operand,
    filters: Operand,
    input_shape: DeclaredShape = None,
    filter_shape: DeclaredShape = None,
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1),
    filter_flip: bool = True,
    image_shape: DeclaredShape = None,
    filter_dilation: Numbers = (1, 1),
    num_groups: int = 1,
    unshared: bool = False,
    *,
    precision: str | None = None,
    name: str | None = None,
    **kwargs: object,
) -> Tensor:
    """Return a 2-D convolution: filters are flipped unless `filter_flip=False`.

    Args:
        input: (batch, IC, rows, columns).
        filters: (OC, IC/num_groups, rows, columns); unshared (OC, output rows, output columns, IC/num_groups, rows, columns).
        input_shape: checked; None where not known.
        filter_shape: checked; None where not known.
        border_mode: 'valid', 'full', 'half', an int, or an int or pair of ints per axis; see `border_mode_to_pad`.
        subsample: strides.
        filter_flip: whether this is a textbook's convolution (True) or a cross-correlation.
        image_shape: an old name of `input_shape`.
        filter_dilation: distance of taps.
        num_groups: groups of channels, each convolved for itself.
        unshared: a filter of its own for every output point.
        precision: element type of the sums: None (float32 for narrower operands), 'as_input', or an element type.
        name: of the result.
        kwargs: other arguments are ignored with a warning, as in Theano.

    Raises:
        ShapeError: if operands, attributes and declared shapes do not fit each other.
        DTypeError: for operands that are no floats.
        ValueError: if both `input_shape` and `image_shape` are given, or `imshp_logical` or `kshp_logical`.

    Source:
        aesara.tensor.nnet.conv2d.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> x = dsl.input("x", (2, 3, 8, 8))
        >>> nnet.conv2d(x, np.ones((4, 3, 3, 3)), border_mode="half", subsample=(2, 2)).shape
        (2, 4, 4, 4)
    """
    for forbidden in ("imshp_logical", "kshp_logical"):
        if kwargs.pop(forbidden, None) is not None:
            raise ShapeError(
                f"{forbidden} must not be given: it has no meaning here; dilate with filter_dilation, or use conv2d_transpose."
            )
    if kwargs:
        warnings.warn(
            f"conv2d ignores the arguments {', '.join(kwargs)}, which it does not know.",
            stacklevel=3,
        )
    if image_shape is not None:
        if input_shape is not None:
            raise ShapeError(
                f"input_shape and image_shape must not both be given; got {input_shape} and {image_shape}."
            )
        input_shape = image_shape
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
    ).forward(input, filters, input_shape, filter_shape)


@building
def conv3d(
    input: Operand,
    filters: Operand,
    input_shape: DeclaredShape = None,
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
    """Return a 3-D convolution; arguments as `conv2d`, with three spatial axes. Asymmetric borders and `unshared` are taken, too.

    Shapes:
        input (batch, IC, depth, rows, columns), filters (OC, IC/num_groups, depth, rows, columns)
    """
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
    ).forward(input, filters, input_shape, filter_shape)
