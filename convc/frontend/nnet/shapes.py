"""Shapes of convolutions and of their gradients, by Theano's names; None is an extent that is not known.

The one quirk not kept: `get_conv_gradweights_shape` divides with a remainder there and returns a float; here whole numbers only,
and (OC, IC/groups, ...) with groups, where Theano divides the other channel count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from convc.errors import DTypeError, ShapeError
from convc.frontend.dsl.arguments import flag, whole
from convc.frontend.dsl.tensor import Operand, Tensor, as_tensor
from convc.frontend.nnet.geometry import (
    BorderMode,
    Extent,
    axis_pads,
    check_declared,
    dilated,
    extent,
    extents,
)

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

Extents: TypeAlias = Sequence[Extent]


class _Axis(NamedTuple):
    """What is said about one spatial axis, in the order of the functions of one axis."""

    border_mode: object
    subsample: Extent
    dilation: Extent


def _axes(
    border_mode: BorderMode, subsample: Extents, filter_dilation: Extents | None
) -> list[_Axis]:
    """Return one row per spatial axis, of which there are as many as strides."""
    strides = extents("subsample", subsample)
    rank = len(strides)
    if not rank:
        raise ShapeError(f"subsample must have one entry per spatial axis; got {subsample!r}.")
    dilations = (
        (1,) * rank
        if filter_dilation is None
        else extents("filter_dilation", filter_dilation, rank)
    )
    modes: Sequence[object] = (border_mode,) * rank
    if isinstance(border_mode, Sequence) and not isinstance(border_mode, str):
        modes = border_mode
    if len(modes) != rank:
        raise ShapeError(f"border_mode must have {rank} entries; got {border_mode!r}.")
    return [_Axis(*row) for row in zip(modes, strides, dilations, strict=True)]


def _filter_shape(kernel_shape: Extents, rank: int) -> tuple[Extent, ...]:
    """Return the shape of filters, shared or not."""
    known = extents("kernel_shape", kernel_shape)
    if len(known) not in (rank + 2, 2 * rank + 2):
        raise ShapeError(
            f"kernel_shape must have {rank + 2} entries, or unshared {2 * rank + 2}; got {kernel_shape!r}."
        )
    return known


def _groups(num_groups: int) -> int:
    if whole("num_groups", num_groups) < 1:
        raise ShapeError(f"num_groups must be >= 1; got {num_groups}.")
    return int(num_groups)


def get_conv_shape_1axis(
    image_shape: Extent,
    kernel_shape: Extent,
    border_mode: object,
    subsample: Extent,
    dilation: Extent = 1,
) -> Extent:
    """Return floor((image + pads - dilated kernel) / subsample) + 1; None if any of them is.

    Raises:
        DTypeError, ShapeError: for what is no extent, border mode, stride or dilation.

    Example:
        >>> get_conv_shape_1axis(9, 3, "half", 2), get_conv_shape_1axis(None, 3, "valid", 1)
        (5, None)
    """
    image, kernel = extent("image_shape", image_shape), extent("kernel_shape", kernel_shape)
    step, apart = extent("subsample", subsample, 1), extent("dilation", dilation, 1)
    if image is None or kernel is None or border_mode is None or step is None or apart is None:
        return None
    covered = dilated(kernel, apart)
    return (image + sum(axis_pads(border_mode, covered)) - covered) // step + 1


def get_conv_output_shape(
    image_shape: Extents,
    kernel_shape: Extents,
    border_mode: BorderMode,
    subsample: Extents,
    filter_dilation: Extents | None = None,
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
    axes = _axes(border_mode, subsample, filter_dilation)
    batch, _, *image = extents("image_shape", image_shape, len(axes) + 2)
    filters = _filter_shape(kernel_shape, len(axes))
    rows = zip(image, filters[-len(axes) :], axes, strict=True)
    return (batch, filters[0], *(get_conv_shape_1axis(i, k, *axis) for i, k, axis in rows))


def get_conv_gradinputs_shape_1axis(
    kernel_shape: Extent,
    top_shape: Extent,
    border_mode: object,
    subsample: Extent,
    dilation: Extent,
) -> Extent:
    """Return the image extent that a convolution of stride 1 makes `top_shape` of; None for other strides: there are several.

    Raises:
        DTypeError, ShapeError: as `get_conv_shape_1axis`.

    Example:
        >>> get_conv_gradinputs_shape_1axis(3, 5, "valid", 1, 2)
        9
    """
    kernel, top = extent("kernel_shape", kernel_shape), extent("top_shape", top_shape)
    step, apart = extent("subsample", subsample, 1), extent("dilation", dilation, 1)
    if kernel is None or top is None or border_mode is None or step != 1 or apart is None:
        return None
    covered = dilated(kernel, apart)
    return top + covered - 1 - sum(axis_pads(border_mode, covered))


def get_conv_gradinputs_shape(
    kernel_shape: Extents,
    top_shape: Extents,
    border_mode: BorderMode,
    subsample: Extents,
    filter_dilation: Extents | None = None,
    num_groups: int = 1,
) -> tuple[Extent, ...]:
    """Return the shape of the input of which a convolution makes an output of `top_shape`; None on axes with a stride.

    Example:
        >>> get_conv_gradinputs_shape((4, 2, 3, 3), (3, 4, 5, 5), "valid", (1, 2))
        (3, 2, 7, None)
    """
    axes = _axes(border_mode, subsample, filter_dilation)
    channels, *kernel = _filter_shape(kernel_shape, len(axes))[-len(axes) - 1 :]
    batch, _, *top = extents("top_shape", top_shape, len(axes) + 2)
    groups = _groups(num_groups)
    rows = zip(kernel, top, axes, strict=True)
    spatial = (get_conv_gradinputs_shape_1axis(k, t, *axis) for k, t, axis in rows)
    return (batch, None if channels is None else channels * groups, *spatial)


def get_conv_gradweights_shape_1axis(
    image_shape: Extent,
    top_shape: Extent,
    border_mode: object,
    subsample: Extent,
    dilation: Extent,
) -> Extent:
    """Return the kernel extent of a convolution of stride 1; None for other strides and for 'half': there are several.

    Raises:
        ShapeError: if no filter of that dilation makes one extent of the other.
        DTypeError, ShapeError: as `get_conv_shape_1axis`.

    Example:
        >>> get_conv_gradweights_shape_1axis(9, 5, "valid", 1, 2)
        3
    """
    image, top = extent("image_shape", image_shape), extent("top_shape", top_shape)
    step, apart = extent("subsample", subsample, 1), extent("dilation", dilation, 1)
    if image is None or top is None or border_mode is None or step != 1 or apart is None:
        return None
    named = border_mode if isinstance(border_mode, str) else ""
    if named == "half":
        return None
    span = top - image if named == "full" else image + sum(axis_pads(border_mode, 1)) - top
    if span < 0 or span % apart:
        raise ShapeError(
            f"filter must span a multiple of its dilation {apart} >= 0 to make {top} points of {image}; got {span}."
        )
    return span // apart + 1


def get_conv_gradweights_shape(
    image_shape: Extents,
    top_shape: Extents,
    border_mode: BorderMode,
    subsample: Extents,
    filter_dilation: Extents | None = None,
    num_groups: int = 1,
    unshared: bool = False,
) -> tuple[Extent, ...]:
    """Return the shape of the filters with which a convolution makes an output of `top_shape`; None where several do.

    Example:
        >>> get_conv_gradweights_shape((3, 2, 9, 9), (3, 4, 7, 5), "valid", (1, 1), (1, 2))
        (4, 2, 3, 3)
    """
    axes = _axes(border_mode, subsample, filter_dilation)
    _, channels, *image = extents("image_shape", image_shape, len(axes) + 2)
    _, made, *top = extents("top_shape", top_shape, len(axes) + 2)
    groups, outputs = _groups(num_groups), top if flag("unshared", unshared) else ()
    rows = zip(image, top, axes, strict=True)
    kernel = [get_conv_gradweights_shape_1axis(i, t, *axis) for i, t, axis in rows]
    return (made, *outputs, None if channels is None else channels // groups, *kernel)


def check_conv_gradinputs_shape(
    image_shape: Extents,
    kernel_shape: Extents,
    output_shape: Extents,
    border_mode: BorderMode,
    subsample: Extents,
    filter_dilation: Extents | None = None,
) -> bool:
    """Whether a convolution of the image would have this output, as far as the extents are known.

    Example:
        >>> check_conv_gradinputs_shape((1, 1, 5, 5), (1, 1, 3, 3), (1, 1, 2, 2), "valid", (2, 2))
        True
        >>> check_conv_gradinputs_shape((1, 1, 7, 5), (1, 1, 3, 3), (1, 1, 2, 2), "valid", (2, 2))
        False
    """
    strides, output = extents("subsample", subsample), extents("output_shape", output_shape)
    image, kernel = extents("image_shape", image_shape), extents("kernel_shape", kernel_shape)
    dilations = strides if filter_dilation is None else extents("filter_dilation", filter_dilation)
    lengths = {len(image), len(kernel), len(output), len(strides) + 2, len(dilations) + 2}
    if len(lengths) > 1:
        return False
    computed = get_conv_output_shape(image, kernel, border_mode, strides, filter_dilation)
    pairs = zip(output, computed, strict=True)
    return all(given is None or found is None or given == found for given, found in pairs)


def assert_conv_shape(shape: Extents) -> tuple[Extent, ...]:
    """Return the shape of a convolution's operand or result if it is one: batch and channels >= 0, spatial extents >= 1.

    Raises:
        ShapeError: otherwise.
    """
    known = extents("a convolution's shape", shape)
    for axis, given in enumerate(known):
        least = 0 if axis < 2 else 1
        if given is not None and given < least:
            raise ShapeError(
                f"a convolution's shape must have axis {axis} >= {least}; got {given} in {known}."
            )
    return known


def assert_shape(
    x: Operand, expected_shape: Extents | None, msg: str = "Unexpected shape."
) -> Tensor:
    """Return `x` if it has the expected shape; None matches anything.

    Raises:
        ShapeError: otherwise, with `msg`.
        DTypeError: for what is no tensor, shape or text.
    """
    if not isinstance(msg, str):
        raise DTypeError(f"msg must be a string; got {msg!r}.")
    tensor = as_tensor(x)
    try:
        check_declared("expected_shape", expected_shape, tensor.shape)
    except ShapeError as error:
        error.add_note(msg)
        raise
    return tensor
