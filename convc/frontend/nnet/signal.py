"""`theano.tensor.signal`: convolution of single images without channels, and the pools."""

from __future__ import annotations

from convc.errors import ShapeError
from convc.frontend.dsl.tensor import Operand, Tensor, building, reshape
from convc.frontend.nnet.conv_layers import Numbers
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import BorderMode, DeclaredShape, check_declared, float_tensor
from convc.frontend.nnet.pool import max_pool_2d_same_size, pool_2d, pool_3d

__all__ = ["conv2d", "max_pool_2d_same_size", "pool_2d", "pool_3d"]


@building
def conv2d(
    input: Operand,
    filters: Operand,
    image_shape: DeclaredShape = None,
    filter_shape: DeclaredShape = None,
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1),
    *,
    name: str | None = None,
) -> Tensor:
    """Return the convolution of images with filters, every one with every one; filters are flipped.

    Shapes:
        (H, W), (R, S) -> (P, Q); (N, H, W), (R, S) -> (N, P, Q); (H, W), (F, R, S) -> (F, P, Q); (N, H, W), (F, R, S) -> (N, F, P, Q)

    Source:
        theano.tensor.signal.conv.conv2d.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> nnet.signal.conv2d(dsl.input("x", (2, 8, 8)), np.ones((3, 3))).shape
        (2, 6, 6)
    """
    x = float_tensor("input", input, filters)
    w = float_tensor("filters", filters, x)
    for label, tensor in (("input", x), ("filters", w)):
        if len(tensor.shape) not in (2, 3):
            raise ShapeError(f"{label} must have 2 or 3 axes; got {tensor.node.type}.")
    check_declared("image_shape", image_shape, x.shape)
    check_declared("filter_shape", filter_shape, w.shape)
    images = reshape(x, (-1 if len(x.shape) == 3 else 1, 1, *x.shape[-2:]))
    kernels = reshape(w, (-1 if len(w.shape) == 3 else 1, 1, *w.shape[-2:]))
    y = Convolution(2, border_mode, subsample).forward(images, kernels)
    return reshape(y, (*x.shape[:-2], *w.shape[:-2], *y.shape[2:]), name=name)
