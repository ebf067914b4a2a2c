"""timm's networks and what each is fed."""

from __future__ import annotations

from typing import Any

from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks.families.torchvision_import import import_torchvision

__all__ = ["build"]


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a network, in the variant that timm keeps for exporters, and its input's shape."""
    import_torchvision()
    import timm  # pyright: ignore[reportMissingImports]

    model: Any = timm.create_model(name, pretrained=False, exportable=True)
    return model, (1, *model.pretrained_cfg["input_size"])
