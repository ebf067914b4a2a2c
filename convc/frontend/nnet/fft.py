"""`theano.sandbox.cuda.fftconv`: convolutions by Fourier transforms, which ask for the `fft` algorithm by their name.

Theano's limits (float32 on a GPU, an even last axis, no gradient) do not apply; where `fft` cannot be had, the compiled module says why.
"""

from __future__ import annotations

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import is_one_of
from convc.frontend.dsl.tensor import Operand, Tensor, building
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import DeclaredShape

__all__ = ["conv2d_fft", "conv3d_fft"]


def _fft(
    rank: int,
    input: Operand,
    filters: Operand,
    image_shape: DeclaredShape,
    filter_shape: DeclaredShape,
    border_mode: str,
    name: str | None,
) -> Tensor:
    if not is_one_of(border_mode, ("valid", "full")):
        raise ShapeError(f"border_mode must be 'valid' or 'full'; got {border_mode!r}.")
    convolution = Convolution(rank, border_mode, algorithm="fft", name=name)
    return convolution.forward(input, filters, image_shape, filter_shape)


@building
def conv2d_fft(
    input: Operand,
    filters: Operand,
    image_shape: DeclaredShape = None,
    filter_shape: DeclaredShape = None,
    border_mode: str = "valid",
    pad_last_dim: bool = False,
    *,
    name: str | None = None,
) -> Tensor:
    """Return a 2-D convolution with flipped filters, stride 1, by Fourier transforms.

    Args:
        input: (batch, IC, rows, columns).
        filters: (OC, IC, rows, columns).
        image_shape: checked.
        filter_shape: checked.
        border_mode: 'valid' or 'full'.
        pad_last_dim: not needed: any extent is taken.
        name: of the result.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> y = nnet.conv2d_fft(dsl.input("x", (1, 3, 9, 9)), np.ones((4, 3, 5, 5)))
        >>> y.shape, y.node.attributes.algorithm
        ((1, 4, 5, 5), 'fft')
    """
    return _fft(2, input, filters, image_shape, filter_shape, border_mode, name)


@building
def conv3d_fft(
    input: Operand,
    filters: Operand,
    image_shape: DeclaredShape = None,
    filter_shape: DeclaredShape = None,
    border_mode: str = "valid",
    pad_last_dim: bool = False,
    *,
    name: str | None = None,
) -> Tensor:
    """Return a 3-D convolution with flipped filters, stride 1; as `conv2d_fft`."""
    return _fft(3, input, filters, image_shape, filter_shape, border_mode, name)
