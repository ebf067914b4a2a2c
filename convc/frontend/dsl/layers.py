"""Layers with weights: convolutions, dense, matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import as_array, flag, whole
from convc.frontend.dsl.geometry import Axes, both_sides, per_axis
from convc.frontend.dsl.movement import flip
from convc.frontend.dsl.tensor import Operand, Tensor, apply, as_tensor, building
from convc.ir.epilogue import Step
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, DenseAttributes
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes
from convc.ir.types import dtype_name

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "conv_weight_grad",
    "dense",
    "matmul",
]


class Conv(Protocol):
    """A convolution (cross-correlation): data (N, C, *spatial), weight (K, C/group, *kernel), bias (K,) -> (N, K, *spatial')."""

    def __call__(
        self,
        x: Operand,
        weight: Operand,
        bias: Operand | None = None,
        *,
        strides: Axes = 1,
        pads: Axes = 0,
        dilations: Axes = 1,
        group: int = 1,
        filter_flip: bool = False,
        accum_dtype: DTypeLike = "",
        name: str | None = None,
    ) -> Tensor: ...


class ConvTranspose(Protocol):
    """A transposed convolution: data (N, C, *spatial), weight (C, K/group, *kernel), bias (K,) -> (N, K, *spatial')."""

    def __call__(
        self,
        x: Operand,
        weight: Operand,
        bias: Operand | None = None,
        *,
        strides: Axes = 1,
        pads: Axes = 0,
        dilations: Axes = 1,
        group: int = 1,
        output_padding: Axes = 0,
        accum_dtype: DTypeLike = "",
        name: str | None = None,
    ) -> Tensor: ...


def _with_bias(
    operands: Sequence[Operand], bias: Operand | None
) -> tuple[list[Operand], tuple[Step, ...]]:
    return ([*operands], ()) if bias is None else ([*operands, bias], (Step("bias"),))


def _sum_type(accum_dtype: DTypeLike) -> str:
    # A word is checked by the op, which knows what its operands may be added up in.
    return accum_dtype if isinstance(accum_dtype, str) else dtype_name(accum_dtype)


def _flipped(weight: Operand) -> Operand:
    """Return a filter with every spatial axis reversed: now, or by a step of the graph where it comes later."""
    if isinstance(weight, Tensor):
        return flip(weight, tuple(range(2, len(weight.shape))))
    array = as_array(weight)
    return np.flip(array, tuple(range(2, array.ndim)))


def _check_rank(x: Tensor, rank: int) -> None:
    # The op takes any rank; the function's name promises one.
    if len(x.shape) != rank + 2:
        raise ShapeError(
            f"data must have rank {rank + 2} for {rank} spatial axes; got {x.node.type}."
        )


def _conv(rank: int) -> Conv:
    def function(
        x: Operand,
        weight: Operand,
        bias: Operand | None = None,
        *,
        strides: Axes = 1,
        pads: Axes = 0,
        dilations: Axes = 1,
        group: int = 1,
        filter_flip: bool = False,
        accum_dtype: DTypeLike = "",
        name: str | None = None,
    ) -> Tensor:
        x = as_tensor(x)
        _check_rank(x, rank)
        operands, epilogue = _with_bias(
            [x, _flipped(weight) if flag("filter_flip", filter_flip) else weight], bias
        )
        attributes = ConvAttributes(
            per_axis("strides", strides, rank, default=1),
            both_sides("pads", pads, rank, default=0),
            per_axis("dilations", dilations, rank, default=1),
            whole("group", group),
            epilogue,
            _sum_type(accum_dtype),
        )
        return apply("conv", operands, attributes, name=name)

    function.__name__ = function.__qualname__ = f"conv{rank}d"
    function.__doc__ = f"""Return a convolution over {rank} spatial axes.

    Cross-correlation, as in every deep-learning library; `filter_flip=True` reverses the filter: convolution in the textbook's sense.
    `accum_dtype` is the element type of the sums: left out, float32 for half types, else the operands' own.

    Shapes:
        data (N, C, *spatial), weight (K, C/group, *kernel), bias (K,) -> (N, K, *spatial')

    Raises:
        ShapeError, DTypeError: if operands and attributes do not fit each other.
    """
    return building(function)


def _conv_transpose(rank: int) -> ConvTranspose:
    def function(
        x: Operand,
        weight: Operand,
        bias: Operand | None = None,
        *,
        strides: Axes = 1,
        pads: Axes = 0,
        dilations: Axes = 1,
        group: int = 1,
        output_padding: Axes = 0,
        accum_dtype: DTypeLike = "",
        name: str | None = None,
    ) -> Tensor:
        x = as_tensor(x)
        _check_rank(x, rank)
        operands, epilogue = _with_bias([x, weight], bias)
        attributes = ConvTransposeAttributes(
            per_axis("strides", strides, rank, default=1),
            both_sides("pads", pads, rank, default=0),
            per_axis("dilations", dilations, rank, default=1),
            whole("group", group),
            per_axis("output_padding", output_padding, rank, default=0),
            epilogue,
            _sum_type(accum_dtype),
        )
        return apply("conv_transpose", operands, attributes, name=name)

    function.__name__ = function.__qualname__ = f"conv_transpose{rank}d"
    function.__doc__ = f"""Return a transposed convolution over {rank} spatial axes; `accum_dtype` as in `conv{rank}d`.

    Shapes:
        data (N, C, *spatial), weight (C, K/group, *kernel), bias (K,) -> (N, K, *spatial')

    Raises:
        ShapeError, DTypeError: if operands and attributes do not fit each other.
    """
    return building(function)


conv1d, conv2d, conv3d = map(_conv, (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = map(_conv_transpose, (1, 2, 3))


@building
def conv_weight_grad(
    x: Operand,
    gradient: Operand,
    kernel: Axes,
    *,
    strides: Axes = 1,
    pads: Axes = 0,
    dilations: Axes = 1,
    group: int = 1,
    accum_dtype: DTypeLike = "",
    name: str | None = None,
) -> Tensor:
    """Return the gradient of a loss with respect to a convolution's weight, from the gradient with respect to its result.

    The gradient with respect to the data is `conv_transpose` of the same gradient and the weight, its `output_padding` the rows
    and columns of padded data that the strides left unread. `accum_dtype` as in `conv2d`.

    Shapes:
        data (N, C, *spatial), gradient (N, K, *spatial') -> (K, C/group, *kernel); 1 to 3 spatial axes

    Raises:
        ShapeError, DTypeError: if no convolution of this geometry takes the data to a result of the gradient's shape.

    Example:
        >>> from convc.frontend.dsl.tensor import input
        >>> conv_weight_grad(input("x", (2, 4, 8, 8)), input("dy", (2, 6, 4, 4)), 3, strides=2, pads=1)
        Tensor(conv_weight_grad: f32[6,4,3,3])
    """
    x = as_tensor(x)
    rank = len(x.shape) - 2
    if rank < 1:
        raise ShapeError(f"data must have rank 3, 4 or 5, (N, C, *spatial); got {x.node.type}.")
    attributes = ConvWeightGradAttributes(
        per_axis("kernel", kernel, rank),
        per_axis("strides", strides, rank, default=1),
        both_sides("pads", pads, rank, default=0),
        per_axis("dilations", dilations, rank, default=1),
        whole("group", group),
        _sum_type(accum_dtype),
    )
    return apply("conv_weight_grad", [x, gradient], attributes, name=name)


@building
def dense(
    x: Operand, weight: Operand, bias: Operand | None = None, *, name: str | None = None
) -> Tensor:
    """Return x weight^T + bias.

    Shapes:
        data (M, C), weight (K, C), bias (K,) -> (M, K)
    """
    operands, epilogue = _with_bias([x, weight], bias)
    return apply("dense", operands, DenseAttributes(epilogue), name=name)


@building
def matmul(a: Operand, b: Operand, *, name: str | None = None) -> Tensor:
    """Return the matrix product over the last two axes, the others broadcast.

    Shapes:
        (..., M, K), (..., K, N) -> (..., M, N)
    """
    return apply("matmul", [a, b], name=name)
