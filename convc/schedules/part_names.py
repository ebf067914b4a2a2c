"""Names of functions in a module with code for several batch sizes or CPUs: one prefix for each of those parts."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["part_of", "part_prefix"]

_PREFIX: Final = re.compile(r"v(\d+)_")


def part_prefix(number: int) -> str:
    """Return what a part's symbols begin with: the same kernel for two CPUs has one symbol; in one library it needs two."""
    return f"v{number}_" if number else ""


def part_of(symbol: str) -> int:
    """Return the part that a symbol is of.

    Example:
        >>> [part_of(part_prefix(number) + "conv1") for number in (0, 1, 12)]
        [0, 1, 12]
    """
    found = _PREFIX.match(symbol)
    return int(found[1]) if found else 0
