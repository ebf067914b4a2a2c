"""Random weights that keep the size of the data, so that errors mean something at the end of a hundred layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn  # pyright: ignore[reportMissingImports]

__all__ = ["randomise"]


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Give every convolution, dense layer and batch normalisation of a torch module random weights, in place.

    Normalisations get statistics that are not 0 and 1: folding them is exercised.
    """
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    generator = torch.Generator().manual_seed(seed)
    transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
    with torch.no_grad():
        for module in model.modules():
            layer: Any = module
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | transposed | nn.Linear):
                # A sum of n products of unit data has the size of the data with weights of variance 1/n; ReLU halves it.
                fan_in = layer.weight[0].numel()
                if isinstance(module, transposed):
                    fan_in = layer.in_channels
                layer.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                if layer.bias is not None:
                    layer.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                mean, variance = layer.running_mean, layer.running_var
                if mean is not None and variance is not None:
                    mean.normal_(0, 0.1, generator=generator)
                    variance.uniform_(0.5, 1.5, generator=generator)
