"""Which network is exported at which opset: all of them in turn, so that a table of networks is one of opsets, too."""

from __future__ import annotations

from typing import Final

__all__ = ["OPSETS", "opset_of"]

OPSETS: Final = tuple(range(11, 24))


def opset_of(place: int) -> int:
    """Return the opset of the network at a place of a list.

    Example:
        >>> opset_of(0), opset_of(14)
        (11, 12)
    """
    return OPSETS[place % len(OPSETS)]
