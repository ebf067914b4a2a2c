"""The benchmark's layers, from networks and older benchmarks, and the classes by which they are judged.

`layers.csv` has one row per layer: id, network, canonical key of the convolution (`ConvSpec.parse` reads it). All have batch 1 but
those whose source says otherwise; "convnet-benchmarks" was batch 128.
"""

from __future__ import annotations

import csv
import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from convc.errors import unknown_name
from convc.ir import ConvSpec

__all__ = ["CLASSES", "Layer", "class_of", "layers"]


def _square(spec: ConvSpec, taps: int) -> bool:
    return set(spec.kernel) == {taps}


def _strided(spec: ConvSpec) -> bool:
    return max(spec.strides) > 1


def _depthwise(spec: ConvSpec, least: int, most: int) -> bool:
    return spec.is_depthwise and least <= max(spec.kernel) <= most


# A layer is of the first class that fits. What counts as a first layer: so few channels that blocks of channels would be mostly padding.
CLASSES: Final[tuple[tuple[str, Callable[[ConvSpec], bool]], ...]] = (
    ("transposed", lambda s: s.transposed),
    ("3-D", lambda s: s.rank == 3),
    ("dw3", lambda s: _depthwise(s, 1, 3)),
    ("dw5", lambda s: _depthwise(s, 4, 6)),
    ("dw7+", lambda s: _depthwise(s, 7, 10**9)),
    ("group", lambda s: s.group > 1),
    ("dilated", lambda s: max(s.dilations) > 1),
    ("stem", lambda s: s.in_channels <= 4),
    ("1x1", lambda s: s.is_pointwise and not _strided(s)),
    ("1x1s2", lambda s: s.is_pointwise),
    ("1-D", lambda s: s.rank == 1 or min(s.kernel) == 1),
    ("3x3s1", lambda s: _square(s, 3) and not _strided(s)),
    ("3x3s2", lambda s: _square(s, 3)),
    ("5x5", lambda s: _square(s, 5)),
    ("7x7+", lambda s: max(s.kernel) >= 7),
    ("other", lambda s: True),
)
_FILE: Final = Path(__file__).with_name("layers.csv")


def class_of(spec: ConvSpec) -> str:
    """Return the name of the layer's class.

    Example:
        >>> class_of(ConvSpec.of((1, 64, 56, 56), (64, 64, 3, 3)))
        '3x3s1'
    """
    return next(name for name, fits in CLASSES if fits(spec))


@dataclass(frozen=True, slots=True)
class Layer:
    """One row: `name` is unique, `network` says where it comes from."""

    name: str
    network: str
    spec: ConvSpec

    @property
    def kind(self) -> str:
        """Its class."""
        return class_of(self.spec)


@cache
def _all() -> tuple[Layer, ...]:
    with _FILE.open(newline="") as file:
        rows = csv.DictReader(file)
        return tuple(Layer(r["id"], r["network"], ConvSpec.parse(r["key"])) for r in rows)


def layers(classes: Sequence[str] = (), pattern: str = "*") -> tuple[Layer, ...]:
    """Return the layers of some classes (all if none is named) whose id matches the pattern, in the file's order.

    Raises:
        UnknownNameError: for a class that does not exist, or a pattern that matches nothing.
    """
    known = [name for name, _ in CLASSES]
    for name in classes:
        if name not in known:
            raise unknown_name("layer class", name, known)
    fitting = [layer for layer in _all() if not classes or layer.kind in classes]
    chosen = tuple(layer for layer in fitting if fnmatch.fnmatchcase(layer.name, pattern))
    if not chosen:
        raise unknown_name("layer", pattern, [layer.name for layer in fitting])
    return chosen
