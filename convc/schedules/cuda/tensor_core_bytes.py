"""Layers of bytes on tensor cores, data and result in blocks of 16 channels: `vector_gemm` with `rows`, sums in int32.

THE ALGORITHM   acc[z, m, k] = sum over i, e of patch[z, i, m, e] w[z, i, k, e], uint8 by int8; patch holds the layer's `pad` outside of x
                y = requantised(acc + bias), see `requantized`: the zero point's part of the sums is in the bias
WHEN            constant weights, 1-D to 3-D, any stride, dilation and padding; groups of whole blocks of 16 channels
COST            C/group R S products an output point, channels in whole blocks of 16, at twice the rate of half precision
ACCURACY        exact sums; one multiplication in float32 and one rounding, as `schedules.quantized`
SOURCE          Jacob et al., CVPR'18, section 2.4; PTX ISA, "mma.m16n8k32"
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from tvm import te, tirx

from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.spec import ConvSpec
from convc.schedules import vector_gemm
from convc.schedules.algorithm import Operands
from convc.schedules.cuda import rows
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.mma import too_old
from convc.schedules.cuda.requirements import whole_tiles
from convc.schedules.cuda.row_model import launched_rows, patch_rate, row_cycles
from convc.schedules.cuda.row_tiles import fills_stages, group_of, row_tiles
from convc.schedules.layout import Halo, Layout
from convc.schedules.matrices import Matrices
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.quantized_algorithm import QuantizedAlgorithm
from convc.schedules.requantized import Bias, finished, stored
from convc.schedules.vector_gemm import Products, lanes
from convc.target import Target

__all__ = ["ALGORITHM", "DTYPE", "SUMS", "TensorCoreBytes", "finish"]

DTYPE: Final = "uint8"
SUMS: Final = "int32"
# Parts of a sum: those that kernels of half precision ran with by warps.
_SPLITS: Final = (1, 2, 4, 8, 16)


class TensorCoreBytes(QuantizedAlgorithm):
    """See the module's text."""

    name = "tensor_core_bytes"

    def supports(self, spec: ConvSpec, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec, e = _of_bytes(spec), lanes(DTYPE)
        if (old := too_old(target)) is not None:
            return old
        if spec.transposed:
            return Unsupported("convolution must not be transposed")
        per_group = spec.in_channels // spec.group
        if spec.group > 1 and per_group % e:
            return Unsupported(f"input channels of a group must be a multiple of {e}; got {per_group}")  # fmt: skip
        return whole_tiles(_whole(spec), e) or indexed(spec, e)

    def knobs(self, spec: ConvSpec, target: Target) -> Knobs:
        """Return the tile that the model finds fastest."""
        return min(self.space(spec, target), key=lambda k: self.cycles(spec, target, k))

    def space(self, spec: ConvSpec, target: Target) -> Iterator[Knobs]:
        """Yield legal tiles, and for sums long enough their parts."""
        whole, gpu = _whole(_of_bytes(spec)), target.gpu
        exact, depth = whole.groups > 1, whole.depth * lanes(DTYPE)
        # Through L1: of one tap nothing of the patches is needed again.
        several = math.prod(whole.taps) > 1
        for tile in row_tiles(gpu, whole.channels, whole.pixels, DTYPE, exact=exact, warpgroups=gpu.warpgroups):  # fmt: skip
            for split in _SPLITS:
                enough = split == 1 or (depth > (2 * split - 1) * tile["step"] and not exact)
                if enough and fills_stages(tile, -(-depth // split)):
                    yield {**tile, "split": split}
                    if several and group_of(tile) > 1:
                        yield {**tile, "split": split, "cached": 1}

    def cycles(self, spec: ConvSpec, target: Target, knobs: Knobs) -> float:
        """Return clocks of the products, or of the bytes if those take longer, and of the launches.

        By the model of half precision, fitted to an H200, at twice its rate of products, which is what data sheets say (NVIDIA A100 and
        H100: 624 and 1979 TOPS of int8 where float16 has 312 and 989); no kernel of bytes has run on a device.
        """
        spec, gpu = _of_bytes(spec), target.gpu
        m = vector_gemm.matrices(spec, knobs)
        parts = m.partial_bytes(SUMS)
        work = row_cycles(
            gpu,
            m.products,
            m.padded_channels,
            m.padded_pixels,
            m.padded_depth * lanes(DTYPE),
            knobs,
            DTYPE,
            rate=patch_rate(spec, knobs),
            stored=4 if parts else 1,
        )
        return launched_rows(gpu, work, spec.nbytes, parts)

    def operands(self, spec: ConvSpec, target: Target, knobs: Knobs) -> Operands:
        """Return blocks of 16 bytes, without a halo: what lies outside is not copied but filled in."""
        block = Layout(lanes(DTYPE))
        return Operands(block, Halo(), block)

    def pack(self, weight: np.ndarray, spec: ConvSpec, knobs: Knobs) -> np.ndarray:
        """Return the weights in rows of 16 bytes."""
        return rows.dealt(vector_gemm.pack(weight, _of_bytes(spec), knobs), DTYPE)

    def compute(
        self, spec: ConvSpec, attributes: QuantizedConvAttributes, target: Target, knobs: Knobs
    ) -> list[te.Tensor]:
        """Return data, weight, bias, factor, what is added, result; the blocks of `vector_gemm`."""
        products = Products.of(_of_bytes(spec), knobs, rows.product, SUMS, fill=attributes.pad)
        return finish(products, attributes)

    def reason(self, knobs: Knobs) -> str:
        """Return how the kernel multiplies."""
        return "products of bytes on tensor cores"


def finish(products: Products, attributes: QuantizedConvAttributes) -> list[te.Tensor]:
    """Return data, weight, bias, factor, what is added, result; of sums that are not split the owners of a sum finish it."""
    sums, shape, a = products.sums, products.shape, attributes
    bias = Bias(a, shape[1], shape[-1])
    if products.m.split > 1:
        total = products.gathered(sums.acc)

        def whole(n, k, *at):
            return total(n, k, *at) + bias(k, at[-1])

        return finished(
            a, (products.data, sums.weight, bias), shape, whole, products.spec.out_channels
        )
    factor = te.placeholder((shape[1], shape[-1]), "float32", name="factor")
    residual = [te.placeholder(shape, "uint8", name="added")] if a.added else []
    others = [products.owned(r, "add") for r in residual]

    def value(*index):
        inside, k = products.channel(*index)
        at = k // products.block, k % products.block
        y = (sums.acc(*index) + bias(*at)).astype("float32") * factor[at]
        y = stored(y, a, [r(*index).astype("float32") for r in others])
        # Around all of it: of a factor of 0 TVM would make a constant, which CUDA's code generator does not reinterpret.
        return tirx.if_then_else(tirx.all(*inside), y, tirx.const(0, a.dtype)) if inside else y

    y = products.gathered(products.own(value))
    return [products.data, sums.weight, bias.operand, factor, *bias.zero, *residual, y]


def _of_bytes(spec: ConvSpec) -> ConvSpec:
    """Return the geometry with the type that data have in memory."""
    return replace(spec, dtype=DTYPE)


def _whole(spec: ConvSpec) -> Matrices:
    knobs = {"pixels": 1, "channels": 1, "step": lanes(DTYPE), "split": 1}
    return vector_gemm.matrices(spec, knobs)


ALGORITHM = TensorCoreBytes()
