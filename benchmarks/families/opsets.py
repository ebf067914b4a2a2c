"""Which network is exported at which opset: all of them in turn, so that a table of networks is one of opsets, too."""

from __future__ import annotations

from typing import Final

__all__ = ["OPSETS", "opset_of"]

OPSETS: Final = tuple(range(11, 24))


# For packages that do not write older ones: attention is in torch's exporters from 14 on. One of each exporter, in turn.
_RECENT: Final = (17, 18)
# torch traces `tile` from 13 on, and no `col2im`, RMSNorm or padded weights of run time; its other exporter loses limits of
# gemma4's `Clip`s.
_ALONE: Final = {
    "transformers/univnet": 18,
    "timm/hieradet_small": 13,
    "timm/volo_d1_224": 18,
    "timm/deepseek_vit_412m": 18,
    "timm/gemma4_vit_167m": 17,
}


def opset_of(name: str, place: int) -> int:
    """Return the opset of a network, which stands at a place of its package's list.

    Example:
        >>> opset_of("timm/resnet18", 0), opset_of("timm/resnet18", 14), opset_of("monai/vnet", 1)
        (11, 12, 18)
    """
    opsets = OPSETS if name.startswith(("torchvision/", "timm/")) else _RECENT
    return _ALONE.get(name, opsets[place % len(opsets)])
