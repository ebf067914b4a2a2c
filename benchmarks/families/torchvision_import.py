"""Import torchvision beside any build of torch, the CPU's too: its networks need none of its compiled operators."""

from __future__ import annotations

import sys
from functools import cache
from typing import Final

import torch  # pyright: ignore[reportMissingImports]

__all__ = ["import_torchvision"]

# What torchvision registers shapes for when it is imported, without looking whether its library was loaded.
_LOOKED_FOR: Final = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def import_torchvision() -> object:
    """Make `import torchvision` work; returns what must stay alive for it.

    Its wheels are linked with one build of torch; with another one their library does not load, and the import ends in "operator
    torchvision::nms does not exist". The operators are declared then, without code: whoever calls one gets torch's error.
    """
    try:
        import torchvision  # pyright: ignore[reportMissingImports]
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for signature in _LOOKED_FOR:
            library.define(signature)
        import torchvision  # pyright: ignore[reportMissingImports]  # noqa: F401

        return library
    return None
