"""Depthwise layers of bytes on a device, data and result in blocks of 16 channels: 16 bytes a load and a store.

THE ALGORITHM   acc[n, k, p, q, e] = sum over r, s of x[n, k, p stride + r dilation - pad, ..., e] w[k, r, s, e] in int32, with the
                layer's `pad` around x; y = requantised(acc + bias), see `requantized`
                data and weights are seen as int32 of four channels each, whose bytes are taken apart in registers
WHEN            group = C = K, 1-D to 3-D, any stride, dilation and padding
COST            the bytes of data and result; a product takes three instructions, two for the byte and one for the multiply-add
ACCURACY        exact sums; one multiplication in float32 and one rounding, as `schedules.quantized`
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
from tvm import te

from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands
from convc.schedules.cuda.depthwise_blocked import window_of, window_rows
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles, point_cycles
from convc.schedules.layout import Halo, Layout, View
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.quads import QUAD
from convc.schedules.quantized_algorithm import QuantizedAlgorithm
from convc.schedules.rank import raised, raised_weight
from convc.schedules.requantized import Bias, finished
from convc.target import Target

__all__ = ["ALGORITHM", "DepthwiseBytes"]

# Channels of a block, as many as 16 bytes hold.
_BLOCK: Final = 16
_WORDS: Final = _BLOCK // QUAD

# What a thread may hold, as in `depthwise_blocked`.
_REGISTERS: Final = 176

# A warp's load of 16 bytes each takes as long as so many of 4; a product's instructions. Not measured.
_WIDE: Final = 4
_PRODUCT: Final = 3.0
_ROW_BY_ROW: Final = 4

# Rows of results, and whether all taps are held. With two rows and one row of taps ptxas kept an array in local memory.
_TILES: Final = ((1, 1), (2, 1), (1, 0))


class DepthwiseBytes(QuantizedAlgorithm):
    """See the module's text."""

    name = "depthwise_bytes"

    def supports(self, spec: ConvSpec, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        if spec.transposed:
            return Unsupported("convolution must not be transposed")
        if not (spec.group == spec.in_channels == spec.out_channels):
            return Unsupported(
                f"group must equal C and K; got group = {spec.group}, C = {spec.in_channels}, K = {spec.out_channels}"
            )
        if self._registers(spec, 1, held=0) > _REGISTERS:
            return Unsupported(f"a row of taps must fit a thread's registers; got {spec.kernel[-1]} taps")  # fmt: skip
        return indexed(spec, _BLOCK)

    def knobs(self, spec: ConvSpec, target: Target) -> Knobs:
        """Return the setting that the model finds fastest."""
        return min(self.space(spec, target), key=lambda k: self.cycles(spec, target, k))

    def space(self, spec: ConvSpec, target: Target) -> Iterator[Knobs]:
        """Yield rows of a thread, all taps held in its registers or one row of them, and threads of a block."""
        for rows, held in _TILES:
            fits = self._registers(spec, rows, held=held) <= _REGISTERS
            if rows <= raised(spec).output[-2] and fits:
                for threads in (64, 128, 256):
                    yield {"rows": rows, "held": held, "threads": threads}

    def cycles(self, spec: ConvSpec, target: Target, knobs: Knobs) -> float:
        """Return clocks of loads, products or memory, whichever take longest, and half of the next."""
        spec, gpu = raised(spec), target.gpu
        rows, taps = knobs["rows"], math.prod(spec.kernel)
        points = spec.data[0] * -(-spec.out_channels // _BLOCK) * math.prod(spec.output[2:])
        threads = points / spec.output[-2] * -(-spec.output[-2] // rows)
        # Rows of data are shared by the results of a column only where all of them are held.
        window = window_rows(spec, rows) * taps / spec.kernel[-2] if knobs["held"] else rows * taps
        wide = _WIDE * (1 if knobs["held"] else _ROW_BY_ROW)
        loads = point_cycles(gpu, threads, threads * (window + taps) * wide)
        products = points * _BLOCK * taps * _PRODUCT / (gpu.fp32_lanes * gpu.sms)
        nbytes = replace(spec, dtype="uint8").nbytes
        *_, second, most = sorted((loads, products, memory_cycles(gpu, nbytes)))
        return most + second / 2 + LAUNCH_SECONDS * gpu.clock_hz

    @staticmethod
    def _registers(spec: ConvSpec, rows: int, *, held: int) -> int:
        """Return registers of a thread: four elements in each of window and filter, a sum in each, the rest."""
        spec = raised(spec)
        across = (spec.kernel[-1] - 1) * spec.dilations[-1] + 1
        if held:
            planes = math.prod(
                (r - 1) * d + 1 for r, d in zip(spec.kernel[:-2], spec.dilations[:-2], strict=True)
            )
            window, taps = window_rows(spec, rows) * across * planes, math.prod(spec.kernel)
        else:
            window, taps = rows * across, spec.kernel[-1]
        return _WORDS * (window + taps) + _BLOCK * rows + 32

    def operands(self, spec: ConvSpec, target: Target, knobs: Knobs) -> Operands:
        """Return blocks of 16 bytes, without a halo."""
        return Operands(Layout(_BLOCK), Halo(), Layout(_BLOCK))

    def pack(self, weight: np.ndarray, spec: ConvSpec, knobs: Knobs) -> np.ndarray:
        """Return the filters as [block][taps...][4] int32 of four channels each, zeros beyond the last channel."""
        whole = raised_weight(np.pad(weight, [(0, -len(weight) % _BLOCK), *((0, 0),) * (weight.ndim - 1)]))  # fmt: skip
        blocks = np.moveaxis(whole.reshape(-1, _BLOCK, *whole.shape[2:]), 1, -1)
        return np.ascontiguousarray(blocks).view(np.int32)

    def compute(
        self, spec: ConvSpec, attributes: QuantizedConvAttributes, target: Target, knobs: Knobs
    ) -> list[te.Tensor]:
        """Return data, weight, bias, factor, zero point or what is added, result; blocks `window`, `acc`."""
        spec = raised(spec)
        n, c, *extents = spec.data
        blocks = -(-c // _BLOCK)
        x = te.placeholder((n, blocks, *extents, _WORDS), "int32", name="data")
        w = te.placeholder((blocks, *spec.kernel, _WORDS), "int32", name="weight")
        result = (n, blocks, *spec.output[2:], _BLOCK)
        pad = int(np.full(QUAD, attributes.pad, np.uint8).view(np.int32)[0])
        window = window_of(x, spec, pad)
        taps = [te.reduce_axis((0, r), f"r{i}") for i, r in enumerate(spec.kernel)]

        def term(n: Any, k: Any, *at: Any) -> Any:
            *points, lane = at
            steps = zip(points, spec.strides, taps, spec.dilations, strict=True)
            places = [p * stride + r * dilation for p, stride, r, dilation in steps]
            bits = lane % QUAD * 8
            left = (window(n, k, *places, lane // QUAD) >> bits) & 255
            # The byte at the top, and back with its sign.
            right = (w(k, *taps, lane // QUAD) << (24 - bits)) >> 24
            return te.sum(left * right, axis=taps)

        acc = te.compute(result, term, name="acc")
        bias = Bias(attributes, blocks, _BLOCK)

        def whole(n: Any, k: Any, *at: Any) -> Any:
            return acc(n, k, *at) + bias(k, at[-1])

        return finished(attributes, (x, w, bias), result, whole, spec.out_channels)

    def as_read(self, view: View, knobs: Knobs) -> View:
        """Return the data as int32 of four channels each."""
        return view.words(4)

    def reason(self, knobs: Knobs) -> str:
        """Return how the kernel multiplies."""
        return "a thread adds up 16 channels"


ALGORITHM = DepthwiseBytes()
