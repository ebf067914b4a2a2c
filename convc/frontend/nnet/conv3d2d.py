"""`theano.tensor.nnet.conv3d2d`: 3-D convolution as a sum of 2-D convolutions, one for each tap in time."""

from __future__ import annotations

from collections.abc import Sequence

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import is_one_of, listed
from convc.frontend.dsl.movement import pad
from convc.frontend.dsl.tensor import Operand, Tensor, building, reshape
from convc.frontend.nnet.convolution import Convolution
from convc.frontend.nnet.geometry import DeclaredShape, axis_pads, check_declared, float_tensor

__all__ = ["conv3d"]


@building
def conv3d(
    signals: Operand,
    filters: Operand,
    signals_shape: DeclaredShape = None,
    filters_shape: DeclaredShape = None,
    border_mode: str | Sequence[str] = "valid",
    *,
    name: str | None = None,
) -> Tensor:
    """Return a 3-D convolution with flipped filters, time before channels, computed by 2-D convolutions.

    Each tap in time is one 2-D convolution over all frames that it meets, which adds the taps before it as it writes: the same
    products as a 3-D convolution, by the 2-D algorithms.

    Args:
        signals: (batch, time, channels, rows, columns).
        filters: (OC, time, channels, rows, columns).
        signals_shape: checked.
        filters_shape: checked.
        border_mode: 'valid', 'full' or 'half', or three of these for time, rows and columns, the last two alike.
        name: of the result.

    Returns:
        (batch, time', OC, rows', columns')

    Source:
        theano.tensor.nnet.conv3d2d.conv3d.

    Example:
        >>> import numpy as np
        >>> from convc import dsl, nnet
        >>> nnet.conv3d2d.conv3d(dsl.input("x", (1, 7, 3, 8, 9)), np.ones((4, 5, 3, 2, 2)), border_mode="half").shape
        (1, 7, 4, 9, 10)
    """
    x = float_tensor("signals", signals, filters)
    w = float_tensor("filters", filters, x)
    check_declared("signals_shape", signals_shape, x.shape)
    check_declared("filters_shape", filters_shape, w.shape)
    if len(x.shape) != 5 or len(w.shape) != 5 or x.shape[2] != w.shape[2]:
        raise ShapeError(
            "signals must be (batch, time, channels, rows, columns) and filters (OC, time, channels, rows, columns) of as many "
            f"channels; got {x.node.type} and {w.node.type}."
        )
    modes = [border_mode] * 3 if isinstance(border_mode, str) else listed(border_mode) or []
    known = ("valid", "full", "half")
    if len(modes) != 3 or not all(is_one_of(m, known) for m in modes) or modes[1] != modes[2]:
        raise ShapeError(
            f"border_mode must be 'valid', 'full' or 'half', or three of these with rows and columns alike; got {border_mode!r}."
        )
    batch, channels, taps = x.shape[0], x.shape[2], w.shape[1]
    before, after = axis_pads(modes[0], taps)
    if taps and (before or after):
        x = pad(x, (0, before, 0, 0, 0, 0, after, 0, 0, 0))
    frames = x.shape[1] - taps + 1
    if taps < 1 or frames < 1:
        raise ShapeError(
            f"filters must fit the padded signals in time; got {taps} taps for {x.shape[1]} frames."
        )
    total: Tensor | None = None
    for tap in range(taps):
        part = reshape(x[:, tap : tap + frames], (batch * frames, channels, *x.shape[3:]))
        product = Convolution(2, modes[1]).forward(part, w[:, taps - 1 - tap])
        total = product if total is None else total + product
    assert total is not None
    return reshape(total, (batch, frames, *total.shape[1:]), name=name)
