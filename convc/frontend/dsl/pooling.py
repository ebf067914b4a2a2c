"""Pooling and local response normalisation. Defaults are ONNX's: strides 1."""

from __future__ import annotations

from typing import Protocol

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import flag, number, whole
from convc.frontend.dsl.geometry import Axes, both_sides, per_axis
from convc.frontend.dsl.tensor import Operand, Tensor, apply, as_tensor, building
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import AveragePoolAttributes, LRNAttributes, MaxPoolAttributes

__all__ = [
    "average_pool1d",
    "average_pool2d",
    "average_pool3d",
    "global_average_pool",
    "lrn",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]


class MaxPool(Protocol):
    """The largest point under each window; padding never wins, nor does NaN."""

    def __call__(
        self,
        x: Operand,
        kernel: Axes,
        *,
        strides: Axes = 1,
        pads: Axes = 0,
        dilations: Axes = 1,
        ceil_mode: bool = False,
        name: str | None = None,
    ) -> Tensor: ...


class AveragePool(Protocol):
    """The mean under each window, over data points alone or (`count_include_pad`) over padding, too."""

    def __call__(
        self,
        x: Operand,
        kernel: Axes,
        *,
        strides: Axes = 1,
        pads: Axes = 0,
        dilations: Axes = 1,
        ceil_mode: bool = False,
        count_include_pad: bool = False,
        name: str | None = None,
    ) -> Tensor: ...


def _max_pool(rank: int) -> MaxPool:
    def function(
        x: Operand,
        kernel: Axes,
        *,
        strides: Axes = 1,
        pads: Axes = 0,
        dilations: Axes = 1,
        ceil_mode: bool = False,
        name: str | None = None,
    ) -> Tensor:
        attributes = MaxPoolAttributes(
            per_axis("kernel", kernel, rank),
            per_axis("strides", strides, rank, default=1),
            both_sides("pads", pads, rank, default=0),
            per_axis("dilations", dilations, rank, default=1),
            flag("ceil_mode", ceil_mode),
        )
        return apply("max_pool", [x], attributes, name=name)

    function.__name__ = function.__qualname__ = f"max_pool{rank}d"
    function.__doc__ = f"Return the largest point under each window over {rank} spatial axes."
    return building(function)


def _average_pool(rank: int) -> AveragePool:
    def function(
        x: Operand,
        kernel: Axes,
        *,
        strides: Axes = 1,
        pads: Axes = 0,
        dilations: Axes = 1,
        ceil_mode: bool = False,
        count_include_pad: bool = False,
        name: str | None = None,
    ) -> Tensor:
        attributes = AveragePoolAttributes(
            per_axis("kernel", kernel, rank),
            per_axis("strides", strides, rank, default=1),
            both_sides("pads", pads, rank, default=0),
            per_axis("dilations", dilations, rank, default=1),
            flag("ceil_mode", ceil_mode),
            flag("count_include_pad", count_include_pad),
        )
        return apply("average_pool", [x], attributes, name=name)

    function.__name__ = function.__qualname__ = f"average_pool{rank}d"
    function.__doc__ = f"Return the mean under each window over {rank} spatial axes."
    return building(function)


max_pool1d, max_pool2d, max_pool3d = map(_max_pool, (1, 2, 3))
average_pool1d, average_pool2d, average_pool3d = map(_average_pool, (1, 2, 3))


@building
def global_average_pool(x: Operand, *, name: str | None = None) -> Tensor:
    """Return the mean over all spatial axes, which stay with extent 1.

    Shapes:
        (N, C, *spatial) -> (N, C, 1, ...)
    """
    x = as_tensor(x)
    rank = len(x.shape)
    if rank < 3:
        raise ShapeError(f"global_average_pool data must have rank 3 or more; got {x.node.type}.")
    return apply("reduce_mean", [x], ReduceAttributes(tuple(range(2, rank))), name=name)


@building
def lrn(
    x: Operand,
    size: int,
    *,
    alpha: float = 0.0001,
    beta: float = 0.75,
    bias: float = 1.0,
    name: str | None = None,
) -> Tensor:
    """Return x / (bias + alpha/size * sum of squares over `size` neighbouring channels)^beta."""
    attributes = LRNAttributes(
        whole("size", size), number("alpha", alpha), number("beta", beta), number("bias", bias)
    )
    return apply("lrn", [x], attributes, name=name)
