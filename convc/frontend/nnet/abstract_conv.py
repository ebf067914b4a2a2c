"""`theano.tensor.nnet.abstract_conv`'s classes: the geometry said once, then called with operands, as Theano's ops are.

`AbstractConv2d(subsample=(2, 2))(img, kern)` is `conv2d(img, kern, subsample=(2, 2))`; which algorithm computes it is chosen later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import listed, whole_numbers
from convc.frontend.dsl.tensor import Operand, Tensor
from convc.frontend.nnet.conv_layers import Numbers
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import BorderMode, DeclaredShape, check_declared

__all__ = [
    "AbstractConv2d",
    "AbstractConv2d_gradInputs",
    "AbstractConv2d_gradWeights",
    "AbstractConv3d",
    "AbstractConv3d_gradInputs",
    "AbstractConv3d_gradWeights",
]


class _AbstractConv:
    """The geometry; see `nnet.conv2d` for the arguments. `imshp` and `kshp` are declared shapes, and checked."""

    rank: int

    def __init__(
        self,
        imshp: DeclaredShape = None,
        kshp: DeclaredShape = None,
        border_mode: BorderMode = "valid",
        subsample: Numbers = 1,
        filter_flip: bool = True,
        filter_dilation: Numbers = 1,
        num_groups: int = 1,
        unshared: bool = False,
    ) -> None:
        self.imshp, self.kshp = imshp, kshp
        self.convolution = Convolution(
            self.rank, border_mode, subsample, filter_flip, filter_dilation, num_groups, unshared
        )

    def flops(self, inp: Sequence[Sequence[int]], outp: Sequence[Sequence[int]]) -> int:
        """Return the multiplications and additions of one call.

        Args:
            inp: shapes of images and filters.
            outp: the shape of the result, in a sequence.

        Raises:
            ShapeError: if the channels do not fit.
        """
        read, written = listed(inp) or (), listed(outp) or ()
        if len(read) != 2 or len(written) != 1:
            raise ShapeError(
                f"inp must be the shapes of images and filters, and outp the result's, alone; got {inp!r} and {outp!r}."
            )
        images = whole_numbers("images", read[0], self.rank + 2)
        filters = whole_numbers("filters", read[1], self.convolution.weight_rank)
        outputs = whole_numbers("outputs", written[0], self.rank + 2)
        groups = self.convolution.num_groups
        if images[1] != filters[-self.rank - 1] * groups:
            raise ShapeError(
                f"images must have num_groups x {filters[-self.rank - 1]} channels; got {images[1]} and {groups} groups."
            )
        taps = math.prod(filters[-self.rank :])
        points = math.prod(outputs[2:])
        return 2 * taps * points * images[0] * filters[0] * images[1] // groups


class _Forward(_AbstractConv):
    def __call__(self, img: Operand, kern: Operand) -> Tensor:
        """Return the convolution of images with filters."""
        return self.convolution.forward(img, kern, self.imshp, self.kshp)


class _GradWeights(_AbstractConv):
    def __call__(
        self,
        img: Operand,
        topgrad: Operand,
        shape: Sequence[int],
        add_assert_shape: bool = True,
    ) -> Tensor:
        """Return the gradient with respect to the filters; `shape` is their spatial one. Shapes are checked, whatever is asserted."""
        extents = whole_numbers("shape", shape, self.rank)
        unknown = (None,) * (2 + (self.rank if self.convolution.unshared else 0))
        dw = self.convolution.weight_gradient(img, topgrad, (*unknown, *extents), self.imshp)
        check_declared("kshp", self.kshp, dw.shape)
        return dw


class _GradInputs(_AbstractConv):
    def __call__(
        self,
        kern: Operand,
        topgrad: Operand,
        shape: Sequence[int],
        add_assert_shape: bool = True,
    ) -> Tensor:
        """Return the gradient with respect to the images; `shape` is their spatial one. Shapes are checked, whatever is asserted."""
        extents = whole_numbers("shape", shape, self.rank)
        dx = self.convolution.input_gradient(topgrad, kern, (None, None, *extents), self.kshp)
        check_declared("imshp", self.imshp, dx.shape)
        return dx


class AbstractConv2d(_Forward):
    """2-D convolution; called as (img, kern).

    Source:
        theano.tensor.nnet.abstract_conv.AbstractConv2d.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> op = nnet.AbstractConv2d(imshp=(None, 3, 8, 8), border_mode="half", subsample=(2, 2))
        >>> op(dsl.input("x", (1, 3, 8, 8)), np.ones((4, 3, 3, 3)))
        Tensor(conv: f32[1,4,4,4])
        >>> op.flops([(1, 3, 8, 8), (4, 3, 3, 3)], [(1, 4, 4, 4)])
        3456
    """

    rank = 2


class AbstractConv2d_gradWeights(_GradWeights):  # noqa: N801 (Theano's name)
    """Gradient of `AbstractConv2d` with respect to its filters; called as (img, topgrad, shape)."""

    rank = 2


class AbstractConv2d_gradInputs(_GradInputs):  # noqa: N801 (Theano's name)
    """Gradient of `AbstractConv2d` with respect to its images; called as (kern, topgrad, shape)."""

    rank = 2


class AbstractConv3d(_Forward):
    """3-D convolution; called as (img, kern)."""

    rank = 3


class AbstractConv3d_gradWeights(_GradWeights):  # noqa: N801 (Theano's name)
    """Gradient of `AbstractConv3d` with respect to its filters."""

    rank = 3


class AbstractConv3d_gradInputs(_GradInputs):  # noqa: N801 (Theano's name)
    """Gradient of `AbstractConv3d` with respect to its images."""

    rank = 3
