"""pylearn2's wrapper of cuda-convnet: correlations of (channels, rows, columns, batch), and their gradients.

Its limits (filters in multiples of 16, few or even channels) were those of its kernels; here they are none.
"""

from __future__ import annotations

from collections.abc import Sequence

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import whole, whole_numbers
from convc.frontend.dsl.tensor import Operand, Tensor, transpose
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import float_tensor

__all__ = ["FilterActs", "ImageActs", "WeightActs"]

_IN, _OUT = (3, 0, 1, 2), (1, 2, 3, 0)


class _Acts:
    """The geometry.

    Args:
        pad: zeros on all four sides.
        partial_sum: a hint to the old kernels; taken and not needed.
        stride: of both axes.
    """

    def __init__(self, pad: int = 0, partial_sum: int | None = None, stride: int = 1) -> None:
        self.pad, self.stride = whole("pad", pad), whole("stride", stride)
        if self.pad < 0 or self.stride < 1:
            raise ShapeError(f"pad must be >= 0 and stride >= 1; got {pad} and {stride}.")
        self.partial_sum = partial_sum

    def _convolution(self, extents: Sequence[int], kernel: int) -> Convolution:
        """Return the correlation: a last window that hangs over the end counts as well."""
        borders = []
        for extent in extents:
            span = extent + 2 * self.pad - kernel
            if span < 0:
                raise ShapeError(
                    f"filters must fit the padded images; got {kernel} for {extent} + 2 x {self.pad}."
                )
            borders.append((self.pad, self.pad + -span % self.stride))
        return Convolution(2, tuple(borders), self.stride, False)

    @staticmethod
    def _operand(
        name: str, operand: Operand, axes: tuple[int, ...], like: Operand | None = None
    ) -> Tensor:
        tensor = float_tensor(name, operand, like)
        if len(tensor.shape) != 4:
            raise ShapeError(f"{name} must have 4 axes; got {tensor.node.type}.")
        return transpose(tensor, axes)

    @staticmethod
    def _square(filters: Tensor) -> int:
        if filters.shape[2] != filters.shape[3]:
            raise ShapeError(f"filters must be square; got {filters.shape[2:]} taps.")
        return filters.shape[2]


class FilterActs(_Acts):
    """Correlation; called as (images, filters).

    Shapes:
        images (IC, rows, columns, batch), filters (IC, rows, columns, OC) -> (OC, rows', columns', batch),
        rows' = ceil((rows + 2 pad - taps) / stride) + 1

    Source:
        pylearn2.sandbox.cuda_convnet.filter_acts.FilterActs.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> nnet.FilterActs(pad=1, stride=2)(dsl.input("x", (3, 8, 8, 5)), np.ones((3, 3, 3, 16))).shape
        (16, 5, 5, 5)
    """

    def __call__(self, images: Operand, filters: Operand) -> Tensor:
        """Return the correlation of images with filters."""
        x = self._operand("images", images, _IN, filters)
        w = self._operand("filters", filters, _IN, x)
        return transpose(self._convolution(x.shape[2:], self._square(w)).forward(x, w), _OUT)


class ImageActs(_Acts):
    """Gradient of `FilterActs` with respect to its images; called as (hid_grads, filters, output_shape).

    `output_shape` is the images' rows and columns; left out, the least of which `FilterActs` makes the gradient's shape.
    """

    def __call__(
        self, hid_grads: Operand, filters: Operand, output_shape: Sequence[int] | None = None
    ) -> Tensor:
        """Return the gradient, (IC, rows, columns, batch)."""
        dy = self._operand("hid_grads", hid_grads, _IN, filters)
        w = self._operand("filters", filters, _IN, dy)
        taps = self._square(w)
        least = [(o - 1) * self.stride + taps - 2 * self.pad for o in dy.shape[2:]]
        extents = least if output_shape is None else whole_numbers("output_shape", output_shape, 2)
        convolution = self._convolution(extents, taps)
        return transpose(convolution.input_gradient(dy, w, (None, None, *extents)), _OUT)


class WeightActs(_Acts):
    """Gradient of `FilterActs` with respect to its filters; called as (images, hid_grads, output_shape): the filters' rows, columns."""

    def __call__(self, images: Operand, hid_grads: Operand, output_shape: Sequence[int]) -> Tensor:
        """Return the gradient, (IC, rows, columns, OC)."""
        x = self._operand("images", images, _IN, hid_grads)
        dy = self._operand("hid_grads", hid_grads, _IN, x)
        rows, cols = whole_numbers("output_shape", output_shape, 2)
        if rows != cols:
            raise ShapeError(f"filters must be square; got {(rows, cols)} taps.")
        convolution = self._convolution(x.shape[2:], rows)
        return transpose(convolution.weight_gradient(x, dy, (None, None, rows, cols)), _OUT)
