"""ResNet-18 as it is trained: batch statistics in every normalisation, cross entropy, twice: in convc's DSL and in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from convc import dsl as cc
from convc.ir import Graph

__all__ = ["CLASSES", "Training", "initial", "loss_of_torch", "resnet18"]

CLASSES: Final = 1000
# (channels, stride of the first block) of the four stages, two blocks each.
_STAGES: Final = ((64, 1), (128, 2), (256, 2), (512, 2))
_EPSILON: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Training:
    """A graph of one step.

    Attributes:
        graph: outputs `loss` and, for every parameter, `d NAME`.
        parameters: their shapes, in order.
    """

    graph: Graph
    parameters: Mapping[str, tuple[int, ...]]


class _Layers:
    """ResNet's layers; parameters are made when first asked for."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.parameters: dict[str, cc.Tensor] = {}

    def parameter(self, name: str, *shape: int) -> cc.Tensor:
        return self.parameters.setdefault(name, cc.input(name, shape, self.dtype))

    def conv_norm(
        self, x: cc.Tensor, channels: int, kernel: int, stride: int, name: str
    ) -> cc.Tensor:
        weight = self.parameter(f"{name}.weight", channels, x.shape[1], kernel, kernel)
        h = cc.conv2d(x, weight, strides=stride, pads=kernel // 2)
        scale, shift = (self.parameter(f"{name}.{p}", channels) for p in ("scale", "shift"))
        y, _, _ = cc.batch_norm_training(h, scale, shift, epsilon=_EPSILON)
        return y

    def block(self, x: cc.Tensor, channels: int, stride: int, name: str) -> cc.Tensor:
        h = cc.relu(self.conv_norm(x, channels, 3, stride, f"{name}.a"))
        h = self.conv_norm(h, channels, 3, 1, f"{name}.b")
        if stride > 1 or x.shape[1] != channels:
            x = self.conv_norm(x, channels, 1, stride, f"{name}.skip")
        return cc.relu(h + x)


def resnet18(batch: int, size: int = 224, dtype: str = "float32") -> Training:
    """Return a training step of ResNet-18 (He et al., arXiv:1512.03385, table 1) on images of `size` x `size`."""
    layers = _Layers(dtype)
    x = cc.input("x", (batch, 3, size, size), dtype)
    target = cc.input("target", (batch, CLASSES), dtype)
    h = cc.relu(layers.conv_norm(x, 64, 7, 2, "stem"))
    h = cc.max_pool2d(h, 3, strides=2, pads=1)
    for stage, (channels, stride) in enumerate(_STAGES):
        h = layers.block(h, channels, stride, f"stage{stage}.0")
        h = layers.block(h, channels, 1, f"stage{stage}.1")
    h = cc.flatten(cc.global_average_pool(h))
    weight = layers.parameter("head.weight", CLASSES, 512)
    logits = cc.dense(h, weight, layers.parameter("head.bias", CLASSES))
    loss = -cc.mean(cc.sum(cc.log_softmax(logits) * target, 1))
    gradients = cc.grad(loss, list(layers.parameters.values()))
    outputs = {"loss": loss}
    outputs |= {f"d {n}": g for n, g in zip(layers.parameters, gradients, strict=True)}
    shapes = {name: p.shape for name, p in layers.parameters.items()}
    return Training(cc.graph(outputs, name="resnet18_step"), shapes)


def initial(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Return He's initial weights, scales of one and shifts of zero."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            value = np.ones(shape) if name.endswith("scale") else np.zeros(shape)
        values[name] = value.astype(np.float32)
    return values


def loss_of_torch(x: Any, target: Any, p: Mapping[str, Any]) -> Any:
    """Return the loss of the same network, of torch tensors by the same names."""
    from torch.nn import functional as F  # noqa: N812  # pyright: ignore[reportMissingImports]

    def conv_norm(x: Any, name: str, kernel: int, stride: int) -> Any:
        h = F.conv2d(x, p[f"{name}.weight"], stride=stride, padding=kernel // 2)
        scale, shift = p[f"{name}.scale"], p[f"{name}.shift"]
        return F.batch_norm(h, None, None, scale, shift, training=True, eps=_EPSILON)

    h = F.relu(conv_norm(x, "stem", 7, 2))
    h = F.max_pool2d(h, 3, stride=2, padding=1)
    for stage, (_, stride) in enumerate(_STAGES):
        for index in range(2):
            name, step = f"stage{stage}.{index}", stride if index == 0 else 1
            y = F.relu(conv_norm(h, f"{name}.a", 3, step))
            y = conv_norm(y, f"{name}.b", 3, 1)
            skip = conv_norm(h, f"{name}.skip", 1, step) if f"{name}.skip.weight" in p else h
            h = F.relu(y + skip)
    logits = F.linear(h.mean((2, 3)), p["head.weight"], p["head.bias"])
    return -(F.log_softmax(logits, 1) * target).sum(1).mean()
