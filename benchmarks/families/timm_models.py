"""timm's networks and what each is fed."""

from __future__ import annotations

from typing import Any, Final

from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks.families.torchvision_import import import_torchvision

__all__ = ["build"]

# Of networks of many equal blocks a few, which are checked as well and in a tenth of the time.
_FEWER_BLOCKS: Final[dict[str, dict[str, Any]]] = {
    "deepseek_vit_412m": {"depth": 2}, "gemma4_vit_167m": {"depth": 2}, "qwen3_vit_88m": {"depth": 2}, "beit_base_patch16_224": {"depth": 3},
    "naflexvit_base_patch16_gap": {"depth": 3}, "samvit_base_patch16_224": {"depth": 3}, "sequencer2d_s": {"layers": (1, 1, 2, 1)},
}  # fmt: skip
# Smaller inputs, of networks that are made for large ones and take any.
_EXTENTS: Final = {
    "nasnetalarge": 128, "pnasnet5large": 128, "mobilenetv5_base": 128, "deepseek_vit_412m": 224, "gemma4_vit_167m": 224,
    "qwen3_vit_88m": 224, "naflexvit_base_patch16_gap": 224,
}  # fmt: skip


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a network, in the variant that timm keeps for exporters, and its input's shape."""
    import_torchvision()
    import timm  # pyright: ignore[reportMissingImports]

    fewer = _FEWER_BLOCKS.get(name, {})
    model: Any = timm.create_model(name, pretrained=False, exportable=True, **fewer)
    channels, height, width = model.pretrained_cfg["input_size"]
    extent = _EXTENTS.get(name)
    return model, (1, channels, extent or height, extent or width)
