"""`theano.tensor.nnet.conv`: the convolution of the years before `filter_flip`, with its hints to the old code generator."""

from __future__ import annotations

from typing import Final

from convc.errors import ShapeError, unknown_name
from convc.frontend.dsl.arguments import is_one_of, is_whole
from convc.frontend.dsl.tensor import Operand, Tensor, building
from convc.frontend.nnet.conv_layers import Numbers
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import DeclaredShape

__all__ = ["conv2d"]

# Hints about loops that convc's own schedules choose: taken and not needed.
_HINTS: Final = (
    "unroll_batch",
    "unroll_kern",
    "unroll_patch",
    "openmp",
    "verbose",
    "direction_hint",
)
_LOGICAL: Final = ("imshp_logical", "kshp_logical", "kshp_logical_top_aligned")


@building
def conv2d(
    input: Operand,
    filters: Operand,
    image_shape: DeclaredShape = None,
    filter_shape: DeclaredShape = None,
    border_mode: str = "valid",
    subsample: Numbers = (1, 1),
    *,
    version: int | str = -1,
    name: str | None = None,
    **hints: object,
) -> Tensor:
    """Return a 2-D convolution with flipped filters.

    Args:
        input: (batch, IC, rows, columns).
        filters: (OC, IC, rows, columns).
        image_shape: checked.
        filter_shape: checked.
        border_mode: 'valid' or 'full'.
        subsample: strides.
        version: -1, or 'no_fft' to be computed without Fourier transforms.
        name: of the result.
        hints: unroll_batch, unroll_kern, unroll_patch, openmp, verbose and direction_hint are taken; they change nothing.

    Raises:
        ShapeError: for another border mode or version, and for logical shapes.
        UnknownNameError: for another argument.

    Source:
        theano.tensor.nnet.conv.conv2d.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> nnet.conv.conv2d(dsl.input("x", (1, 3, 8, 8)), np.ones((4, 3, 3, 3)), border_mode="full", unroll_kern=4).shape
        (1, 4, 10, 10)
    """
    for hint in hints:
        if hint in _LOGICAL:
            raise ShapeError(
                f"{hint} must not be given: dilate with nnet.conv2d's filter_dilation instead."
            )
        if hint not in _HINTS:
            raise unknown_name("argument of conv2d", hint, (*_HINTS, "version"))
    if not is_one_of(border_mode, ("valid", "full")):
        raise ShapeError(
            f"border_mode must be 'valid' or 'full'; got {border_mode!r}. nnet.conv2d takes the others."
        )
    without_fft = is_one_of(version, ("no_fft",))
    if not without_fft and not (is_whole(version) and version == -1):
        raise ShapeError(f"version must be -1 or 'no_fft'; got {version!r}.")
    algorithm = "direct,im2col,generic" if without_fft else ""
    return Convolution(2, border_mode, subsample, algorithm=algorithm, name=name).forward(
        input, filters, image_shape, filter_shape
    )
