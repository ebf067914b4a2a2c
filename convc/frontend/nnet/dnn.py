"""Theano's cuDNN module by its names: `dnn_conv` and its relatives ask for `cudnn` first, then for what their `algo` names.

Where the target has no cuDNN, the compiled module's report says so beside the algorithm that ran instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import one_of
from convc.frontend.dsl.tensor import Operand, Tensor, building
from convc.frontend.nnet.conv_layers import Numbers
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import BorderMode, float_tensor
from convc.frontend.nnet.pool import pool

__all__ = [
    "convolution_of",
    "dnn_conv",
    "dnn_conv3d",
    "dnn_gradinput",
    "dnn_gradinput3d",
    "dnn_gradweight",
    "dnn_gradweight3d",
    "dnn_pool",
]

# Theano's name -> the way in which cuDNN then chooses, and the same mathematics among convc's algorithms for where there is no cuDNN, or it
# has none of those: "" leaves that choice free.
ALGORITHMS: Final[dict[str, tuple[str, str]]] = {
    **{name: (name, "im2col") for name in ("small", "none", "large")},
    **{name: (name, "fft") for name in ("fft", "fft_tiling")},
    **{name: (name, "winograd") for name in ("winograd", "winograd_non_fused")},
    "deterministic": ("deterministic", ""),
    **dict.fromkeys(("guess_once", "guess_on_shape_change"), ("heuristic", "")),
    **dict.fromkeys(("time_once", "time_on_shape_change"), ("time", "")),
}
_HINTS: Final = ("forward", "forward!", "bprop inputs", "bprop weights")
_POOL_MODES: Final = {
    "max": "max",
    "max_deterministic": "max",
    "average": "average_inc_pad",
    "average_inc_pad": "average_inc_pad",
    "average_exc_pad": "average_exc_pad",
    "sum": "sum",
}


def convolution_of(
    rank: int,
    border_mode: BorderMode,
    subsample: Numbers,
    dilation: Numbers,
    conv_mode: str,
    algo: str | None,
    precision: str | None,
    num_groups: int,
    name: str | None,
) -> Convolution:
    """Return what the arguments of `dnn_conv` say; `name` is of the result."""
    flips = one_of("conv_mode", conv_mode, ("conv", "cross")) == "conv"
    way, wanted = ("", "") if algo is None else ALGORITHMS[one_of("algo", algo, ALGORITHMS)]
    return Convolution(
        rank,
        border_mode,
        subsample,
        flips,
        dilation,
        num_groups,
        False,
        precision,
        ",".join(filter(None, (f"cudnn:{way}" if way else "cudnn", wanted))),
        name,
    )


def _checked_hints(direction_hint: str | None, workmem: str | None) -> None:
    if workmem is not None:
        raise ShapeError(f"workmem must be left out: algo took its place; got {workmem!r}.")
    if direction_hint is not None:
        one_of("direction_hint", direction_hint, _HINTS)


@building
def dnn_conv(
    img: Operand,
    kerns: Operand,
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1),
    dilation: Numbers = (1, 1),
    conv_mode: str = "conv",
    direction_hint: str | None = None,
    workmem: str | None = None,
    algo: str | None = None,
    precision: str | None = None,
    num_groups: int = 1,
    *,
    name: str | None = None,
) -> Tensor:
    """Return a 2-D convolution, by cuDNN where the target has it.

    Args:
        img: (batch, IC, rows, columns).
        kerns: (OC, IC/num_groups, rows, columns).
        border_mode: as `nnet.conv2d`.
        subsample: strides.
        dilation: distance of taps.
        conv_mode: 'conv' (filters are flipped) or 'cross'.
        direction_hint: taken and not needed: the choice among equal computations is the tuner's.
        workmem: must be left out, as in Theano 1.0.
        algo: a name from `ALGORITHMS`: how cuDNN chooses, and which mathematics where it has none of that kind.
        precision: element type of the sums, see `nnet.conv2d`.
        num_groups: groups of channels.
        name: of the result.

    Source:
        theano.gpuarray.dnn.dnn_conv.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> y = nnet.dnn_conv(dsl.input("x", (1, 8, 9, 9)), np.ones((4, 8, 3, 3)), algo="winograd")
        >>> y.shape, y.node.attributes.algorithm
        ((1, 4, 7, 7), 'cudnn:winograd,winograd')
    """
    _checked_hints(direction_hint, workmem)
    return convolution_of(
        2, border_mode, subsample, dilation, conv_mode, algo, precision, num_groups, name
    ).forward(img, kerns)


@building
def dnn_conv3d(
    img: Operand,
    kerns: Operand,
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1, 1),
    dilation: Numbers = (1, 1, 1),
    conv_mode: str = "conv",
    direction_hint: str | None = None,
    algo: str | None = None,
    precision: str | None = None,
    num_groups: int = 1,
    *,
    name: str | None = None,
) -> Tensor:
    """Return a 3-D convolution; as `dnn_conv`."""
    _checked_hints(direction_hint, None)
    return convolution_of(
        3, border_mode, subsample, dilation, conv_mode, algo, precision, num_groups, name
    ).forward(img, kerns)


@building
def dnn_gradinput(
    kerns: Operand,
    topgrad: Operand,
    img_shp: Sequence[int],
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1),
    dilation: Numbers = (1, 1),
    conv_mode: str = "conv",
    precision: str | None = None,
    algo: str | None = None,
    num_groups: int = 1,
    *,
    name: str | None = None,
) -> Tensor:
    """Return the gradient of `dnn_conv` with respect to its images, of the whole shape `img_shp`."""
    return convolution_of(
        2, border_mode, subsample, dilation, conv_mode, algo, precision, num_groups, name
    ).input_gradient(topgrad, kerns, img_shp)


@building
def dnn_gradinput3d(
    kerns: Operand,
    topgrad: Operand,
    img_shp: Sequence[int],
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1, 1),
    dilation: Numbers = (1, 1, 1),
    conv_mode: str = "conv",
    precision: str | None = None,
    algo: str | None = None,
    num_groups: int = 1,
    *,
    name: str | None = None,
) -> Tensor:
    """Return the gradient of `dnn_conv3d` with respect to its images; as `dnn_gradinput`."""
    return convolution_of(
        3, border_mode, subsample, dilation, conv_mode, algo, precision, num_groups, name
    ).input_gradient(topgrad, kerns, img_shp)


@building
def dnn_gradweight(
    img: Operand,
    topgrad: Operand,
    kerns_shp: Sequence[int],
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1),
    dilation: Numbers = (1, 1),
    conv_mode: str = "conv",
    precision: str | None = None,
    algo: str | None = None,
    num_groups: int = 1,
    *,
    name: str | None = None,
) -> Tensor:
    """Return the gradient of `dnn_conv` with respect to its filters, of the whole shape `kerns_shp`."""
    return convolution_of(
        2, border_mode, subsample, dilation, conv_mode, algo, precision, num_groups, name
    ).weight_gradient(img, topgrad, kerns_shp)


@building
def dnn_gradweight3d(
    img: Operand,
    topgrad: Operand,
    kerns_shp: Sequence[int],
    border_mode: BorderMode = "valid",
    subsample: Numbers = (1, 1, 1),
    dilation: Numbers = (1, 1, 1),
    conv_mode: str = "conv",
    precision: str | None = None,
    algo: str | None = None,
    num_groups: int = 1,
    *,
    name: str | None = None,
) -> Tensor:
    """Return the gradient of `dnn_conv3d` with respect to its filters; as `dnn_gradweight`."""
    return convolution_of(
        3, border_mode, subsample, dilation, conv_mode, algo, precision, num_groups, name
    ).weight_gradient(img, topgrad, kerns_shp)


@building
def dnn_pool(
    img: Operand,
    ws: Numbers,
    stride: Numbers | None = None,
    mode: str = "max",
    pad: Numbers | None = None,
    *,
    name: str | None = None,
) -> Tensor:
    """Return a pool of images, windows inside the padded images only; the stride is 1 where it is left out.

    Args:
        img: (batch, channels, rows, columns), or with a depth before the rows.
        ws: window.
        stride: default 1.
        mode: 'max', 'max_deterministic', 'average_inc_pad' ('average'), 'average_exc_pad' or 'sum'.
        pad: zeros on both sides; default 0.
        name: of the result.

    Example:
        >>> from convc import dsl, nnet
        >>> nnet.dnn_pool(dsl.input("x", (1, 3, 8, 8)), (2, 2), stride=(2, 2), mode="sum").shape
        (1, 3, 4, 4)
    """
    x = float_tensor("img", img)
    theanos = _POOL_MODES[one_of("pool mode", mode, _POOL_MODES)]
    if len(x.shape) not in (4, 5):
        raise ShapeError(f"img must have 4 or 5 axes; got {x.node.type}.")
    steps = 1 if stride is None else stride
    return pool(x, len(x.shape) - 2, ws, True, steps, pad, theanos, name)
