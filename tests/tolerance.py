"""How far a compiled result may be from the float64 reference: the ONE place that knows numbers.

exact     sums of small whole numbers are exact in float32, in any order: equality, bit for bit
bounded   |y - reference| <= 4 eps * bound, element by element; `bound` is the same algorithm on absolute values, so that it grows
          where the algorithm's intermediate values do (Winograd's transforms). Measured on signed normal data: at most 1.3 for
          sums of 27 to 4608 products, 0.1 for Winograd F(2) to F(6); a constant of 4 leaves room for both and for nothing else.
scalar    the polynomials of exp, tanh and erf have an error of their own, see SCALAR_ERRORS
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from convc.ir import ConvSpec, Step
from convc.ir.ops.conv import convolve, convolve_transposed
from convc.schedules.rank import raised
from convc.schedules.winograd import transforms

__all__ = [
    "EPS",
    "INEXACT",
    "SCALAR_ERRORS",
    "assert_bounded",
    "assert_exact",
    "error_bound",
    "scalar_error",
]

EPS: Final = float(np.finfo(np.float32).eps)
_FACTOR: Final = 4

Array = np.ndarray
Knobs = Mapping[str, int]


def _direct_bound(x: Array, w: Array, spec: ConvSpec, knobs: Knobs) -> Array:
    """Return |w| * |x|."""
    function = convolve_transposed if spec.transposed else convolve
    return function(np.abs(x).astype(np.float64), np.abs(w).astype(np.float64), spec)


def _winograd_bound(x: Array, w: Array, spec: ConvSpec, knobs: Knobs) -> Array:
    """Return |A_T| [(|G| |g| |G_T|) . (|B_T| |d| |B|)] |A|, tile by tile."""
    y_shape, spec = spec.output, raised(spec)
    x, w = x.reshape(spec.data), w.reshape(spec.weight)
    high, wide = transforms(spec, knobs["m"])
    (A, G, B), (A2, G2, B2) = (
        tuple(np.abs(np.array(matrix, dtype=np.float64)) for matrix in (t.A_T, t.G, t.B_T))
        for t in (high, wide)
    )
    N, K, P, Q = spec.output
    top, left, _, _ = spec.pads
    rows, cols = -(-P // high.m), -(-Q // wide.m)
    padded = np.zeros(
        (*spec.data[:2], rows * high.m + high.r - 1, cols * wide.m + wide.r - 1), np.float64
    )
    # Points behind the last tile are read by no result.
    h = min(spec.data[2], padded.shape[2] - top)
    v = min(spec.data[3], padded.shape[3] - left)
    padded[:, :, top : top + h, left : left + v] = np.abs(x[:, :, :h, :v])
    U = np.einsum("ir,kcrs,js->ijkc", G, np.abs(w).astype(np.float64), G2)
    y = np.zeros((N, K, rows * high.m, cols * wide.m))
    for row in range(rows):
        for col in range(cols):
            i, j = row * high.m, col * wide.m
            d = padded[:, :, i : i + high.alpha, j : j + wide.alpha]
            V = np.einsum("ir,ncrs,js->ijnc", B, d, B2)
            M = np.einsum("ijkc,ijnc->ijnk", U, V)
            y[:, :, i : i + high.m, j : j + wide.m] = np.einsum("pi,ijnk,qj->nkpq", A, M, A2)
    return y[:, :, :P, :Q].reshape(y_shape)


def _fft_bound(x: Array, w: Array, spec: ConvSpec, knobs: Knobs) -> Array:
    """Return sum over c of ||x_c|| ||w_c||: a transform spreads its rounding over all of its points.

    Source:
        Higham, Accuracy and Stability of Numerical Algorithms, 24.1: relative error in the 2-norm, growing with log2 of the points.
    """
    axes = tuple(range(2, x.ndim))
    norm_x = np.sqrt((x.astype(np.float64) ** 2).sum(axes)).reshape(x.shape[0], spec.group, -1)
    norm_w = np.sqrt((w.astype(np.float64) ** 2).sum(axes)).reshape(spec.group, -1, w.shape[1])
    bound = np.einsum("ngc,gkc->ngk", norm_x, norm_w).reshape(spec.output[:2])
    return np.broadcast_to(bound.reshape(*spec.output[:2], *(1,) * spec.rank), spec.output)


# Algorithms whose intermediate values are no whole numbers when data and weights are, each with its bound.
INEXACT: Final[Mapping[str, Callable[[Array, Array, ConvSpec, Knobs], Array]]] = {
    "winograd": _winograd_bound,
    "fft": _fft_bound,
}


def error_bound(algorithm: str, x: Array, w: Array, spec: ConvSpec, knobs: Knobs) -> Array:
    """Return by how much the algorithm's result may differ from the exact one, element by element."""
    return _FACTOR * EPS * INEXACT.get(algorithm, _direct_bound)(x, w, spec, knobs)


# Greatest error of the compiled float32 scalar functions on [-20, 20], absolute where |y| < 1 and relative above, in units of eps,
# rounded up to the next power of two; all others are exact or rounded once (libm). Measured by tests/schedules/test_scalar.py.
SCALAR_ERRORS: Final[Mapping[str, int]] = {
    "exp": 2,
    "silu": 2,
    "softplus": 2,
    "tanh": 4,
    "erf": 4,
    "sinh": 2,
}


def scalar_error(steps: Sequence[Step], y: Array) -> Array:
    """Return the error that the epilogue's functions add to an exact operand."""
    units = sum(SCALAR_ERRORS.get(step.name, 1) for step in steps)
    return units * EPS * np.maximum(np.abs(y), 1)


def assert_exact(actual: Array, expected: Array) -> None:
    """Assert equality, bit for bit but for the sign of zero."""
    np.testing.assert_array_equal(actual.astype(np.float64), expected)


def assert_bounded(actual: Array, expected: Array, bound: Array) -> None:
    """Assert |actual - expected| <= bound, element by element; the message has the worst one."""
    difference = np.abs(actual.astype(np.float64) - expected)
    excess = np.where(np.isfinite(difference), difference - bound, np.inf)
    worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
    assert excess[worst] <= 0, (
        f"error {difference[worst]:.3g} at {tuple(map(int, worst))} must be at most {np.broadcast_to(bound, excess.shape)[worst]:.3g}; "
        f"got {actual[worst]} for {expected[worst]}"
    )
