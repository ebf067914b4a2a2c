"""Theano's pools: `pool_2d`, `pool_3d` over the last axes of any tensor, with its two ways to treat a border."""

from __future__ import annotations

import math
import warnings
from typing import Final

import numpy as np

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import flag, one_of, whole
from convc.frontend.dsl.gradient import grad
from convc.frontend.dsl.tensor import Operand, Tensor, apply, building, reshape
from convc.frontend.nnet.conv_layers import Numbers
from convc.frontend.nnet.geometry import float_tensor, per_axis
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes, pool_counts
from convc.ir.types import Shape

__all__ = ["Pool", "max_pool_2d_same_size", "pool", "pool_2d", "pool_3d", "pool_output_shape"]

MODES: Final = ("max", "sum", "average_inc_pad", "average_exc_pad")


def pool_output_shape(
    extents: Shape, ws: Shape, stride: Shape, pad: Shape, ignore_border: bool
) -> Shape:
    """Return the pooled extents, Theano's rule.

    Example:
        >>> pool_output_shape((5, 5), (3, 3), (2, 2), (0, 0), True), pool_output_shape((6, 2), (3, 3), (2, 2), (0, 0), False)
        ((2, 2), (3, 1))
    """
    shape = []
    for extent, w, s, p in zip(extents, ws, stride, pad, strict=True):
        v = extent + 2 * p
        if ignore_border:
            shape.append(max(0, (v - w) // s + 1))
        elif s >= w:
            shape.append((v - 1) // s + 1)
        else:
            shape.append(max(0, (v - 1 - w + s) // s) + 1)
    return tuple(shape)


def pool(
    input: Operand,
    rank: int,
    ws: Numbers,
    ignore_border: bool,
    stride: Numbers | None,
    pad: Numbers | None,
    mode: str,
    name: str | None,
) -> Tensor:
    """Return the pool over the last `rank` axes; see `pool_2d`."""
    x = float_tensor("input", input)
    mode, ignore_border = (
        one_of("pool mode", mode, MODES),
        flag("ignore_border", ignore_border),
    )
    window = per_axis("ws", ws, rank)
    steps = window if stride is None else per_axis("stride", stride, rank)
    border = per_axis("pad", 0 if pad is None else pad, rank, least=0)
    if len(x.shape) < rank:
        raise ShapeError(f"input must have {rank} axes or more; got {x.node.type}.")
    if any(p >= w for p, w in zip(border, window, strict=True)):
        raise ShapeError(
            f"pad must be {rank} numbers >= 0 and smaller than ws {window}; got {pad}."
        )
    if any(border) and not ignore_border:
        raise ShapeError(f"pad must be 0 unless ignore_border=True; got {pad}.")
    lead, extents = x.shape[:-rank], x.shape[-rank:]
    shape = (*lead, *pool_output_shape(extents, window, steps, border, ignore_border))
    if not math.prod(shape):
        # Nothing comes out: of no elements any shape without elements is made.
        return reshape(reshape(x, (x.node.type.size,))[:0], shape, name=name)
    images = x if len(lead) == 2 else reshape(x, (1, math.prod(lead), *extents))
    y = _pooled(images, window, steps, border, mode, ignore_border)
    return y if y.shape == shape else reshape(y, shape, name=name)


def _pooled(
    x: Tensor, ws: Shape, stride: Shape, pad: Shape, mode: str, ignore_border: bool
) -> Tensor:
    # A window larger than the data sees all of them, once.
    kernel = ws if ignore_border else tuple(map(min, ws, x.shape[2:]))
    geometry = (kernel, stride, (*pad, *pad), (), not ignore_border)
    if mode == "max":
        return apply("max_pool", [x], MaxPoolAttributes(*geometry))
    attributes = AveragePoolAttributes(*geometry, mode != "average_exc_pad")
    y = apply("average_pool", [x], attributes)
    if mode == "sum":
        counts = pool_counts(x.shape[2:], attributes)
        y = y * (counts if np.ptp(counts) else float(counts.flat[0]))
    return y


def _renamed(new: str, old: str, value: object, given: object) -> object:
    """Return an argument that may come under its old name."""
    if given is None:
        return value
    if value is not None:
        raise ShapeError(
            f"{new} and {old}, its old name, must not both be given; got {value} and {given}."
        )
    return given


def _ignores(ignore_border: bool | None) -> bool:
    if ignore_border is None:
        warnings.warn(
            "ignore_border is False where it is not given, as in Theano; say which is meant.",
            stacklevel=4,
        )
        return False
    return ignore_border


@building
def pool_2d(
    input: Operand,
    ws: Numbers | None = None,
    ignore_border: bool | None = None,
    stride: Numbers | None = None,
    pad: Numbers | None = None,
    mode: str = "max",
    ds: Numbers | None = None,
    st: Numbers | None = None,
    padding: Numbers | None = None,
    *,
    name: str | None = None,
) -> Tensor:
    """Return the pool over the last two axes.

    Args:
        input: any tensor of at least two axes.
        ws: window.
        ignore_border: True: windows inside the padded data only, (I + 2 pad - ws) // stride + 1 of them. False: a last window that
            hangs over the end counts as well, if it starts inside. Left out, it is False, with a warning.
        stride: default `ws`.
        pad: on both sides; only with `ignore_border=True`. Padding never wins a maximum and adds nothing to a sum.
        mode: 'max', 'sum', 'average_inc_pad' (divided by the points of the padded data under the window) or 'average_exc_pad' (by
            those of the data).
        ds: old name of `ws`.
        st: old name of `stride`.
        padding: old name of `pad`.
        name: of the result.

    Raises:
        ShapeError: if the numbers do not fit each other.
        UnknownNameError: for another mode.

    Source:
        theano.tensor.signal.pool.pool_2d.

    Example:
        >>> from convc import dsl, nnet
        >>> x = dsl.input("x", (1, 3, 7, 6))
        >>> nnet.pool_2d(x, (3, 2), ignore_border=False, stride=(2, 2), mode="average_exc_pad").shape
        (1, 3, 3, 3)
    """
    ws, stride, pad = (
        _renamed("ws", "ds", ws, ds),
        _renamed("stride", "st", stride, st),
        _renamed("pad", "padding", pad, padding),
    )  # type: ignore[assignment]
    if ws is None:
        raise ShapeError("ws must be given; got None.")
    return pool(input, 2, ws, _ignores(ignore_border), stride, pad, mode, name)


@building
def pool_3d(
    input: Operand,
    ws: Numbers | None = None,
    ignore_border: bool | None = None,
    stride: Numbers | None = None,
    pad: Numbers | None = None,
    mode: str = "max",
    ds: Numbers | None = None,
    st: Numbers | None = None,
    padding: Numbers | None = None,
    *,
    name: str | None = None,
) -> Tensor:
    """Return the pool over the last three axes; as `pool_2d`."""
    ws, stride, pad = (
        _renamed("ws", "ds", ws, ds),
        _renamed("stride", "st", stride, st),
        _renamed("pad", "padding", pad, padding),
    )  # type: ignore[assignment]
    if ws is None:
        raise ShapeError("ws must be given; got None.")
    return pool(input, 3, ws, _ignores(ignore_border), stride, pad, mode, name)


@building
def max_pool_2d_same_size(input: Operand, patch_size: Numbers) -> Tensor:
    """Return the input with its maxima over patches kept where they are, and zeros elsewhere.

    Example:
        >>> from convc import dsl, nnet
        >>> nnet.max_pool_2d_same_size(dsl.input("x", (1, 3, 8, 8)), (2, 2)).shape
        (1, 3, 8, 8)
    """
    x = float_tensor("input", input)
    # The gradient of a maximum goes to where it came from: so does the maximum itself.
    best = pool(x, 2, patch_size, True, None, None, "max", None)
    return grad([best], x, [best])


class Pool:
    """A pool over the last `ndim` axes, 1 to 3; called as (x, ws, stride, pad). See `pool_2d`.

    Source:
        theano.tensor.signal.pool.Pool.

    Example:
        >>> from convc import dsl, nnet
        >>> nnet.Pool(ignore_border=True, mode="sum", ndim=1)(dsl.input("x", (2, 9)), (3,), (2,)).shape
        (2, 4)
    """

    def __init__(self, ignore_border: bool = False, mode: str = "max", ndim: int = 2) -> None:
        self.ignore_border = flag("ignore_border", ignore_border)
        self.mode, self.ndim = one_of("pool mode", mode, MODES), whole("ndim", ndim)
        if self.ndim not in (1, 2, 3):
            raise ShapeError(f"ndim must be 1, 2 or 3; got {ndim}.")

    def __call__(
        self, x: Operand, ws: Numbers, stride: Numbers | None = None, pad: Numbers | None = None
    ) -> Tensor:
        """Return the pool of `x`; the stride is `ws` where it is left out."""
        return pool(x, self.ndim, ws, self.ignore_border, stride, pad, self.mode, None)
