"""Networks of diffusers, small: what takes noise away, at one step of it, and what codes images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks.families.first_result import First
from benchmarks.families.torchvision_import import import_torchvision

__all__ = ["build"]

_Built: TypeAlias = tuple[nn.Module, tuple[int, ...]]

_WIDTHS: Final = (32, 64, 64)
# The step that the noise is at; sinusoids of it are the network's second input, a constant here.
_STEP: Final = 10


def _package() -> Any:
    import_torchvision()
    import diffusers  # pyright: ignore[reportMissingImports]

    return diffusers


def _coder(widths: tuple[int, ...], **options: Any) -> Any:
    down, up = ("DownEncoderBlock2D",) * len(widths), ("UpDecoderBlock2D",) * len(widths)
    return _package().AutoencoderKL(block_out_channels=widths, down_block_types=down, up_block_types=up, latent_channels=4, **options)  # fmt: skip


def _vae_decoder() -> _Built:
    model = _coder((128, 128, 128, 128), norm_num_groups=32, layers_per_block=2)
    return First(model, model.decode, return_dict=False), (1, 4, 32, 32)


def _vae_encoder() -> _Built:
    model = _coder(_WIDTHS)
    return First(model, model.encoder), (1, 3, 128, 128)


def _tiny_coder() -> _Built:
    model = _package().AutoencoderTiny()
    return First(model, model, return_dict=False), (1, 3, 64, 64)


def _linear_attention_coder() -> _Built:
    kinds, scales = ("ResBlock", "ResBlock", "EfficientViTBlock"), ((), (), (5,))
    model = _package().AutoencoderDC(
        latent_channels=8, attention_head_dim=16, encoder_block_types=kinds, decoder_block_types=kinds,
        encoder_block_out_channels=(32, 64, 128), decoder_block_out_channels=(32, 64, 128), encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1), encoder_qkv_multiscales=scales, decoder_qkv_multiscales=scales,
    )  # fmt: skip
    return First(model, model, return_dict=False), (1, 3, 64, 64)


def _unet2d() -> _Built:
    model = _package().UNet2DModel(
        sample_size=32, block_out_channels=_WIDTHS,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return First(model, model, timestep=_STEP, return_dict=False), (1, 3, 32, 32)


def _unet_condition() -> _Built:
    text = torch.randn(1, 16, 64)
    model = _package().UNet2DConditionModel(
        sample_size=32, block_out_channels=_WIDTHS, cross_attention_dim=64, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return First(model, model, timestep=_STEP, encoder_hidden_states=text, return_dict=False), (1, 4, 32, 32)  # fmt: skip


def _dit() -> _Built:
    model = _package().DiTTransformer2DModel(num_attention_heads=4, attention_head_dim=24, num_layers=2, sample_size=16)  # fmt: skip
    step, label = torch.tensor([_STEP]), torch.tensor([3])
    return First(model, model, timestep=step, class_labels=label, return_dict=False), (1, 4, 16, 16)


_MAKE: Final[dict[str, Callable[[], _Built]]] = {
    "vae_decoder": _vae_decoder,
    "vae_encoder": _vae_encoder,
    "autoencoder_tiny": _tiny_coder,
    "autoencoder_dc": _linear_attention_coder,
    "unet2d": _unet2d,
    "unet_condition": _unet_condition,
    "dit": _dit,
}


def build(name: str) -> _Built:
    """Return a network with random weights, and its input's shape."""
    return _MAKE[name]()
