"""By how much the result of each algorithm may differ from the exact one, element by element, computed for given data and weights.

    |error| <= 4 eps bound + u |y|          eps of float32; u of the result's type if that is a narrower one

`bound` is the same algorithm on absolute values, so that it grows where the algorithm's intermediate values do. Measured on signed
normal data: |error| / (eps bound) is at most 1.3 for sums of 27 to 4608 products, 0.1 for Winograd F(2) to F(6); a constant of 4
leaves room for both and for nothing else. Tensor cores cut sums off where other units round them, see `relative_error`.

Tests hold every compiled kernel against this, and a tuner can hold candidates against it. It is slow: NumPy, float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from convc.ir.ops.conv import convolve, convolve_transposed
from convc.ir.spec import ConvSpec
from convc.schedules.plan import Knobs
from convc.schedules.rank import raised
from convc.schedules.span import swapped
from convc.schedules.winograd_tiles import Axis, Tiles

__all__ = ["EPS", "INEXACT", "error_bound", "product_error", "relative_error", "result_rounding"]

EPS: Final = float(np.finfo(np.float32).eps)
_FACTOR: Final = 4

# Algorithms whose operands are rounded first: |error| of one product, relative to it. TF32 keeps 11 bits of each operand.
_ROUNDED_OPERANDS: Final[Mapping[str, float]] = {"tf32": 2.0**-10}
# Algorithms that have no other units to add up on, and so no knob `math`.
_ON_TENSOR_CORES: Final = frozenset({"cutlass"})

# Greatest relative error of a number of a narrower type than the sums.
_ROUNDINGS: Final[Mapping[str, float]] = {"float16": 2.0**-11, "bfloat16": 2.0**-8}

Array = np.ndarray


def _direct_bound(x: Array, w: Array, spec: ConvSpec, knobs: Knobs) -> Array:
    """Return |w| * |x|."""
    return (convolve_transposed if spec.transposed else convolve)(x, w, spec)


def _winograd_bound(x: Array, w: Array, spec: ConvSpec, knobs: Knobs) -> Array:
    """Return |A_T| [(|G| |g| |G_T|) . (|B_T| |d| |B|)] |A|, tile by tile, summed over parts, channels and depth."""
    spec, shape = raised(spec), spec.output
    x, w = x.reshape(spec.data), w.reshape(spec.weight)
    w = swapped(w, spec.group) if spec.transposed else w
    if spec.rank == 2:
        x, w = x[:, :, None], w[:, :, None]
    tiles = Tiles.of(spec, knobs["m"])
    high, wide = tiles.high, tiles.wide
    (A, G, B), (A2, G2, B2) = (
        tuple(np.abs(np.array(m, dtype=np.float64)) for m in (t.A_T, t.G, t.B_T))
        for t in (high.transform, wide.transform)
    )
    depth = (
        (spec.strides[0], spec.dilations[0], spec.pads[0], spec.pads[spec.rank])
        if spec.rank == 3
        else (1, 1, 0, 0)
    )
    border = tiles.border(spec)
    planes = np.pad(
        x, ((0, 0), (0, 0), depth[2:], (border.top, border.bottom), (border.left, border.right))
    )
    taps = np.pad(w, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 1)))
    group_c, group_k = spec.in_channels // spec.group, spec.out_channels // spec.group
    slices = spec.output[2] if spec.rank == 3 else 1
    extents = (high.blocks * high.pitch, wide.blocks * wide.pitch)
    y = np.zeros((spec.data[0], spec.out_channels, slices, *extents))
    kinds = (range(high.filters), range(wide.filters), range(high.parts), range(wide.parts))
    for f, h, g, i in itertools.product(*kinds):
        rows, cols = _points(high, f, g), _points(wide, h, i)
        V = np.einsum(
            "ea,fb,ncdtaub->ncdtuef", B, B2, planes[:, :, :, rows[:, :, None, None], cols]
        )
        own = taps[..., high.taps(f, g), :][..., wide.taps(h, i)]
        U = np.einsum("er,kcqrs,fs->kcqef", G, own, G2)
        p, q = _results(high, f), _results(wide, h)
        for group, d, tap in itertools.product(range(spec.group), range(slices), range(w.shape[2])):
            c = slice(group * group_c, (group + 1) * group_c)
            k = slice(group * group_k, (group + 1) * group_k)
            right = V[:, c, d * depth[0] + tap * depth[1]]  # n c t u e f
            n, _, t, u, *alphas = right.shape
            right = right.transpose(4, 5, 1, 0, 2, 3).reshape(*alphas, group_c, -1)
            M = (U[k, :, tap].transpose(2, 3, 0, 1) @ right).reshape(*alphas, group_k, n, t, u)
            part = np.einsum("pe,efkntu,qf->nktpuq", A, M, A2, optimize=True)
            y[:, k, d, p[:, :, None, None], q] += part
    return y[:, :, :, : spec.output[-2], : spec.output[-1]].reshape(shape)  # fmt: skip


def _points(axis: Axis, filter: int, part: int) -> Array:
    """Return where the points of each tile lie in the data with its border."""
    numbers = range(axis.transform.alpha)
    return np.array([[axis.point(t, i, filter, part) for i in numbers] for t in range(axis.tiles)])


def _results(axis: Axis, filter: int) -> Array:
    """Return which results each tile makes."""
    places = range(axis.transform.m)
    return np.array([[axis.result(t, i, filter) for i in places] for t in range(axis.tiles)])


def _fft_bound(x: Array, w: Array, spec: ConvSpec, knobs: Knobs) -> Array:
    """Return sum over c of ||x_c|| ||w_c||: a transform spreads its rounding over all of its points.

    Source:
        Higham, Accuracy and Stability of Numerical Algorithms, 24.1: relative error in the 2-norm, growing with log2 of the points.
    """
    axes = tuple(range(2, x.ndim))
    norm_x = np.sqrt((x**2).sum(axes)).reshape(x.shape[0], spec.group, -1)
    norm_w = np.sqrt((w**2).sum(axes)).reshape(spec.group, -1, w.shape[1])
    bound = np.einsum("ngc,gkc->ngk", norm_x, norm_w).reshape(spec.output[:2])
    return np.broadcast_to(bound.reshape(*spec.output[:2], *(1,) * spec.rank), spec.output)


# Algorithms whose intermediate values are no whole numbers when data and weights are, each with its bound.
INEXACT: Final[Mapping[str, Callable[[Array, Array, ConvSpec, Knobs], Array]]] = {
    "winograd": _winograd_bound,
    "fft": _fft_bound,
}


def error_bound(algorithm: str, x: Array, w: Array, spec: ConvSpec, knobs: Knobs) -> Array:
    """Return by how much the algorithm's result may differ from the exact one, element by element.

    Example:
        >>> spec = ConvSpec.of((1, 1, 6, 6), (1, 1, 3, 3))
        >>> x, w = np.ones(spec.data), np.ones(spec.weight)
        >>> [int(error_bound(name, x, w, spec, {"m": 2}).max() / (4 * EPS)) for name in ("direct", "winograd")]
        [9, 64]
    """
    data, weight = (array.astype(np.float64) for array in (x, w))
    operands = (np.abs(data), np.abs(weight), spec, knobs)
    if algorithm in INEXACT:
        bound = _FACTOR * EPS * INEXACT[algorithm](*operands)
    else:
        bound = relative_error(algorithm, spec, knobs) * _direct_bound(*operands)
    rounding = result_rounding(spec.dtype)
    return (
        bound + rounding * np.abs(_direct_bound(data, weight, spec, knobs)) if rounding else bound
    )


def relative_error(algorithm: str, spec: ConvSpec, knobs: Knobs) -> float:
    """Return |error| / (|w| * |x|) of an algorithm that adds up the products themselves, its result not yet rounded to a narrow type.

    Where long sums stay on tensor cores (knob `math` of 1, or CUTLASS), each instruction of 8 terms or more may cut off one eps.

    Example:
        >>> spec = ConvSpec.of((1, 64, 8, 8), (64, 64, 1, 1))
        >>> settings = (("direct", {}), ("tensor_core", {"math": 3}), ("tensor_core", {"math": 1}), ("tf32", {"math": 1}))
        >>> [round(relative_error(name, spec, knobs) / EPS) for name, knobs in settings]
        [4, 4, 12, 8204]
    """
    return product_error(algorithm, spec.in_channels // spec.group * math.prod(spec.kernel), knobs)


def product_error(algorithm: str, terms: int, knobs: Knobs) -> float:
    """Return `relative_error` of a sum of so many products, which need not be a convolution's."""
    chain = terms / 8 if knobs.get("math") == 1 or algorithm in _ON_TENSOR_CORES else 0
    return (_FACTOR + chain) * EPS + _ROUNDED_OPERANDS.get(algorithm, 0.0)


def result_rounding(dtype: str) -> float:
    """Return the greatest relative error of rounding a float32 to an element type; 0 where nothing is rounded."""
    return _ROUNDINGS.get(dtype, 0.0)
