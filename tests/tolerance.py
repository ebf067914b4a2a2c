"""How far a compiled result may be from the float64 reference: the ONE place that knows numbers.

exact     sums of small whole numbers are exact in float32, in any order: equality, bit for bit
bounded   |y - reference| <= 4 eps * bound, element by element, see `convc.schedules.error_bound`
scalar    the polynomials of exp, tanh and erf have an error of their own, see SCALAR_ERRORS
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from convc.ir import Step
from convc.schedules.error_bound import EPS, INEXACT, error_bound

__all__ = [
    "EPS",
    "INEXACT",
    "SCALAR_ERRORS",
    "assert_bounded",
    "assert_exact",
    "error_bound",
    "scalar_error",
]

Array = np.ndarray


# Greatest error of the compiled float32 scalar functions on [-20, 20], absolute where |y| < 1 and relative above, in units of eps,
# rounded up to the next power of two; all others are exact or rounded once (libm). Measured by tests/schedules/test_scalar.py.
SCALAR_ERRORS: Final[Mapping[str, int]] = {
    "exp": 2,
    "silu": 2,
    "softplus": 2,
    "tanh": 4,
    "erf": 4,
    "gelu": 8,
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
