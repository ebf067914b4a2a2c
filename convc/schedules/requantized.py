"""What follows the whole sums of a layer of bytes: its bias, its scale, what is added to it, and its rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx

from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.schedules.rounded import rounded, rounded_bits, whole
from convc.schedules.scalar import zero_beyond

__all__ = ["finished", "stored"]


def finished(
    attributes: QuantizedConvAttributes,
    operands: tuple[te.Tensor, te.Tensor],
    shape: Sequence[Any],
    sums: Callable[..., Any],
    channels: int,
    phases: Sequence[int] = (),
    phase: Callable[[tuple[Any, ...]], tuple[Any, ...]] = lambda at: (),
) -> list[te.Tensor]:
    """Return data, weight, bias, factor, what is added, result: whole sums, bias added, scaled and rounded to the result's type.

    Args:
        attributes: of the layer.
        operands: data and weight.
        shape: of the result, in blocks of channels.
        sums: the sum at an index of the result.
        channels: of the result, without padding.
        phases: how many phases each axis has that have a bias of their own.
        phase: which one a place (the index without batch, block and channel) is in.
    """
    a = attributes
    blocks, b = int(shape[1]), int(shape[-1])
    bias = te.placeholder((*phases, blocks, b), "int32", name="bias")
    factor = te.placeholder((blocks, b), "float32", name="factor")
    residual = [te.placeholder(shape, "uint8", name="added")] if a.added else []

    def result(n, k, *at):
        own = bias(*phase(at[:-1]), k, at[-1])
        y = (sums(n, k, *at) + own).astype("float32") * factor[k, at[-1]]
        # By way of int32, or a vector of bytes is widened element by element.
        added = [r(n, k, *at).astype("int32").astype("float32") for r in residual]
        return stored(y, a, added)

    y = te.compute(shape, result, name="requantized")
    return [*operands, bias, factor, *residual, zero_beyond(y, channels, b)]


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
