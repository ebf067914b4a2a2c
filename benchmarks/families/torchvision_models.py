"""torchvision's networks and what each is fed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks.families.names import DETECTION, SEGMENTATION, VIDEO
from benchmarks.families.torchvision_import import import_torchvision

__all__ = ["build"]


class _Heads(nn.Module):
    """A one-stage detector from the image to its heads: class scores and box offsets of every anchor."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone: Any = detector.backbone
        self.head: Any = detector.head

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.head(list(self.backbone(x).values())).values())


class _Proposals(nn.Module):
    """A two-stage detector from the image to the scores and boxes of its region proposals."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone: Any = detector.backbone
        self.head: Any = detector.rpn.head

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores, boxes = self.head(list(self.backbone(x).values()))
        return (*scores, *boxes)


class _Only(nn.Module):
    """A segmentation network's main output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)["out"]


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a network and its input's shape."""
    import_torchvision()
    import torchvision.models as models  # pyright: ignore[reportMissingImports]

    if name in SEGMENTATION:
        make: Callable[..., Any] = getattr(models.segmentation, name)
        return _Only(make(weights=None, weights_backbone=None)), (1, 3, 224, 224)
    if name in VIDEO:
        frames = 16 if name == "s3d" else 8
        extent = 224 if name == "s3d" else 112
        return getattr(models.video, name)(weights=None), (1, 3, frames, extent, extent)
    if name in DETECTION:
        detector = getattr(models.detection, name)(weights=None, weights_backbone=None)
        extent = 300 if name == "ssd300_vgg16" else 320
        wrapper = _Proposals if name.startswith("fasterrcnn") else _Heads
        return wrapper(detector), (1, 3, extent, extent)
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    extent = {"inception_v3": 299, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256}.get(
        name, 224
    )
    return getattr(models, name)(weights=None, **extra), (1, 3, extent, extent)
