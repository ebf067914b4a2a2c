"""Bilinear upsampling by whole and rational ratios, as one convolution: every phase of the output has its own small filter.

Output point y reads the input at src = clip((y - (r - 1) // 2) / r, 0, H - 1), linearly. For odd r that is ONNX's Resize (linear,
half_pixel); for even r it is shifted by half an output point. A rational ratio p/q is upsampling by p of which every q-th point
stays: with j = p m + t, src = q m + (q t - (p - 1) // 2) / p, so phase t is a convolution of stride q with a filter of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import flag, is_whole, listed
from convc.frontend.dsl.movement import concat
from convc.frontend.dsl.tensor import Operand, Tensor, apply, building, reshape, transpose
from convc.frontend.nnet.geometry import check_declared, float_tensor
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.definition import Array

__all__ = [
    "bilinear_kernel_1D",
    "bilinear_kernel_2D",
    "bilinear_upsampling",
    "frac_bilinear_upsampling",
]

Ratio = tuple[int, int]

# Filters are built when the graph is: 2 GiB of float64, a ratio of 5461 on both axes, or 127/128.
_MOST_TAPS: Final = 2**28


def _check_size(argument: str, value: object, taps: int) -> None:
    if taps > _MOST_TAPS:
        raise ShapeError(
            f"{argument} must need at most {_MOST_TAPS} taps of all phases' filters; got {value!r}, which needs {taps}."
        )


def bilinear_kernel_1D(ratio: int, normalize: bool = True) -> Array:  # noqa: N802 (Theano's name)
    """Return the tent 1 .. ratio .. 1 of length 2 ratio - 1, divided by `ratio` if `normalize`.

    Example:
        >>> bilinear_kernel_1D(2).tolist()
        [0.5, 1.0, 0.5]
    """
    if not is_whole(ratio) or ratio < 1:
        raise ShapeError(f"ratio must be whole and >= 1; got {ratio}.")
    _check_size("ratio", ratio, 2 * ratio - 1)
    rise = np.arange(1, ratio + 1, dtype=np.float64)
    tent = np.concatenate([rise, rise[-2::-1]]) if ratio > 1 else rise
    return tent / ratio if flag("normalize", normalize) else tent


def bilinear_kernel_2D(ratio: int | Sequence[int], normalize: bool = True) -> Array:  # noqa: N802 (Theano's name)
    """Return the outer product of two tents; a pair of ratios is (vertical, horizontal).

    Example:
        >>> bilinear_kernel_2D((1, 2), normalize=False).tolist()
        [[1.0, 2.0, 1.0]]
    """
    pair = [ratio] * 2 if is_whole(ratio) else listed(ratio) or []
    if len(pair) != 2:
        raise ShapeError(f"ratio must be one number or 2, whole and >= 1; got {ratio!r}.")
    down, across = (bilinear_kernel_1D(r, normalize) for r in pair)
    _check_size("ratio", ratio, down.size * across.size)
    return np.outer(down, across)


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis's phases.

    Attributes:
        output: points in the result.
        blocks: how many times all phases are computed.
        filters: (phases, taps).
        before, after: points repeated at the ends.
    """

    output: int
    blocks: int
    filters: Array
    before: int
    after: int

    @staticmethod
    def of(extent: int, p: int, q: int) -> _Axis:
        output = (extent * p - 1) // q + 1
        places = [divmod(q * t - (p - 1) // 2, p) for t in range(p)]
        first, last = _reach(p, q)
        filters = np.zeros((p, last - first + 1))
        for t, (floor, rest) in enumerate(places):
            filters[t, floor - first] = 1 - rest / p
            filters[t, floor - first + 1] = rest / p
        blocks = -(-output // p)
        reach = q * (blocks - 1) + last
        return _Axis(output, blocks, filters, -first, max(0, reach - extent + 1))


def _reach(p: int, q: int) -> tuple[int, int]:
    """Return the first and last point that any phase reads: later phases read later ones."""
    return -((p - 1) // 2) // p, (q * (p - 1) - (p - 1) // 2) // p + 1


def _taps(p: int, q: int) -> int:
    """Return the taps of all phases of one axis."""
    first, last = _reach(p, q)
    return p * (last - first + 1)


def _with_edges(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Return the tensor with its first and last points repeated."""
    box: list[slice] = [slice(None)] * len(x.shape)
    box[axis] = slice(0, 1)
    first = x[tuple(box)]
    box[axis] = slice(x.shape[axis] - 1, None)
    last = x[tuple(box)]
    parts = [*[first] * before, x, *[last] * after]
    return concat(parts, axis) if len(parts) > 1 else x


def _upsampled(input: Operand, ratios: tuple[Ratio, Ratio], name: str | None) -> Tensor:
    x = float_tensor("input", input)
    if len(x.shape) != 4:
        raise ShapeError(f"input must be (batch, channels, rows, columns); got {x.node.type}.")
    batch, channels, *extents = x.shape
    strides = tuple(q for _, q in ratios)
    _check_size("ratio", ratios, math.prod(_taps(p, q) for p, q in ratios))
    high, wide = (_Axis.of(e, p, q) for e, (p, q) in zip(extents, ratios, strict=True))
    x = reshape(x, (batch * channels, 1, *extents))
    for axis, phases in ((2, high), (3, wide)):
        x = _with_edges(x, axis, phases.before, phases.after)
    ph, pw = len(high.filters), len(wide.filters)
    filters = np.einsum("tr,us->turs", high.filters, wide.filters)
    filters = filters.reshape(ph * pw, 1, *filters.shape[2:])
    # As far as the last block reads; the rest of the last stride is not there.
    needed = [
        q * (a.blocks - 1) + a.filters.shape[1] for q, a in zip(strides, (high, wide), strict=True)
    ]
    x = x[:, :, : needed[0], : needed[1]]
    y = apply("conv", [x, filters], ConvAttributes(strides))
    y = reshape(y, (batch * channels, ph, pw, high.blocks, wide.blocks))
    y = transpose(y, (0, 3, 1, 4, 2))
    y = reshape(
        y,
        (batch, channels, high.blocks * ph, wide.blocks * pw),
        name=name if _whole(high, wide) else None,
    )
    return y if _whole(high, wide) else y[:, :, : high.output, : wide.output]


def _whole(high: _Axis, wide: _Axis) -> bool:
    return all(a.output == a.blocks * len(a.filters) for a in (high, wide))


def _reduced(ratio: object) -> Ratio:
    pair = listed(ratio) or []
    if len(pair) != 2 or not all(is_whole(r) and r >= 1 for r in pair):
        raise ShapeError(
            f"frac_ratio must be (p, q) or ((p, q), (p, q)), whole and >= 1; got {ratio}."
        )
    p, q = map(int, pair)
    divisor = math.gcd(p, q)
    return p // divisor, q // divisor


@building
def frac_bilinear_upsampling(
    input: Operand, frac_ratio: Sequence[int] | Sequence[Sequence[int]], *, name: str | None = None
) -> Tensor:
    """Return images enlarged (or reduced) by p/q: upsampled by p, of which every q-th point stays.

    Args:
        input: (batch, channels, rows, columns).
        frac_ratio: (p, q), or one pair for rows and one for columns.
        name: of the result.

    Example:
        >>> from convc import dsl, nnet
        >>> nnet.frac_bilinear_upsampling(dsl.input("x", (1, 2, 8, 9)), ((7, 4), (2, 3))).shape
        (1, 2, 14, 6)
    """
    given = listed(frac_ratio) or []
    is_pair_of_pairs = len(given) == 2 and all(listed(r) is not None for r in given)
    first, second = given if is_pair_of_pairs else (frac_ratio, frac_ratio)
    return _upsampled(input, (_reduced(first), _reduced(second)), name)


@building
def bilinear_upsampling(
    input: Operand,
    ratio: int | None = None,
    frac_ratio: Sequence[int] | Sequence[Sequence[int]] | None = None,
    batch_size: int | None = None,
    num_input_channels: int | None = None,
    use_1D_kernel: bool = True,
    *,
    name: str | None = None,
) -> Tensor:
    """Return images enlarged by `ratio`, or by the rational `frac_ratio`.

    Args:
        input: (batch, channels, rows, columns).
        ratio: whole; exactly one of it and `frac_ratio`.
        frac_ratio: as `frac_bilinear_upsampling`.
        batch_size: checked.
        num_input_channels: checked.
        use_1D_kernel: makes no difference to the result; must be False with `frac_ratio`, as in Theano.
        name: of the result.

    Raises:
        ShapeError: if both ratios or none are given.

    Example:
        >>> from convc import dsl, nnet
        >>> nnet.bilinear_upsampling(dsl.input("x", (1, 2, 4, 5)), 3).shape
        (1, 2, 12, 15)
    """
    if (ratio is None) == (frac_ratio is None):
        raise ShapeError(
            f"exactly one of ratio and frac_ratio must be given; got {ratio} and {frac_ratio}."
        )
    x = float_tensor("input", input)
    check_declared(
        "(batch_size, num_input_channels)", (batch_size, num_input_channels), x.shape[:2]
    )
    if frac_ratio is not None:
        if flag("use_1D_kernel", use_1D_kernel):
            raise ShapeError("use_1D_kernel must be False with frac_ratio; got True.")
        return frac_bilinear_upsampling(x, frac_ratio, name=name)
    if not is_whole(ratio) or ratio < 1:  # type: ignore[operator]
        raise ShapeError(f"ratio must be whole and >= 1, frac_ratio takes others; got {ratio}.")
    assert ratio is not None
    return _upsampled(x, (_reduced((ratio, 1)), _reduced((ratio, 1))), name)
