"""Batch normalisation: with given statistics, and with those of the batch itself, as in training."""

from __future__ import annotations

import numpy as np

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import as_array, number
from convc.frontend.dsl.tensor import Operand, Tensor, apply, as_tensor, building
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.shape import ReshapeAttributes

__all__ = ["batch_norm", "batch_norm_training"]


def _normalisation(
    scale: Operand, bias: Operand, mean: Operand, variance: Operand, epsilon: float, dtype: str
) -> tuple[Operand, Operand]:
    """Return a, b with a x + b = scale (x - mean) / sqrt(variance + epsilon) + bias: arrays if all four are, else tensors."""
    four = (scale, bias, mean, variance)
    if not any(isinstance(p, Tensor) for p in four):
        # Known now: float64, rounded once when they become constants.
        s, b, m, v = (as_array(p).astype(np.float64) for p in four)
        factor = s / np.sqrt(v + epsilon)
        return factor, b - m * factor
    s, b, m, v = (as_tensor(p, dtype) for p in four)
    ratio = s / apply("sqrt", [v + epsilon])
    return ratio, b - m * ratio


@building
def batch_norm(
    x: Operand,
    scale: Operand,
    bias: Operand,
    mean: Operand,
    variance: Operand,
    *,
    epsilon: float = 1e-5,
    name: str | None = None,
) -> Tensor:
    """Return scale (x - mean) / sqrt(variance + epsilon) + bias, per channel.

    It is one mul and one add, which fold into a convolution before them.

    Shapes:
        data (N, C, ...), the others (C,)
    """
    x = as_tensor(x)
    _, *rest = x.shape or (0,)
    channels = rest[0] if rest else None
    for label, value in (("scale", scale), ("bias", bias), ("mean", mean), ("variance", variance)):
        shape = value.shape if isinstance(value, Tensor) else as_array(value).shape
        if channels is None or shape != (channels,):
            raise ShapeError(
                f"batch_norm {label} must have shape (C,) for data (N, C, ...); got {shape} for {x.node.type}."
            )
    epsilon = number("epsilon", epsilon)
    factor, shift = _normalisation(scale, bias, mean, variance, epsilon, x.dtype)
    per_channel = ReshapeAttributes((1, *rest[:1], *(1,) * len(rest[1:])))

    def along_channels(value: Operand) -> Operand:
        if isinstance(value, Tensor):
            return apply("reshape", [value], per_channel)
        return np.reshape(value, per_channel.shape)

    scaled = apply("mul", [x, along_channels(factor)])
    return apply("add", [scaled, along_channels(shift)], name=name)


@building
def batch_norm_training(
    x: Operand,
    scale: Operand,
    bias: Operand,
    *,
    epsilon: float = 1e-5,
    name: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scale (x - mean) / sqrt(variance + epsilon) + bias, and mean and variance, which are those of `x` itself.

    Mean and variance go over the batch and every spatial axis; the variance is the biased one, which normalises. What a running
    average keeps of them is the training loop's affair.

    Shapes:
        data (N, C, ...), scale and bias (C,) -> (N, C, ...), (C,), (C,)

    Source:
        Ioffe, Szegedy: Batch Normalization, arXiv:1502.03167, algorithm 1.

    Example:
        >>> from convc.frontend.dsl.tensor import input
        >>> y, mean, variance = batch_norm_training(input("x", (8, 4, 5, 5)), input("s", (4,)), input("b", (4,)))
        >>> y.shape, mean.shape, variance.shape
        ((8, 4, 5, 5), (4,), (4,))
    """
    x, epsilon = as_tensor(x), number("epsilon", epsilon)
    scale, bias = as_tensor(scale, x.dtype), as_tensor(bias, x.dtype)
    rank = len(x.shape)
    channels = x.shape[1:2]
    for label, value in (("scale", scale), ("bias", bias)):
        if rank < 2 or value.shape != channels:
            raise ShapeError(
                f"batch_norm_training {label} must have shape (C,) for data (N, C, ...); got {value.shape} for {x.node.type}."
            )
    over = ReduceAttributes((0, *range(2, rank)), keepdims=True)
    along = ReshapeAttributes((1, *channels, *(1,) * (rank - 2)))
    mean = apply("reduce_mean", [x], over)
    centred = x - mean
    variance = apply("reduce_mean", [centred * centred], over)
    factor = apply("reshape", [scale], along) / apply("sqrt", [variance + epsilon])
    y = apply("add", [centred * factor, apply("reshape", [bias], along)], name=name)
    per_channel = ReshapeAttributes(channels)
    return y, apply("reshape", [mean], per_channel), apply("reshape", [variance], per_channel)
