"""Networks of transformers: images, speech and video, most of them smaller than those that are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks.families.first_result import First
from benchmarks.families.torchvision_import import import_torchvision

__all__ = ["build"]

_Built: TypeAlias = tuple[nn.Module, tuple[int, ...]]


class _Network(NamedTuple):
    """A class, the class of its settings, the input's shape, and the settings that are not the package's own."""

    config: str
    kind: str
    shape: tuple[int, ...]
    settings: Mapping[str, Any] = MappingProxyType({})


_NARROW: Final = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}  # fmt: skip
_NETWORKS: Final = {
    "segformer": _Network("SegformerConfig", "SegformerForSemanticSegmentation", (1, 3, 256, 256)),
    "poolformer": _Network("PoolFormerConfig", "PoolFormerForImageClassification", (1, 3, 224, 224)),
    "levit": _Network("LevitConfig", "LevitForImageClassification", (1, 3, 224, 224)),
    "convnextv2": _Network("ConvNextV2Config", "ConvNextV2ForImageClassification", (1, 3, 224, 224), {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]}),
    "clip_vision": _Network("CLIPVisionConfig", "CLIPVisionModel", (1, 3, 224, 224), {"num_hidden_layers": 4}),
    "dpt": _Network("DPTConfig", "DPTForDepthEstimation", (1, 3, 384, 384), {"hidden_size": 192, "intermediate_size": 384, "num_attention_heads": 3, "neck_hidden_sizes": [48, 96, 192, 384], "fusion_hidden_size": 64}),
    "swin2sr": _Network("Swin2SRConfig", "Swin2SRForImageSuperResolution", (1, 3, 64, 64), {"depths": [2, 2], "num_heads": [4, 4], "embed_dim": 60}),
    "wav2vec2": _Network("Wav2Vec2Config", "Wav2Vec2Model", (1, 16000), _NARROW),
    "hifigan": _Network("SpeechT5HifiGanConfig", "SpeechT5HifiGan", (1, 60, 80)),
    "mobilenet_v1": _Network("MobileNetV1Config", "MobileNetV1ForImageClassification", (1, 3, 224, 224)),
    "glpn": _Network("GLPNConfig", "GLPNForDepthEstimation", (1, 3, 256, 256)),
    "sam_encoder": _Network("SamVisionConfig", "SamVisionModel", (1, 3, 256, 256), {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_dim": 192, "image_size": 256, "global_attn_indexes": [1], "window_size": 7, "output_channels": 64}),
    "yolos": _Network("YolosConfig", "YolosForObjectDetection", (1, 3, 224, 224), {**_NARROW, "image_size": [224, 224]}),
    "dinov3": _Network("DINOv3ViTConfig", "DINOv3ViTModel", (1, 3, 224, 224), _NARROW),
    "videomae": _Network("VideoMAEConfig", "VideoMAEForVideoClassification", (1, 16, 3, 112, 112), {**_NARROW, "image_size": 112}),
    "ast": _Network("ASTConfig", "ASTForAudioClassification", (1, 1024, 128), _NARROW),
    "wavlm": _Network("WavLMConfig", "WavLMModel", (1, 16000), _NARROW),
    "clap_audio": _Network("ClapAudioConfig", "ClapAudioModel", (1, 1, 1001, 64)),
    "textnet": _Network("TextNetConfig", "TextNetForImageClassification", (1, 3, 224, 224)),
}  # fmt: skip


def _package() -> Any:
    import_torchvision()
    import transformers  # pyright: ignore[reportMissingImports]

    return transformers


def _made(config: str, kind: Callable[[Any], nn.Module] | str, **settings: Any) -> Any:
    package = _package()
    chosen = getattr(package, config)(**settings)
    # Attention in single operators, as files of old opsets have it.
    chosen._attn_implementation = "eager"
    return (getattr(package, kind) if isinstance(kind, str) else kind)(chosen)


def _whisper() -> _Built:
    from transformers.models.whisper.modeling_whisper import (  # pyright: ignore[reportMissingImports]
        WhisperEncoder,
    )

    model = _made("WhisperConfig", WhisperEncoder, d_model=96, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=192, max_source_positions=400)  # fmt: skip
    return First(model, model, return_dict=False), (1, 80, 800)


class _Codec(nn.Module):
    """A codec of sounds without the code book between its halves."""

    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = codec.encoder, codec.decoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


def _encodec() -> _Built:
    codec = _made("EncodecConfig", "EncodecModel", num_filters=16, hidden_size=64, codebook_dim=64)
    return _Codec(codec), (1, 1, 3200)


def _dac() -> _Built:
    codec = _made("DacConfig", "DacModel", encoder_hidden_size=16, decoder_hidden_size=256)
    codec.decoder.tanh = nn.Identity()  # of random weights' results it makes 1 and -1 alone
    return _Codec(codec), (1, 1, 4096)


def _univnet() -> _Built:
    model = _made("UnivNetConfig", "UnivNetModel", model_hidden_channels=16)
    noise = torch.randn(1, 60, 64)
    return First(model, model, noise_sequence=noise, return_dict=False), (1, 60, 100)


def _resnet(*stages: str) -> Any:
    return _package().ResNetConfig(depths=[1] * 4, layer_type="basic", hidden_sizes=[32, 64, 128, 256], embedding_size=32, out_features=list(stages))  # fmt: skip


def _detector(config: str, kind: str, backbone: Any, **settings: Any) -> _Built:
    model = _made(
        config, kind, backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        encoder_layers=2, decoder_layers=2, d_model=128, encoder_ffn_dim=256, decoder_ffn_dim=256, **settings,
    )  # fmt: skip
    return First(model, model, return_dict=False), (1, 3, 256, 256)


def _rt_detr() -> _Built:
    backbone = _package().RTDetrResNetConfig(depths=[2] * 4, layer_type="basic", hidden_sizes=[64, 128, 256, 512], out_features=["stage2", "stage3", "stage4"])  # fmt: skip
    model = _made(
        "RTDetrConfig", "RTDetrForObjectDetection", backbone_config=backbone, encoder_in_channels=[128, 256, 512],
        decoder_layers=2, num_queries=100, anchor_image_size=[320, 320],
    )  # fmt: skip
    return First(model, model, return_dict=False), (1, 3, 320, 320)


def _vitpose() -> _Built:
    backbone = _package().VitPoseBackboneConfig(hidden_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=[256, 192], out_indices=[3])  # fmt: skip
    model = _made("VitPoseConfig", "VitPoseForPoseEstimation", backbone_config=backbone)
    return First(model, model, return_dict=False), (1, 3, 256, 192)


def _depth_anything() -> _Built:
    backbone = _package().Dinov2Config(
        image_size=224, patch_size=14, hidden_size=96, num_hidden_layers=4, num_attention_heads=4,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    model = _made(
        "DepthAnythingConfig", "DepthAnythingForDepthEstimation", backbone_config=backbone, neck_hidden_sizes=[24, 48, 96, 96],
        fusion_hidden_size=32, reassemble_hidden_size=96, patch_size=14, head_hidden_size=16,
    )  # fmt: skip
    return First(model, model, return_dict=False), (1, 3, 224, 224)


_MAKE: Final[dict[str, Callable[[], _Built]]] = {
    "whisper": _whisper,
    "encodec": _encodec,
    "dac": _dac,
    "univnet": _univnet,
    "detr": lambda: _detector("DetrConfig", "DetrForObjectDetection", _resnet("stage4")),
    "deformable_detr": lambda: _detector("DeformableDetrConfig", "DeformableDetrForObjectDetection", _resnet("stage2", "stage3", "stage4")),
    "rt_detr": _rt_detr,
    "vitpose": _vitpose,
    "depth_anything": _depth_anything,
}  # fmt: skip


def build(name: str) -> _Built:
    """Return a network with random weights, and its input's shape."""
    if name in _MAKE:
        return _MAKE[name]()
    network = _NETWORKS[name]
    model = _made(network.config, network.kind, **network.settings)
    tupled = {} if name == "hifigan" else {"return_dict": False}
    return First(model, model, **tupled), network.shape
