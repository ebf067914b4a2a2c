"""How far one output is from its reference, as one number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convc.errors import AccuracyError

__all__ = ["OutputError", "compare", "merge"]


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far one output is from its reference, over all runs.

    Attributes:
        max_absolute_error: max |y - reference| over the elements where both are finite.
        max_relative_error: THE metric, max |y - reference| / max |reference|; infinite when a value that must be finite is not.
        mismatches: elements whose own error is above tolerance * max |reference|.
        elements: elements compared.
        nan, infinite: counts in the module's output.
    """

    name: str
    max_absolute_error: float
    max_relative_error: float
    mismatches: int
    elements: int
    nan: int
    infinite: int


def compare(name: str, y: np.ndarray, reference: np.ndarray, tolerance: float) -> OutputError:
    """Return how far `y` is from `reference`.

    A NaN, or an infinity of the same sign, that the reference has too is no error; any other one is an infinite error.

    Raises:
        AccuracyError: if the shapes differ.

    Example:
        >>> compare("y", np.array([1.0, 2.5]), np.array([1.0, 2.0]), 1e-4).max_relative_error
        0.25
    """
    if y.shape != reference.shape:
        raise AccuracyError(
            f"output '{name}' must have the reference's shape {reference.shape}; got {y.shape}."
        )
    wide, exact = y.astype(np.float64), reference.astype(np.float64)
    both = np.isfinite(wide) & np.isfinite(exact)
    same = both | (np.isnan(wide) & np.isnan(exact)) | (wide == exact)
    difference = np.abs(np.where(both, wide, 0) - np.where(both, exact, 0))
    scale = float(np.max(np.abs(exact), initial=0, where=np.isfinite(exact)))
    absolute = float(np.max(difference, initial=0))
    relative = absolute / scale if scale > 0 else (0.0 if absolute == 0 else float("inf"))
    return OutputError(
        name=name,
        max_absolute_error=absolute,
        max_relative_error=relative if bool(same.all()) else float("inf"),
        mismatches=int(np.count_nonzero(~same | (difference > tolerance * scale))),
        elements=int(y.size),
        nan=int(np.count_nonzero(np.isnan(wide))),
        infinite=int(np.count_nonzero(np.isinf(wide))),
    )


def merge(first: OutputError, second: OutputError) -> OutputError:
    """Return the error of an output over two runs."""
    return OutputError(
        first.name,
        max(first.max_absolute_error, second.max_absolute_error),
        max(first.max_relative_error, second.max_relative_error),
        first.mismatches + second.mismatches,
        first.elements + second.elements,
        first.nan + second.nan,
        first.infinite + second.infinite,
    )
