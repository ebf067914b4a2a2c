"""Networks as packages for one application build them: detection, segmentation, volumes, depth, speech, diffusion; with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks.families import diffusers_models, transformers_models
from benchmarks.families.torchvision_import import import_torchvision

__all__ = ["build"]

_Built: TypeAlias = tuple[nn.Module, tuple[int, ...]]


def _ultralytics(name: str) -> _Built:
    from ultralytics.nn import tasks  # pyright: ignore[reportMissingImports]

    kinds = {
        "seg": "SegmentationModel",
        "pose": "PoseModel",
        "obb": "OBBModel",
        "cls": "ClassificationModel",
    }
    kind = (
        "RTDETRDetectionModel"
        if name.startswith("rtdetr")
        else kinds.get(name.partition("-")[2], "DetectionModel")
    )
    model: Any = getattr(tasks, kind)(f"{name}.yaml", verbose=False).eval().fuse(verbose=False)
    for layer in model.modules():
        if hasattr(
            layer, "export"
        ):  # the head, which decodes boxes as the package's own exporter has it
            layer.export, layer.format = True, "onnx"
    return model, (1, 3, 416 if "tiny" in name else 320, 416 if "tiny" in name else 320)


def _monai(name: str) -> _Built:
    from monai.networks import nets  # pyright: ignore[reportMissingImports]

    make: dict[str, Callable[[], _Built]] = {
        "unet3d": lambda: (nets.UNet(3, 1, 2, (16, 32, 64, 128), (2, 2, 2), num_res_units=2), (1, 1, 64, 64, 64)),
        "segresnet3d": lambda: (nets.SegResNet(3, init_filters=8, in_channels=1, out_channels=2), (1, 1, 48, 48, 48)),
        "dynunet": lambda: (nets.DynUNet(2, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, norm_name="instance"), (1, 1, 128, 128)),
        "swin_unetr": lambda: (nets.SwinUNETR(in_channels=1, out_channels=2, feature_size=12, spatial_dims=2), (1, 1, 128, 128)),
        "unetr": lambda: (nets.UNETR(1, 2, (64, 64, 64), feature_size=8, hidden_size=96, mlp_dim=192, num_heads=4), (1, 1, 64, 64, 64)),
        "vnet": lambda: (nets.VNet(3, 1, 2), (1, 1, 32, 32, 32)),
        "highresnet": lambda: (nets.HighResNet(3, 1, 2), (1, 1, 32, 32, 32)),
        "attention_unet": lambda: (nets.AttentionUnet(2, 1, 2, (16, 32, 64), (2, 2)), (1, 1, 128, 128)),
    }  # fmt: skip
    return make[name]()


def _segmentation(name: str) -> _Built:
    import_torchvision()
    import segmentation_models_pytorch as models  # pyright: ignore[reportMissingImports]

    encoder = "mobilenet_v2" if name == "UnetPlusPlus" else "resnet18"
    return getattr(models, name)(encoder_name=encoder, encoder_weights=None), (1, 3, 256, 256)


_SOURCES: Final[dict[str, Callable[[str], _Built]]] = {
    "ultralytics": _ultralytics,
    "monai": _monai,
    "segmentation_models_pytorch": _segmentation,
    "transformers": transformers_models.build,
    "diffusers": diffusers_models.build,
}


def build(name: str) -> _Built:
    """Return the network called "package/name" and its input's shape."""
    package, _, short = name.partition("/")
    return _SOURCES[package](short)
