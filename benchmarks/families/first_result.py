"""First: a network, or one of its methods, that returns its first result alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

__all__ = ["First"]


class First(nn.Module):
    """A network called in one way, whose results are a tuple of which the first counts."""

    def __init__(self, network: nn.Module, call: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.network = network
        self._call, self._options = call, options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self._call(x, **self._options)
        return found[0] if isinstance(found, tuple) else found
