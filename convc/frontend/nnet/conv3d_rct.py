"""Theano's `Conv3D`, `ConvTransp3D` and `ConvGrad3D`: 3-D correlations of (batch, row, column, time, channel) with a bias."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import whole_numbers
from convc.frontend.dsl.tensor import Operand, Tensor, building, constant, reshape, transpose
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import float_tensor, per_axis
from convc.ir.graph import CONSTANT

__all__ = ["conv3D", "convGrad3D", "convTransp3D"]

_TO_FRONT, _TO_BACK = (0, 4, 1, 2, 3), (0, 2, 3, 4, 1)


def _channels_first(name: str, operand: Operand, like: Operand | None = None) -> Tensor:
    tensor = float_tensor(name, operand, like)
    if len(tensor.shape) != 5:
        raise ShapeError(f"{name} must have 5 axes, channels last; got {tensor.node.type}.")
    if tensor.node.op == CONSTANT:
        # Known filters stay known.
        return constant(np.ascontiguousarray(tensor.node.value.transpose(_TO_FRONT)))
    return transpose(tensor, _TO_FRONT)


def _biased(y: Tensor, b: Operand, name: str | None) -> Tensor:
    bias = float_tensor("b", b, y)
    if bias.shape != (y.shape[1],):
        raise ShapeError(
            f"b must be one number per channel, ({y.shape[1]},); got {bias.node.type}."
        )
    return transpose(y + reshape(bias, (1, -1, 1, 1, 1)), _TO_BACK, name=name)


@building
def conv3D(  # noqa: N802 (Theano's name)
    V: Operand, W: Operand, b: Operand, d: Sequence[int], *, name: str | None = None
) -> Tensor:
    """Return the correlation of V with W (no flip), strides d, plus b.

    Shapes:
        V (batch, row, column, time, in), W (out, row, column, time, in), b (out,), d 3 numbers -> (batch, row, column, time, out)

    Source:
        theano.tensor.nnet.Conv3D.conv3D.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> nnet.conv3D(dsl.input("V", (2, 6, 5, 4, 3)), np.ones((7, 3, 2, 2, 3)), np.zeros(7), (1, 1, 2)).shape
        (2, 4, 4, 2, 7)
    """
    x = _channels_first("V", V, W)
    w = _channels_first("W", W, x)
    y = Convolution(3, subsample=per_axis("d", d, 3), filter_flip=False).forward(x, w)
    return _biased(y, b, name)


@building
def convTransp3D(  # noqa: N802 (Theano's name)
    W: Operand,
    b: Operand,
    d: Sequence[int],
    H: Operand,
    RShape: Sequence[int] | None = None,
    *,
    name: str | None = None,
) -> Tensor:
    """Return the transpose of `conv3D` applied to H, plus b, one number per channel of the result.

    Args:
        W: (out, row, column, time, in).
        b: (in,).
        d: 3 strides.
        H: (batch, row, column, time, out).
        RShape: the result's rows, columns and times; None or -1: the least that give H's.
        name: of the result.

    Returns:
        (batch, row, column, time, in)
    """
    h = _channels_first("H", H, W)
    w = _channels_first("W", W, h)
    strides = per_axis("d", d, 3)
    least = [(o - 1) * s + k for o, s, k in zip(h.shape[2:], strides, w.shape[2:], strict=True)]
    given = (-1,) * 3 if RShape is None else whole_numbers("RShape", RShape, 3)
    extents = [e if r == -1 else r for r, e in zip(given, least, strict=True)]
    convolution = Convolution(3, subsample=strides, filter_flip=False)
    return _biased(convolution.input_gradient(h, w, (None, None, *extents)), b, name)


@building
def convGrad3D(  # noqa: N802 (Theano's name)
    V: Operand, d: Sequence[int], WShape: Sequence[int], dCdH: Operand, *, name: str | None = None
) -> Tensor:
    """Return the gradient of `conv3D` with respect to W, of shape WShape: (out, row, column, time, in)."""
    x = _channels_first("V", V, dCdH)
    dy = _channels_first("dCdH", dCdH, x)
    out, *kernel, channels = whole_numbers("WShape (out, row, column, time, in)", WShape, 5)
    convolution = Convolution(3, subsample=per_axis("d", d, 3), filter_flip=False)
    dw = convolution.weight_gradient(x, dy, (out, channels, *kernel))
    return transpose(dw, _TO_BACK, name=name)
