"""What follows the whole sums of a layer of bytes: its scale, what is added to it, and its rounding; and its bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx

from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.schedules.rounded import rounded, rounded_bits, whole
from convc.schedules.scalar import zero_beyond

__all__ = ["Bias", "finished", "stored"]


class Bias:
    """The operand that sums begin with, or get; where the data's zero point is known at run time, that times the operand.

    Attributes:
        operand: (blocks, block), int32.
        zero: of the data; no operand where it is in the bias already.
    """

    def __init__(
        self,
        attributes: QuantizedConvAttributes,
        blocks: int,
        block: int,
        phases: Sequence[int] = (),
    ) -> None:
        """Make the operands; `phases` is how many phases each axis has that have a bias of their own."""
        self.operand = te.placeholder((*phases, blocks, block), "int32", name="bias")
        self.zero = [te.placeholder((), "int32", name="zero")] if attributes.dynamic else []

    def __call__(self, *at: Any) -> Any:
        """Return what is added to the sum at an index of a block and lane, with its phases before it."""
        value = self.operand(*at)
        return value * self.zero[0]() if self.zero else value


def finished(
    attributes: QuantizedConvAttributes,
    operands: tuple[te.Tensor, te.Tensor, Bias],
    shape: Sequence[Any],
    sums: Callable[..., Any],
    channels: int,
) -> list[te.Tensor]:
    """Return data, weight, bias, factor, zero point or what is added, result: whole sums scaled and rounded to the result's type.

    Args:
        attributes: of the layer.
        operands: data, weight and bias.
        shape: of the result, in blocks of channels.
        sums: the sum, bias and all, at an index of the result.
        channels: of the result, without padding.
    """
    a = attributes
    x, w, bias = operands
    blocks, b = int(shape[1]), int(shape[-1])
    factor = te.placeholder((blocks, b), "float32", name="factor")
    residual = [te.placeholder(shape, "uint8", name="added")] if a.added else []

    def result(n, k, *at):
        y = sums(n, k, *at).astype("float32") * factor[k, at[-1]]
        # By way of int32, or a vector of bytes is widened element by element.
        added = [r(n, k, *at).astype("int32").astype("float32") for r in residual]
        return stored(y, a, added)

    y = te.compute(shape, result, name="requantized")
    return [x, w, bias.operand, factor, *bias.zero, *residual, zero_beyond(y, channels, b)]


def stored(y: Any, attributes: QuantizedConvAttributes, added: Sequence[Any] = ()) -> Any:
    """Return a scaled sum as the layer's result: as it is, or rounded, with nothing or one value added, see `QuantizedConvAttributes`.

    Args:
        y: float32.
        attributes: of the layer.
        added: float32.
    """
    a = attributes
    if a.dtype == "float32":
        return y
    for r in added:
        scale, other, shift = (tirx.const(value, "float32") for value in a.added)
        ends = (tirx.const(float(v), "float32") for v in (a.own_least, a.own_greatest))
        y = whole(rounded_bits(y, *ends)) * scale + (r * other + shift)
    return rounded(y, tirx.const(float(a.zero), "float32"), *a.limits, a.dtype)
