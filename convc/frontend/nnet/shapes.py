"""Shapes of convolutions and of their gradients, by Theano's names; None is an extent that is not known.

The one quirk not kept: `get_conv_gradweights_shape` divides with a remainder there and returns a float; here whole numbers only,
and (OC, IC/groups, ...) with groups, where Theano divides the other channel count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from convc.errors import ShapeError
from convc.frontend.dsl.tensor import Tensor
from convc.frontend.nnet.geometry import BorderMode, axis_pads, check_declared, dilated

__all__ = [
    "assert_conv_shape",
    "assert_shape",
    "check_conv_gradinputs_shape",
    "get_conv_gradinputs_shape",
    "get_conv_gradinputs_shape_1axis",
    "get_conv_gradweights_shape",
    "get_conv_gradweights_shape_1axis",
    "get_conv_output_shape",
    "get_conv_shape_1axis",
]

Extent: TypeAlias = int | None
Extents: TypeAlias = Sequence[Extent]


def _modes(border_mode: BorderMode, rank: int) -> list[object]:
    if isinstance(border_mode, Sequence) and not isinstance(border_mode, str):
        if len(border_mode) != rank:
            raise ShapeError(f"border_mode must have {rank} entries; got {border_mode!r}.")
        return list(border_mode)
    return [border_mode] * rank


def get_conv_shape_1axis(
    image_shape: Extent,
    kernel_shape: Extent,
    border_mode: object,
    subsample: int,
    dilation: int = 1,
) -> Extent:
    """Return floor((image + pads - dilated kernel) / subsample) + 1.

    Example:
        >>> get_conv_shape_1axis(9, 3, "half", 2), get_conv_shape_1axis(None, 3, "valid", 1)
        (5, None)
    """
    if image_shape is None or kernel_shape is None or border_mode is None:
        return None
    covered = dilated(kernel_shape, dilation)
    return (image_shape + sum(axis_pads(border_mode, covered)) - covered) // subsample + 1


def get_conv_output_shape(
    image_shape: Extents,
    kernel_shape: Extents,
    border_mode: BorderMode,
    subsample: Sequence[int],
    filter_dilation: Sequence[int] | None = None,
) -> tuple[Extent, ...]:
    """Return the shape of a convolution's output.

    Args:
        image_shape: (batch, channels, *spatial).
        kernel_shape: (output channels, input channels, *kernel), or unshared, (output channels, *output, input channels, *kernel).
        border_mode: as `border_mode_to_pad`.
        subsample: strides.
        filter_dilation: distance of taps; default 1.

    Example:
        >>> get_conv_output_shape((3, 2, 12, 9), (4, 2, 5, 6), "full", (1, 2), (2, 1))
        (3, 4, 20, 7)
    """
    rank = len(subsample)
    kernel, dilations = kernel_shape[-rank:], filter_dilation or (1,) * rank
    rows = zip(
        image_shape[2:], kernel, _modes(border_mode, rank), subsample, dilations, strict=True
    )
    return (image_shape[0], kernel_shape[0], *(get_conv_shape_1axis(*row) for row in rows))


def get_conv_gradinputs_shape_1axis(
    kernel_shape: Extent, top_shape: Extent, border_mode: object, subsample: int, dilation: int
) -> Extent:
    """Return the image extent that a convolution of stride 1 makes `top_shape` of; None for other strides: there are several.

    Example:
        >>> get_conv_gradinputs_shape_1axis(3, 5, "valid", 1, 2)
        9
    """
    if kernel_shape is None or top_shape is None or border_mode is None or subsample != 1:
        return None
    covered = dilated(kernel_shape, dilation)
    return top_shape + covered - 1 - sum(axis_pads(border_mode, covered))


def get_conv_gradinputs_shape(
    kernel_shape: Extents,
    top_shape: Extents,
    border_mode: BorderMode,
    subsample: Sequence[int],
    filter_dilation: Sequence[int] | None = None,
    num_groups: int = 1,
) -> tuple[Extent, ...]:
    """Return the shape of the input of which a convolution makes an output of `top_shape`; None on axes with a stride.

    Example:
        >>> get_conv_gradinputs_shape((4, 2, 3, 3), (3, 4, 5, 5), "valid", (1, 2))
        (3, 2, 7, None)
    """
    rank = len(subsample)
    kernel, dilations = kernel_shape[-rank:], filter_dilation or (1,) * rank
    channels = kernel_shape[-rank - 1]
    rows = zip(kernel, top_shape[2:], _modes(border_mode, rank), subsample, dilations, strict=True)
    extents = (get_conv_gradinputs_shape_1axis(*row) for row in rows)
    return (top_shape[0], None if channels is None else channels * num_groups, *extents)


def get_conv_gradweights_shape_1axis(
    image_shape: Extent, top_shape: Extent, border_mode: object, subsample: int, dilation: int
) -> Extent:
    """Return the kernel extent of a convolution of stride 1; None for other strides and for 'half': there are several.

    Raises:
        ShapeError: if no filter of that dilation makes one extent of the other.

    Example:
        >>> get_conv_gradweights_shape_1axis(9, 5, "valid", 1, 2)
        3
    """
    if image_shape is None or top_shape is None or border_mode is None:
        return None
    if subsample != 1 or border_mode == "half":
        return None
    if border_mode == "full":
        span = top_shape - image_shape
    else:
        span = image_shape + sum(axis_pads(border_mode, 1)) - top_shape
    if span < 0 or span % dilation:
        raise ShapeError(
            f"filter must span a multiple of its dilation {dilation} >= 0 to make {top_shape} points of {image_shape}; got {span}."
        )
    return span // dilation + 1


def get_conv_gradweights_shape(
    image_shape: Extents,
    top_shape: Extents,
    border_mode: BorderMode,
    subsample: Sequence[int],
    filter_dilation: Sequence[int] | None = None,
    num_groups: int = 1,
    unshared: bool = False,
) -> tuple[Extent, ...]:
    """Return the shape of the filters with which a convolution makes an output of `top_shape`; None where several do.

    Example:
        >>> get_conv_gradweights_shape((3, 2, 9, 9), (3, 4, 7, 5), "valid", (1, 1), (1, 2))
        (4, 2, 3, 3)
    """
    rank = len(subsample)
    dilations = filter_dilation or (1,) * rank
    rows = zip(
        image_shape[2:], top_shape[2:], _modes(border_mode, rank), subsample, dilations, strict=True
    )
    extents = [get_conv_gradweights_shape_1axis(*row) for row in rows]
    channels = image_shape[1]
    channels = None if channels is None else channels // num_groups
    outputs = top_shape[2:] if unshared else ()
    return (top_shape[1], *outputs, channels, *extents)


def check_conv_gradinputs_shape(
    image_shape: Extents,
    kernel_shape: Extents,
    output_shape: Extents,
    border_mode: BorderMode,
    subsample: Sequence[int],
    filter_dilation: Sequence[int] | None = None,
) -> bool:
    """Whether a convolution of the image would have this output, as far as the extents are known.

    Example:
        >>> check_conv_gradinputs_shape((1, 1, 5, 5), (1, 1, 3, 3), (1, 1, 2, 2), "valid", (2, 2))
        True
        >>> check_conv_gradinputs_shape((1, 1, 7, 5), (1, 1, 3, 3), (1, 1, 2, 2), "valid", (2, 2))
        False
    """
    rank = len(image_shape) - 2
    lengths = {len(image_shape), len(kernel_shape), len(output_shape)}
    if len(lengths) > 1 or len(subsample) != rank or len(filter_dilation or subsample) != rank:
        return False
    computed = get_conv_output_shape(
        image_shape, kernel_shape, border_mode, subsample, filter_dilation
    )
    pairs = zip(output_shape, computed, strict=True)
    return all(given is None or found is None or given == found for given, found in pairs)


def assert_conv_shape(shape: Extents) -> tuple[Extent, ...]:
    """Return the shape of a convolution's operand or result if it is one: batch and channels >= 0, spatial extents >= 1.

    Raises:
        ShapeError: otherwise.
    """
    for axis, extent in enumerate(shape):
        least = 0 if axis < 2 else 1
        if extent is not None and extent < least:
            raise ShapeError(
                f"a convolution's shape must have axis {axis} >= {least}; got {extent} in {tuple(shape)}."
            )
    return tuple(shape)


def assert_shape(
    x: Tensor, expected_shape: Extents | None, msg: str = "Unexpected shape."
) -> Tensor:
    """Return `x` if it has the expected shape; None matches anything.

    Raises:
        ShapeError: otherwise, with `msg`.
    """
    try:
        check_declared("expected_shape", expected_shape, x.shape)
    except ShapeError as error:
        error.add_note(msg)
        raise
    return x
