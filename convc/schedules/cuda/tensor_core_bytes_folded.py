"""The first layer of a network of bytes: `folded_taps` on plain data, then `tensor_core_bytes` on what that makes.

THE ALGORITHM   kernel 1    x' of `folded_taps`, in blocks of 16 channels, in place of the copy of x into blocks, with `pad` around x
                kernel 2    `tensor_core_bytes` on x', without pads
WHEN            as `tensor_core_bytes`, one group, fewer than 16 input channels
COST            3 channels, 7 x 7, stride 2: 14 blocks of a sum where it was 49
ACCURACY        as `tensor_core_bytes`
SOURCE          those of `folded_taps` and `vector_gemm`
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from tvm import te

from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands
from convc.schedules.cuda import rows
from convc.schedules.cuda.folded_taps import Folding, foldings
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles
from convc.schedules.cuda.tensor_core_bytes import ALGORITHM as BYTES
from convc.schedules.cuda.tensor_core_bytes import DTYPE, SUMS, finish
from convc.schedules.cuda.tensor_core_folded import KNOBS, folding_of
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.quantized_algorithm import QuantizedAlgorithm
from convc.schedules.vector_gemm import Products, lanes
from convc.target import Target

__all__ = ["ALGORITHM", "TensorCoreBytesFolded"]


class TensorCoreBytesFolded(QuantizedAlgorithm):
    """See the module's text."""

    name = "tensor_core_bytes_folded"

    def supports(self, spec: ConvSpec, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        if (refusal := BYTES.supports(spec, target)) is not None:
            return refusal
        if spec.group > 1:
            return Unsupported(f"convolution must be of one group; got group {spec.group}")
        if spec.in_channels >= lanes(DTYPE):
            return Unsupported(
                f"input channels must be fewer than a block's {lanes(DTYPE)}; got {spec.in_channels}"
            )
        found = _foldings(spec)
        if not found:
            return Unsupported(f"taps folded into channels must leave fewer blocks to a sum; got a filter of {spec.kernel}")  # fmt: skip
        return indexed(found[0].folded, lanes(DTYPE))

    def knobs(self, spec: ConvSpec, target: Target) -> Knobs:
        """Return the setting that the model finds fastest."""
        return min(self.space(spec, target), key=lambda k: self.cycles(spec, target, k))

    def space(self, spec: ConvSpec, target: Target) -> Iterator[Knobs]:
        """Yield the foldings with the legal tiles of their products."""
        for folding in _foldings(spec):
            if indexed(folding.folded, lanes(DTYPE)) is None:
                fold = dict(zip(KNOBS, reversed(folding.taps), strict=False))
                tiles = BYTES.space(folding.folded, target)
                # Few blocks of channels lie close together anyway.
                yield from ({**fold, **tile} for tile in tiles if not tile.get("cached"))

    def cycles(self, spec: ConvSpec, target: Target, knobs: Knobs) -> float:
        """Return clocks of the bytes that the first kernel reads and writes, of its launch, and of the second."""
        gpu, folding = target.gpu, _folding(spec, knobs)
        copy = memory_cycles(gpu, math.prod(spec.data) + folding.elements)
        return copy + LAUNCH_SECONDS * gpu.clock_hz + BYTES.cycles(folding.folded, target, knobs)

    def operands(self, spec: ConvSpec, target: Target, knobs: Knobs) -> Operands:
        """Return plain data, and blocks of 16 bytes for the result."""
        return Operands(PLAIN, Halo(), Layout(lanes(DTYPE)))

    def pack(self, weight: np.ndarray, spec: ConvSpec, knobs: Knobs) -> np.ndarray:
        """Return the folded filter in rows of 16 bytes."""
        folding = _folding(spec, knobs)
        return BYTES.pack(folding.weight(weight), folding.folded, knobs)

    def compute(
        self, spec: ConvSpec, attributes: QuantizedConvAttributes, target: Target, knobs: Knobs
    ) -> list[te.Tensor]:
        """Return data, weight, bias, factor, what is added, result; block `folded` and those of `vector_gemm`."""
        folding, x = _folding(spec, knobs), te.placeholder(spec.data, DTYPE, name="data")
        data = folding.data(x, attributes.pad)
        _, *others = finish(Products.of(folding.folded, knobs, rows.product, SUMS, data), attributes)  # fmt: skip
        return [x, *others]

    def reason(self, knobs: Knobs) -> str:
        """Return how the kernel multiplies."""
        return "products of bytes on tensor cores, taps as channels"


def _foldings(spec: ConvSpec) -> tuple[Folding, ...]:
    return foldings(replace(spec, dtype=DTYPE))


def _folding(spec: ConvSpec, knobs: Knobs) -> Folding:
    return folding_of(replace(spec, dtype=DTYPE), knobs)


ALGORITHM = TensorCoreBytesFolded()
