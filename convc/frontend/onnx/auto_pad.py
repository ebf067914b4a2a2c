"""The window attributes that Conv, ConvTranspose and the pools share, resolved to plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from convc.errors import InvalidModelError
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.types import Shape

__all__ = ["AUTO_PADS", "Window", "read_window", "same_pads", "split_padding"]

AUTO_PADS: Final = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True, slots=True)
class Window:
    """Kernel, strides, dilations and pads; `auto_pad` says whether the pads are still to be computed."""

    kernel: Shape
    strides: Shape
    dilations: Shape
    pads: Shape
    auto_pad: str

    @property
    def is_same(self) -> bool:
        """SAME_UPPER or SAME_LOWER: the pads follow from the extents."""
        return self.auto_pad.startswith("SAME")

    @property
    def covered(self) -> Shape:
        """Extent of the dilated kernel."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def read_window(node: OperatorNode, kernel: Shape | None = None) -> Window:
    """Read kernel_shape (required if `kernel` is None, else it must be `kernel`), strides, dilations, pads and auto_pad."""
    a = node.attributes
    given = a.integers("kernel_shape", kernel)
    if kernel is not None and given != kernel:
        raise InvalidModelError(
            f"{node.op_type} kernel_shape must be that of the weight, {list(kernel)}; got {list(given)}."
        )
    n = len(given)
    if node.type().rank != n + 2:
        raise InvalidModelError(
            f"{node.op_type} data must have rank {n + 2} for kernel_shape {list(given)}; got {node.type()}."
        )
    auto_pad = a.text("auto_pad", "NOTSET", AUTO_PADS)
    pads = a.integers("pads", (0,) * (2 * n))
    if auto_pad != "NOTSET" and any(pads):
        raise Unsupported(f"attribute pads={list(pads)} together with auto_pad={auto_pad}")
    window = Window(
        given, a.integers("strides", (1,) * n), a.integers("dilations", (1,) * n), pads, auto_pad
    )
    wanted = {"strides": n, "dilations": n, "pads": 2 * n}
    for name, length in wanted.items():
        value = getattr(window, name)
        if len(value) != length:
            raise InvalidModelError(
                f"{node.op_type} {name} must have {length} values for kernel_shape {list(given)}; got {list(value)}."
            )
    if min((*window.kernel, *window.strides, *window.dilations), default=1) < 1:
        raise InvalidModelError(
            f"{node.op_type} kernel_shape, strides and dilations must be positive; "
            f"got {list(given)}, {list(window.strides)}, {list(window.dilations)}."
        )
    return window


def split_padding(totals: Shape, *, more_at_end: bool) -> Shape:
    """Return pads (begins, then ends) that add up to `totals`, an odd point at the end or the beginning.

    Example:
        >>> split_padding((3, 2), more_at_end=True)
        (1, 1, 2, 1)
    """
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (*small, *large) if more_at_end else (*large, *small)


def same_pads(extents: Shape, window: Window) -> Shape:
    """Return the pads for which a window gives ceil(extent / stride) results.

    Source:
        ONNX Conv-11 and MaxPool-12, "auto_pad".

    Example:
        >>> same_pads((5,), Window((2,), (2,), (1,), (0, 0), "SAME_UPPER"))
        (0, 1)
    """
    totals = (
        max(0, (-(-extent // stride) - 1) * stride + covered - extent)
        for extent, stride, covered in zip(extents, window.strides, window.covered, strict=True)
    )
    return split_padding(tuple(totals), more_at_end=window.auto_pad == "SAME_UPPER")
