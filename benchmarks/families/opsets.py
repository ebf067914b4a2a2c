"""Which network is exported at which opset: all of them in turn, so that a table of networks is one of opsets, too."""

from __future__ import annotations

from typing import Final

__all__ = ["OPSETS", "opset_of"]

OPSETS: Final = tuple(range(11, 24))


# For packages that do not write older ones: attention is in torch's exporters from 14 on. One of each exporter, in turn.
_RECENT: Final = (17, 18)


def opset_of(source: str, place: int) -> int:
    """Return the opset of the network at a place of a package's list.

    Example:
        >>> opset_of("timm", 0), opset_of("timm", 14), opset_of("monai", 1)
        (11, 12, 18)
    """
    opsets = OPSETS if source in ("torchvision", "timm") else _RECENT
    return opsets[place % len(opsets)]
