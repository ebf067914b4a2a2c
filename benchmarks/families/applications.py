"""Networks as packages for one application build them: detection, segmentation, volumes, depth, speech, diffusion; with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks.families.torchvision_import import import_torchvision

__all__ = ["build"]

_Built: TypeAlias = tuple[nn.Module, tuple[int, ...]]


class _First(nn.Module):
    """A network, or one of its methods, that returns its first result alone."""

    def __init__(self, network: nn.Module, call: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.network = network
        self._call, self._options = call, options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self._call(x, **self._options)
        return found[0] if isinstance(found, tuple) else found


def _ultralytics(name: str) -> _Built:
    from ultralytics.nn.tasks import (  # pyright: ignore[reportMissingImports]
        DetectionModel,
        SegmentationModel,
    )

    kind = SegmentationModel if name.endswith("-seg") else DetectionModel
    model: Any = kind(f"{name}.yaml", verbose=False).eval().fuse(verbose=False)
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
        "attention_unet": lambda: (nets.AttentionUnet(2, 1, 2, (16, 32, 64), (2, 2)), (1, 1, 128, 128)),
    }  # fmt: skip
    return make[name]()


def _segmentation(name: str) -> _Built:
    import_torchvision()
    import segmentation_models_pytorch as models  # pyright: ignore[reportMissingImports]

    encoder = "mobilenet_v2" if name == "UnetPlusPlus" else "resnet18"
    return getattr(models, name)(encoder_name=encoder, encoder_weights=None), (1, 3, 256, 256)


_TRANSFORMERS: Final[dict[str, tuple[str, str, tuple[int, ...], dict[str, Any]]]] = {
    "segformer": ("SegformerConfig", "SegformerForSemanticSegmentation", (1, 3, 256, 256), {}),
    "poolformer": ("PoolFormerConfig", "PoolFormerForImageClassification", (1, 3, 224, 224), {}),
    "levit": ("LevitConfig", "LevitForImageClassification", (1, 3, 224, 224), {}),
    "convnextv2": ("ConvNextV2Config", "ConvNextV2ForImageClassification", (1, 3, 224, 224), {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]}),
    "clip_vision": ("CLIPVisionConfig", "CLIPVisionModel", (1, 3, 224, 224), {"num_hidden_layers": 4}),
    "dpt": ("DPTConfig", "DPTForDepthEstimation", (1, 3, 384, 384), {"hidden_size": 192, "intermediate_size": 384, "num_attention_heads": 3, "neck_hidden_sizes": [48, 96, 192, 384], "fusion_hidden_size": 64}),
    "swin2sr": ("Swin2SRConfig", "Swin2SRForImageSuperResolution", (1, 3, 64, 64), {"depths": [2, 2], "num_heads": [4, 4], "embed_dim": 60}),
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2Model", (1, 16000), {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}),
    "hifigan": ("SpeechT5HifiGanConfig", "SpeechT5HifiGan", (1, 60, 80), {}),
}  # fmt: skip


def _transformers(name: str) -> _Built:
    import_torchvision()
    import transformers  # pyright: ignore[reportMissingImports]

    config, kind, shape, options = _TRANSFORMERS[name]
    settings = getattr(transformers, config)(**options)
    settings._attn_implementation = "eager"
    model = getattr(transformers, kind)(settings)
    return _First(model, model, **({} if name == "hifigan" else {"return_dict": False})), shape


def _diffusers(name: str) -> _Built:
    import_torchvision()
    from diffusers import AutoencoderKL  # pyright: ignore[reportMissingImports]

    assert name == "vae_decoder", name
    up, down = ("UpDecoderBlock2D",) * 4, ("DownEncoderBlock2D",) * 4
    model = AutoencoderKL(
        block_out_channels=(64, 128, 128, 128), down_block_types=down, up_block_types=up,
        latent_channels=4, norm_num_groups=32, layers_per_block=2,
    )  # fmt: skip
    return _First(model, model.decode, return_dict=False), (1, 4, 32, 32)


_SOURCES: Final[dict[str, Callable[[str], _Built]]] = {
    "ultralytics": _ultralytics,
    "monai": _monai,
    "segmentation_models_pytorch": _segmentation,
    "transformers": _transformers,
    "diffusers": _diffusers,
}


def build(name: str) -> _Built:
    """Return the network called "package/name" and its input's shape."""
    package, _, short = name.partition("/")
    return _SOURCES[package](short)
