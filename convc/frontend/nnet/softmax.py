"""Softmax as Theano's `nnet` and cuDNN modules have it."""

from __future__ import annotations

import math
from typing import Final

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import one_of
from convc.frontend.dsl.elementwise import exp
from convc.frontend.dsl.reduction import log_softmax as dsl_log_softmax
from convc.frontend.dsl.reduction import softmax as dsl_softmax
from convc.frontend.dsl.reduction import sum as dsl_sum
from convc.frontend.dsl.tensor import Operand, Tensor, building, reshape
from convc.frontend.nnet.geometry import float_tensor
from convc.ir.types import Shape

__all__ = ["GpuDnnSoftmax", "GpuDnnSoftmaxGrad", "logsoftmax", "softmax"]

ALGORITHMS: Final = ("fast", "accurate", "log")
MODES: Final = ("instance", "channel")


@building
def softmax(c: Operand, axis: int | None = None, *, name: str | None = None) -> Tensor:
    """Return exp(c) / sum(exp(c)) along `axis`; left out, the last one, which is Theano's for vectors and matrices."""
    return dsl_softmax(float_tensor("c", c), -1 if axis is None else axis, name=name)


@building
def logsoftmax(c: Operand, axis: int | None = None, *, name: str | None = None) -> Tensor:
    """Return log(softmax(c)) along `axis`, computed in one piece."""
    return dsl_log_softmax(float_tensor("c", c), -1 if axis is None else axis, name=name)


class _Softmax:
    """What a softmax of cuDNN and its gradient are made with."""

    def __init__(
        self, tensor_format: str = "bc01", algo: str = "accurate", mode: str = "channel"
    ) -> None:
        for kind, value, known in (
            ("tensor_format", tensor_format, ("bc01",)),
            ("algo", algo, ALGORITHMS),
            ("mode", mode, MODES),
        ):
            one_of(kind, value, known)
        self.algo, self.mode = algo, mode


class GpuDnnSoftmax(_Softmax):
    """A softmax of images (batch, channels, rows, columns).

    Args:
        tensor_format: 'bc01'.
        algo: 'fast' (does not subtract the maximum, so that large elements overflow), 'accurate', or 'log'.
        mode: 'instance' (over channels, rows and columns of an image) or 'channel' (over the channels of a pixel).

    Raises:
        UnknownNameError: for another format, algorithm or mode.

    Source:
        theano.sandbox.cuda.dnn.GpuDnnSoftmax.

    Example:
        >>> from convc import dsl, nnet
        >>> nnet.GpuDnnSoftmax("bc01", "log", "instance")(dsl.input("x", (2, 3, 4, 4))).shape
        (2, 3, 4, 4)
    """

    def __call__(self, x: Operand) -> Tensor:
        """Return the softmax of `x`."""
        images = float_tensor("x", x)
        if len(images.shape) != 4:
            raise ShapeError(f"x must be (batch, channels, rows, columns); got {images.node.type}.")
        flat = reshape(images, _instances(images.shape)) if self.mode == "instance" else images
        if self.algo == "fast":
            powers = exp(flat)
            y = powers / dsl_sum(powers, 1, keepdims=True)
        else:
            y = (dsl_log_softmax if self.algo == "log" else dsl_softmax)(flat, 1)
        return reshape(y, images.shape) if self.mode == "instance" else y


class GpuDnnSoftmaxGrad(_Softmax):
    """Gradient of `GpuDnnSoftmax`, from its result; called as (dy, sm).

    Args:
        tensor_format: 'bc01'.
        algo: 'fast' and 'accurate': sm (dy - sum(dy sm)); 'log': dy - exp(sm) sum(dy).
        mode: 'instance' or 'channel'.

    Example:
        >>> from convc import dsl, nnet
        >>> dy, sm = dsl.input("dy", (2, 3, 4, 4)), dsl.input("sm", (2, 3, 4, 4))
        >>> nnet.GpuDnnSoftmaxGrad("bc01", "log", "instance")(dy, sm).shape
        (2, 3, 4, 4)
    """

    def __call__(self, dy: Operand, sm: Operand) -> Tensor:
        """Return the gradient with respect to the softmax's operand."""
        y = float_tensor("sm", sm, dy)
        g = float_tensor("dy", dy, y)
        if len(y.shape) != 4 or g.shape != y.shape:
            raise ShapeError(
                f"dy and sm must be (batch, channels, rows, columns) and alike; got {g.node.type} and {y.node.type}."
            )
        axes = (1, 2, 3) if self.mode == "instance" else (1,)
        if self.algo == "log":
            return g - exp(y) * dsl_sum(g, axes, keepdims=True)
        return y * (g - dsl_sum(g * y, axes, keepdims=True))


def _instances(shape: Shape) -> Shape:
    """Return (batch, elements of an image), also of no images, of which -1 would say nothing."""
    return (shape[0], math.prod(shape[1:]))
