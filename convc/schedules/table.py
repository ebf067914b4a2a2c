"""ALGORITHMS: the rows, in order of preference on ties. A new algorithm is one file, one row here and one schedule per target."""

from __future__ import annotations

from typing import Final

from convc.errors import unknown_name
from convc.schedules import (
    depthwise,
    direct,
    fft,
    generic,
    grouped,
    im2col,
    inner_product,
    subpixel,
    winograd,
)
from convc.schedules.algorithm import Algorithm

__all__ = ["ALGORITHMS", "TEMPLATE", "algorithm_named"]

# Of tuning records: one more whenever a schedule or the meaning of a knob changes so much that old times say nothing any more.
TEMPLATE: Final = 4

ALGORITHMS: Final[tuple[Algorithm, ...]] = (
    depthwise.ALGORITHM,
    direct.ALGORITHM,
    grouped.ALGORITHM,
    winograd.ALGORITHM,
    fft.ALGORITHM,
    subpixel.ALGORITHM,
    inner_product.ALGORITHM,
    im2col.ALGORITHM,
    generic.ALGORITHM,
)


def algorithm_named(name: str) -> Algorithm:
    """Return the algorithm called `name`, or raise UnknownNameError."""
    for row in ALGORITHMS:
        if row.name == name:
            return row
    raise unknown_name("algorithm", name, [row.name for row in ALGORITHMS])
