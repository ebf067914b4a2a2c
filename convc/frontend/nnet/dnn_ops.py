"""Theano's cuDNN ops by their classes: a descriptor, and convolutions that scale their result and add it to another.

`GpuDnnConv()(img, kern, out, desc, alpha, beta)` is alpha * convolution + beta * out. Nothing is overwritten: `out` is an operand.
"""

from __future__ import annotations

from collections.abc import Sequence

from convc.errors import DTypeError, ShapeError
from convc.frontend.dsl.arguments import listed, number, one_of
from convc.frontend.dsl.tensor import Operand, Tensor
from convc.frontend.nnet.conv_layers import Numbers
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.dnn import ALGORITHMS, convolution_of
from convc.frontend.nnet.geometry import BorderMode, float_tensor
from convc.frontend.nnet.shapes import get_conv_output_shape

__all__ = [
    "GpuDnnConv",
    "GpuDnnConvDesc",
    "GpuDnnConvGradI",
    "GpuDnnConvGradW",
]


class GpuDnnConvDesc:
    """The geometry of a convolution, see `nnet.dnn_conv`; of 3-D ones, where `subsample` has three numbers.

    Source:
        theano.gpuarray.dnn.GpuDnnConvDesc.

    Example:
        >>> GpuDnnConvDesc("half", (2, 2)).get_out_shape((1, 3, 9, 9), (4, 3, 3, 3), "half", (2, 2))
        (1, 4, 5, 5)
    """

    def __init__(
        self,
        border_mode: BorderMode,
        subsample: Numbers = (1, 1),
        dilation: Numbers = 1,
        conv_mode: str = "conv",
        precision: str | None = None,
        num_groups: int = 1,
    ) -> None:
        strides = listed(subsample)
        self.rank = 2 if strides is None else len(strides)
        if self.rank not in (2, 3):
            raise ShapeError(f"subsample must be one number, 2 or 3; got {subsample!r}.")
        self.border_mode, self.subsample, self.dilation = border_mode, subsample, dilation
        self.conv_mode, self.precision, self.num_groups = conv_mode, precision, num_groups
        self.convolution(None)

    @staticmethod
    def get_out_shape(
        ishape: Sequence[int],
        kshape: Sequence[int],
        border_mode: BorderMode,
        subsample: Sequence[int],
    ) -> tuple[int | None, ...]:
        """Return the shape of the result for images and filters of these shapes."""
        return get_conv_output_shape(ishape, kshape, border_mode, subsample)

    def convolution(self, algo: str | None) -> Convolution:
        """Return what the descriptor says, to be computed by `algo`."""
        return convolution_of(
            self.rank,
            self.border_mode,
            self.subsample,
            self.dilation,
            self.conv_mode,
            algo,
            self.precision,
            self.num_groups,
            None,
        )


class _Op:
    """A convolution or gradient with the algorithm it asks for.

    Args:
        algo: a name of Theano's for an algorithm, see `nnet.dnn_conv`.
        inplace: taken; results never overwrite operands.
    """

    def __init__(self, algo: str | None = None, inplace: bool = False) -> None:
        self.algo = None if algo is None else one_of("algo", algo, ALGORITHMS)

    def _convolution(self, desc: GpuDnnConvDesc) -> Convolution:
        if not isinstance(desc, GpuDnnConvDesc):
            raise DTypeError(f"desc must be a GpuDnnConvDesc; got {desc!r}.")
        return desc.convolution(self.algo)

    @staticmethod
    def _merged(y: Tensor, out: Operand, alpha: float | None, beta: float | None) -> Tensor:
        """Return alpha * y + beta * out; None: 1 and 0."""
        before = float_tensor("output", out, y)
        if before.shape != y.shape:
            raise ShapeError(
                f"output must have the result's shape {y.shape}; got {before.node.type}."
            )
        scale = 1.0 if alpha is None else number("alpha", alpha)
        rest = 0.0 if beta is None else number("beta", beta)
        scaled = y if scale == 1 else y * scale
        return scaled + before * rest if rest else scaled


class GpuDnnConv(_Op):
    """alpha * convolution + beta * output; called as (img, kern, output, desc, alpha, beta).

    Source:
        theano.gpuarray.dnn.GpuDnnConv.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> x, out = dsl.input("x", (1, 3, 8, 8)), dsl.input("out", (1, 4, 6, 6))
        >>> nnet.GpuDnnConv()(x, np.ones((4, 3, 3, 3)), out, nnet.GpuDnnConvDesc("valid"), alpha=0.5, beta=2.0).shape
        (1, 4, 6, 6)
    """

    def __call__(
        self,
        img: Operand,
        kern: Operand,
        output: Operand,
        desc: GpuDnnConvDesc,
        alpha: float | None = None,
        beta: float | None = None,
    ) -> Tensor:
        """Return the scaled convolution and the scaled output."""
        return self._merged(self._convolution(desc).forward(img, kern), output, alpha, beta)


class GpuDnnConvGradW(_Op):
    """Gradient with respect to the filters; called as (img, topgrad, output, desc, alpha, beta); `output` has their shape."""

    def __call__(
        self,
        img: Operand,
        topgrad: Operand,
        output: Operand,
        desc: GpuDnnConvDesc,
        alpha: float | None = None,
        beta: float | None = None,
    ) -> Tensor:
        """Return the scaled gradient and the scaled output."""
        shape = float_tensor("output", output, img).shape
        dw = self._convolution(desc).weight_gradient(img, topgrad, shape)
        return self._merged(dw, output, alpha, beta)


class GpuDnnConvGradI(_Op):
    """Gradient with respect to the images; called as (kern, topgrad, output, desc, alpha, beta); `output` has their shape."""

    def __call__(
        self,
        kern: Operand,
        topgrad: Operand,
        output: Operand,
        desc: GpuDnnConvDesc,
        alpha: float | None = None,
        beta: float | None = None,
    ) -> Tensor:
        """Return the scaled gradient and the scaled output."""
        shape = float_tensor("output", output, kern).shape
        dx = self._convolution(desc).input_gradient(topgrad, kern, shape)
        return self._merged(dx, output, alpha, beta)
