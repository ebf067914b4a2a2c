"""A warp's product in CUDA C, both operands read by ldmatrix from rows of 16 bytes, as `rows` or `term_rows` lays them out.

SOURCE  PTX ISA, "ldmatrix", "mma.m16n8k16" and "mma.m16n8k32": matrices 0 to 3 of an ldmatrix.x4 are the
        registers a0 to a3 of 16 x 16 patches, and b0, b1 of two times 16 x 8 weights; with .trans each matrix is read as
        if its rows were its columns
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from convc.schedules.cuda.mma import KINDS, instruction, once
from convc.schedules.cuda.rows import CHANNELS, PIXELS, depth_of

__all__ = ["RowProduct"]

_LOAD: Final = """\
static __device__ __forceinline__ void {name}(unsigned* r, const void* row) {{
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%0, %1, %2, %3}}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}}
"""

# The tile's sums lie as [8 pixels][8 channels][pair]; an instruction takes two blocks of 8 pixels.
_PRODUCT: Final = """\
static __device__ __forceinline__ void {name}({sums}* sums, const void* patches, const void* weights) {{
  const int lane = threadIdx.x % 32;
  const uint4* x = static_cast<const uint4*>(patches) + {x};
  const uint4* w = static_cast<const uint4*>(weights) + {w};
#pragma unroll
  for (int s = 0; s < {steps}; ++s) {{
    unsigned a[{m}][4], b[{n}][2];
#pragma unroll
    for (int i = 0; i < {m}; ++i) {load}(a[i], x + s * {x_step} + i * {x_tile});
#pragma unroll
    for (int j = 0; j < {n}; j += 2) {load}(b[j], w + s * {w_step} + j * {w_tile});
#pragma unroll
    for (int i = 0; i < {m}; ++i)
#pragma unroll
      for (int j = 0; j < {n}; ++j) {{
        {sums}* low = sums + (2 * i * {n} + j) * 2;
        {sums}* high = low + {n} * 2;
        {sums} d[4] = {{low[0], low[1], high[0], high[1]}};
        convc_mma_{type}(d, a[i], b[j]);
        low[0] = d[0]; low[1] = d[1]; high[0] = d[2]; high[1] = d[3];
      }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class RowProduct:
    """One warp's step of a product.

    Attributes:
        dtype: of the operands: half precision, or uint8 by int8.
        pixels, channels: of the warp's tile: whole instructions, channels two at once.
        depth: of the sum in a step, whole instructions.
        block_pixels, block_channels: of the tile in shared memory.
        by_terms: whether a row is eight channels of one term of the sum, as `term_rows` has them; else eight terms of one pixel or channel.
    """

    dtype: str
    pixels: int
    channels: int
    depth: int
    block_pixels: int
    block_channels: int
    by_terms: bool = False

    # A warp's instructions are over with their call.
    apart: ClassVar[bool] = False

    @property
    def call(self) -> str:
        """The function that a step calls."""
        return self.name

    @property
    def name(self) -> str:
        return (
            f"convc_{'term_' if self.by_terms else ''}rows_{self.dtype}_{self.pixels}x{self.channels}x{self.depth}"
            f"_of_{self.block_pixels}x{self.block_channels}"
        )

    @property
    def source(self) -> str:
        """CUDA C of `void name(float* sums, const void* patches, const void* weights)`, of whole numbers int*: sums += patches weights."""
        kind, depth = KINDS[self.dtype], depth_of(self.dtype)
        # Where a lane's row of each operand lies, and how far the next instruction's and the next tile's are from it.
        if self.by_terms:
            name, rows = "convc_ldmatrix_trans", self.depth
            x = f"lane / 8 % 2 * {rows} + lane / 16 * 8 + lane % 8"
            w = f"lane / 16 * {rows} + lane / 8 % 2 * 8 + lane % 8"
            x_step, w_step, x_tile, w_tile = depth, depth, PIXELS // 8 * rows, rows
        else:
            name = "convc_ldmatrix"
            x = f"lane / 16 * {self.block_pixels} + lane % 16"
            w = f"lane / 8 % 2 * {self.block_channels} + lane / 16 * 8 + lane % 8"
            x_step, w_step = 2 * self.block_pixels, 2 * self.block_channels
            x_tile, w_tile = PIXELS, CHANNELS
        body = _PRODUCT.format(
            name=self.name, type=kind.left, sums=kind.c_type, m=self.pixels // PIXELS, n=self.channels // CHANNELS, steps=self.depth // depth,
            load=name, x=x, w=w, x_step=x_step, w_step=w_step, x_tile=x_tile, w_tile=w_tile,
        )  # fmt: skip
        load = once(name, _LOAD.format(name=name, trans=".trans" if self.by_terms else ""))
        return once(self.name, instruction(self.dtype) + load + body)
