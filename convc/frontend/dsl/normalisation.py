"""Batch normalisation with the statistics of the batch itself, as in training."""

from __future__ import annotations

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import number
from convc.frontend.dsl.tensor import Operand, Tensor, apply, as_tensor, building
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.shape import ReshapeAttributes

__all__ = ["batch_norm_training"]


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
