"""The zoo's architectures in torch, layer for layer those of torchvision; U-Net after Ronneberger et al. with padding.

Written out here because torchvision adds nothing but its compiled operators, which must match the build of torch.

SOURCE  He et al., arXiv:1512.03385 (stride in the 3x3, as torchvision); Simonyan & Zisserman, arXiv:1409.1556, configuration D;
        Sandler et al., arXiv:1801.04381, table 2; Ronneberger et al., arXiv:1505.04597
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn.utils.fusion import fuse_conv_bn_eval  # pyright: ignore[reportMissingImports]

__all__ = ["ARCHITECTURES", "folded"]


def _conv_norm(
    c: int,
    k: int,
    kernel: int,
    stride: int = 1,
    group: int = 1,
    activation: nn.Module | None = None,
) -> nn.Sequential:
    """Return a convolution that keeps the extent (but for the stride), a batch normalisation and an activation."""
    conv = nn.Conv2d(c, k, kernel, stride, (kernel - 1) // 2, groups=group, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(k), *([activation] if activation else []))


class _Residual(nn.Module):
    """ReLU(x + branch(x)), x projected where the shape changes."""

    def __init__(self, c: int, k: int, stride: int, branch: nn.Sequential) -> None:
        super().__init__()
        self.branch = branch
        same = c == k and stride == 1
        self.shortcut = nn.Identity() if same else _conv_norm(c, k, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


def _basic(c: int, width: int, stride: int) -> nn.Module:
    branch = nn.Sequential(
        _conv_norm(c, width, 3, stride, activation=nn.ReLU()), _conv_norm(width, width, 3)
    )
    return _Residual(c, width, stride, branch)


def _bottleneck(c: int, width: int, stride: int) -> nn.Module:
    branch = nn.Sequential(
        _conv_norm(c, width, 1, activation=nn.ReLU()),
        _conv_norm(width, width, 3, stride, activation=nn.ReLU()),
        _conv_norm(width, 4 * width, 1),
    )
    return _Residual(c, 4 * width, stride, branch)


def _resnet(
    block: Callable[[int, int, int], nn.Module], expansion: int, depths: tuple[int, ...]
) -> nn.Module:
    layers: list[nn.Module] = [_conv_norm(3, 64, 7, 2, activation=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    c = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for index in range(depth):
            layers.append(block(c, width, 2 if stage and not index else 1))
            c = width * expansion
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 1000))


def _vgg16() -> nn.Module:
    layers: list[nn.Module] = []
    c = 3
    for k, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(c, k, 3, padding=1), nn.ReLU()]
            c = k
        layers.append(nn.MaxPool2d(2))
    head = (nn.Flatten(), nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000))  # fmt: skip
    return nn.Sequential(*layers, *head)


class _InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation; x added where the shape stays."""

    def __init__(self, c: int, k: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = c * expansion
        expand = [_conv_norm(c, wide, 1, activation=nn.ReLU6())] if expansion > 1 else []
        depthwise = _conv_norm(wide, wide, 3, stride, wide, nn.ReLU6())
        self.branch = nn.Sequential(*expand, depthwise, _conv_norm(wide, k, 1))
        self.adds = c == k and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x) if self.adds else self.branch(x)


def _mobilenet_v2() -> nn.Module:
    layers: list[nn.Module] = [_conv_norm(3, 32, 3, 2, activation=nn.ReLU6())]
    c = 32
    # t, c, n, s: the paper's table 2.
    for t, k, n, s in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):  # fmt: skip
        for index in range(n):
            layers.append(_InvertedResidual(c, k, s if index == 0 else 1, t))
            c = k
    layers.append(_conv_norm(c, 1280, 1, activation=nn.ReLU6()))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))


class _UNet(nn.Module):
    """Four levels down, four up, skip connections concatenated; 32 channels at full resolution."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()

        def pair(c: int, k: int) -> nn.Module:
            return nn.Sequential(
                _conv_norm(c, k, 3, activation=nn.ReLU()), _conv_norm(k, k, 3, activation=nn.ReLU())
            )

        widths = [width << level for level in range(5)]
        self.down = nn.ModuleList(map(pair, (3, *widths[:3]), widths[:4]))
        self.bottom = pair(widths[3], widths[4])
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, k, 2, 2) for c, k in pairs)
        self.merge = nn.ModuleList(pair(c, k) for c, k in pairs)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for level in self.down:
            x = level(x)
            kept.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(kept), strict=True):
            x = merge(torch.cat([up(x), skip], 1))
        return self.out(x)


ARCHITECTURES: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "resnet18": lambda: _resnet(_basic, 1, (2, 2, 2, 2)),
    "resnet50": lambda: _resnet(_bottleneck, 4, (3, 4, 6, 3)),
    "vgg16": _vgg16,
    "mobilenet_v2": _mobilenet_v2,
    "unet": _UNet,
}


def folded(model: nn.Module) -> nn.Module:
    """Return a network for inference with every batch normalisation folded into the convolution before it, as who ships it would.

    Args:
        model: one of `ARCHITECTURES`; it is changed.
    """
    model.eval()
    for sequence in [m for m in model.modules() if isinstance(m, nn.Sequential)]:
        for index, (conv, norm) in reversed(list(enumerate(pairwise(sequence)))):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[index] = fuse_conv_bn_eval(conv, norm)
                del sequence[index + 1]
    return model
