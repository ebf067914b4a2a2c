"""Which network is exported at which opset: all of them in turn, so that a table of networks is one of opsets, too."""

from __future__ import annotations

from typing import Final

__all__ = ["OPSETS", "opset_of"]

OPSETS: Final = tuple(range(11, 24))
# What torch's exporters lack below; they name the first opset that has it.
_AT_LEAST: Final[dict[str, int]] = {}


def opset_of(name: str, place: int) -> int:
    """Return the opset of the network at a place of its list.

    Example:
        >>> opset_of("torchvision/alexnet", 0), opset_of("torchvision/vgg16", 14)
        (11, 12)
    """
    return max(OPSETS[place % len(OPSETS)], _AT_LEAST.get(name, 0))
