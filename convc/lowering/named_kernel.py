"""A kernel's name: the same for the same code, another one for another."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from convc.lowering.program import Kernel
from convc.lowering.views import with_views
from convc.schedules.layout import View

if TYPE_CHECKING:
    from tvm import tirx

__all__ = ["named_kernel"]


def named_kernel(
    stem: str, parts: Sequence[object], views: Sequence[View], make: Callable[[], tirx.PrimFunc]
) -> Kernel:
    """Return the kernel whose code depends on `parts` and the views (but for where they begin)."""
    shapes = [(v.shape, v.strides, v.dtype, v.alignment) for v in views]
    key = f"{stem}|{'|'.join(map(str, parts))}|{shapes}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:10]
    symbol = f"{re.sub(r'[^A-Za-z0-9]+', '_', stem).strip('_')}_{digest}"

    def made() -> tirx.PrimFunc:
        return with_views(make(), views).with_attr("global_symbol", symbol)

    return Kernel(key, symbol, made)
