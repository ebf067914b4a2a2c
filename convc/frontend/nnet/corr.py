"""`CorrMM` and its relatives: cross-correlation by matrix products on patches, asking for the `im2col` algorithm by their name.

Each is made with the geometry and called with operands, as Theano's ops are: `CorrMM(subsample=(2, 2))(img, kern)`.
"""

from __future__ import annotations

from collections.abc import Sequence

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import whole_numbers
from convc.frontend.dsl.tensor import Operand, Tensor
from convc.frontend.nnet.conv_layers import Numbers
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import BorderMode, float_tensor
from convc.frontend.nnet.shapes import get_conv_gradinputs_shape, get_conv_gradweights_shape

__all__ = [
    "Corr3dMM",
    "Corr3dMM_gradInputs",
    "Corr3dMM_gradWeights",
    "CorrMM",
    "CorrMM_gradInputs",
    "CorrMM_gradWeights",
    "GpuCorr3dMM",
    "GpuCorr3dMM_gradInputs",
    "GpuCorr3dMM_gradWeights",
    "GpuCorrMM",
    "GpuCorrMM_gradInputs",
    "GpuCorrMM_gradWeights",
]


class _Correlation:
    """The geometry, said once; see `nnet.conv2d` for the arguments."""

    rank: int

    def __init__(
        self,
        border_mode: BorderMode = "valid",
        subsample: Numbers = 1,
        filter_dilation: Numbers = 1,
        num_groups: int = 1,
        unshared: bool = False,
    ) -> None:
        self.convolution = Convolution(
            self.rank,
            border_mode,
            subsample,
            False,
            filter_dilation,
            num_groups,
            unshared,
            algorithm="im2col",
        )

    def _known(
        self, shape: Sequence[int] | None, computed: Sequence[int | None]
    ) -> tuple[int, ...]:
        """Return the spatial extents: the given ones, or those that the operands leave no choice about."""
        extents = tuple(computed) if shape is None else whole_numbers("shape", shape)
        if len(extents) != self.rank or any(e is None for e in extents):
            raise ShapeError(
                f"shape must be {self.rank} extents, and given where stride or border leave several; got {shape}."
            )
        return tuple(int(e) for e in extents if e is not None)


class _Forward(_Correlation):
    def __call__(self, img: Operand, kern: Operand) -> Tensor:
        """Return the correlation of images with filters."""
        return self.convolution.forward(img, kern)


class _GradInputs(_Correlation):
    def __call__(
        self, kern: Operand, topgrad: Operand, shape: Sequence[int] | None = None
    ) -> Tensor:
        """Return the gradient with respect to the images; `shape` is their spatial shape, needed with a stride."""
        c = self.convolution
        dy = float_tensor("topgrad", topgrad, kern)
        w = float_tensor("kern", kern, dy)
        c.check_ranks("topgrad", dy, w)
        computed: Sequence[int | None] = ()
        if shape is None:
            computed = get_conv_gradinputs_shape(
                w.shape, dy.shape, c.border_mode, c.strides, c.dilations
            )[2:]
        extents = self._known(shape, computed)
        return c.input_gradient(dy, w, (None, None, *extents))


class _GradWeights(_Correlation):
    def __call__(
        self, img: Operand, topgrad: Operand, shape: Sequence[int] | None = None
    ) -> Tensor:
        """Return the gradient with respect to the filters; `shape` is theirs, needed with a stride or border 'half'."""
        c = self.convolution
        x = float_tensor("img", img, topgrad)
        dy = float_tensor("topgrad", topgrad, x)
        c.check_rank("img", x, self.rank + 2)
        c.check_rank("topgrad", dy, self.rank + 2)
        computed: Sequence[int | None] = ()
        if shape is None:
            computed = get_conv_gradweights_shape(
                x.shape, dy.shape, c.border_mode, c.strides, c.dilations
            )[2:]
        extents = self._known(shape, computed)
        unknown = (None,) * (2 + (self.rank if c.unshared else 0))
        return c.weight_gradient(x, dy, (*unknown, *extents))


class CorrMM(_Forward):
    """2-D cross-correlation by matrix products; called as (img, kern).

    Source:
        theano.tensor.nnet.corr.CorrMM.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> nnet.CorrMM("half", (2, 2))(dsl.input("x", (1, 3, 8, 8)), np.ones((4, 3, 3, 3)))
        Tensor(conv: f32[1,4,4,4])
    """

    rank = 2


class CorrMM_gradInputs(_GradInputs):  # noqa: N801 (Theano's name)
    """Gradient of `CorrMM` with respect to its images; called as (kern, topgrad, shape)."""

    rank = 2


class CorrMM_gradWeights(_GradWeights):  # noqa: N801 (Theano's name)
    """Gradient of `CorrMM` with respect to its filters; called as (img, topgrad, shape)."""

    rank = 2


class Corr3dMM(_Forward):
    """3-D cross-correlation by matrix products; called as (img, kern)."""

    rank = 3


class Corr3dMM_gradInputs(_GradInputs):  # noqa: N801 (Theano's name)
    """Gradient of `Corr3dMM` with respect to its images."""

    rank = 3


class Corr3dMM_gradWeights(_GradWeights):  # noqa: N801 (Theano's name)
    """Gradient of `Corr3dMM` with respect to its filters."""

    rank = 3


# On a GPU they were other ops; here the target decides where an op runs.
GpuCorrMM, GpuCorr3dMM = CorrMM, Corr3dMM
GpuCorrMM_gradInputs, GpuCorr3dMM_gradInputs = CorrMM_gradInputs, Corr3dMM_gradInputs
GpuCorrMM_gradWeights, GpuCorr3dMM_gradWeights = CorrMM_gradWeights, Corr3dMM_gradWeights
