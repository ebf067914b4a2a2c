"""A warpgroup's product in CUDA C: four warps multiply together by wgmma, both operands in shared memory in rows of 16 bytes.

Eight neighbouring rows are one of the instruction's core matrices, without a swizzle: shared memory as `rows` lays it out is what the unit
reads (K-major), or as `term_rows` does (MN-major: transposed), and a lane's sums are those of `mma.m16n8k16` for its warp's 16 pixels, so
that nothing else of the kernel changes. The unit works at twice the rate that mma.sync reaches on 9.0, and reads each operand once a
warpgroup, where ldmatrix reads it once a warp.

SOURCE  PTX ISA, "Asynchronous warpgroup level matrix instructions": matrix descriptor, core matrices of K-major and MN-major operands
        without swizzle, "Register fragment D", the async proxy; CUTLASS, cute/atom/mma_traits_sm90_gmma.hpp (canonical layouts in bytes:
        `make_gmma_desc`, INTERLEAVE)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from convc.schedules.cuda.mma import KINDS, once
from convc.schedules.cuda.rows import CHANNELS, depth_of

__all__ = [
    "ARCHITECTURE",
    "HOPPER",
    "WARPS",
    "WarpgroupProduct",
    "behind_copies",
    "needs_architecture",
]

# Warps that multiply together; pixels of one of them.
WARPS: Final = 4
_PIXELS: Final = 16

# The capability that has the instruction, no other, and what nvcc calls it in code that may use it.
HOPPER: Final = 90
ARCHITECTURE: Final = "90a"
_INSTRUCTION: Final = "wgmma.mma_async"

# Leading offset: to the next 8 terms of the sum; stride: to the next 8 pixels or channels; both in units of 16 bytes. The address, too, is
# so many, the lowest 14 bits, and shared memory ends before they do: the next instruction's is the first one's and a constant.
_DESCRIPTOR: Final = """\
static __device__ __forceinline__ unsigned convc_core_matrices(const void* rows, int leading) {
  return (static_cast<unsigned>(__cvta_generic_to_shared(rows)) & 0x3ffff) >> 4 | static_cast<unsigned>(leading) << 16;
}
"""

# What cp.async wrote the unit sees behind the wait for copies and the block's barrier, as in CUTLASS, whose multistage products have no
# fence.proxy.async either (collective/sm90_mma_multistage_gmma_ss_warpspecialized.hpp): that fence is a MEMBAR, which waits for copies of
# later steps, too. What threads store themselves needs it: `copies.own_copies` takes it out of kernels in which they store nothing.
# The unit works on while the warps go on: `{name}_wait` returns when it is done, and only behind that the sums are theirs and shared
# memory may be written again. `{name}_now` is both.
_FENCE: Final = '  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");\n'
_PRODUCT: Final = """\
static __device__ __forceinline__ void {name}({sums}* sums, const void* patches, const void* weights) {{
  const uint4* x = static_cast<const uint4*>(patches) - threadIdx.x / 32 % {warps} * {warp_rows};
  const uint4* w = static_cast<const uint4*>(weights);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  const int stride = {stride};
  const unsigned long long apart = static_cast<unsigned long long>(stride) << 32;
  const unsigned first_a = convc_core_matrices(x, {x_leading}), first_b = convc_core_matrices(w, {w_leading});
#pragma unroll
  for (int s = 0; s < {steps}; ++s) {{
    const unsigned long long a = apart | (first_a + s * {x_step}), b = apart | (first_b + s * {w_step});
    asm volatile("{{\\n.reg .pred add;\\nsetp.ne.b32 add, %{count_b}, 0;\\n"
        "{instruction}.sync.aligned.{form} {{{registers}}}, %{count}, %{count_a}, add{order};\\n}}"
        : {outputs}
        : "l"(a), "l"(b), "r"(1));
  }}
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}}
static __device__ __forceinline__ void {name}_wait({sums}* sums) {{
  asm volatile("wgmma.wait_group.sync.aligned 0;" : {outputs} : : "memory");
}}
static __device__ __forceinline__ void {name}_now({sums}* sums, const void* patches, const void* weights) {{
  {name}(sums, patches, weights);
  {name}_wait(sums);
}}
"""


def behind_copies(text: str) -> str:
    """Return a product's name or source as it is for a kernel whose threads store nothing in shared memory themselves.

    Example:
        >>> behind_copies("convc_warpgroup_float16_64x64x64_wait")
        'convc_copied_warpgroup_float16_64x64x64_wait'
    """
    return re.sub(r"\bconvc_(?=(term_)?warpgroup_)", "convc_copied_", text.replace(_FENCE, ""))


def needs_architecture(source: str) -> bool:
    """Return whether a source's machine code must be for `ARCHITECTURE`."""
    return _INSTRUCTION in source


@dataclass(frozen=True, slots=True)
class WarpgroupProduct:
    """A warpgroup's step of a product; 64 pixels, 16 of each warp, and all channels of the block's tile.

    Attributes:
        dtype: of the operands: half precision, or uint8 by int8.
        depth: of the sum in a step, whole instructions.
        block_pixels, block_channels: of the tile in shared memory; channels are the instruction's: multiples of 8, 256 at most.
        apart: whether the wait for a step stands apart from its call, behind the next copies.
        by_terms: whether a row is eight channels of one term of the sum, as `term_rows` has them; else eight terms of one pixel or channel.
    """

    dtype: str
    depth: int
    block_pixels: int
    block_channels: int
    apart: bool
    by_terms: bool = False

    @property
    def call(self) -> str:
        """The function that a step calls."""
        return self.name if self.apart else f"{self.name}_now"

    @property
    def name(self) -> str:
        kind = "term_warpgroup" if self.by_terms else "warpgroup"
        return f"convc_{kind}_{self.dtype}_{self.block_pixels}x{self.block_channels}x{self.depth}"

    @property
    def source(self) -> str:
        """CUDA C of `void name(float* sums, const void* patches, const void* weights)`, of whole numbers int*, and the other two.

        The first is sums += patches weights.
        """
        kind, depth = KINDS[self.dtype], depth_of(self.dtype)
        n = self.block_channels // CHANNELS
        # The sums lie as [8 pixels][8 channels][pair], the instruction's registers as [8 channels][8 pixels][pair].
        places = [(r * n + j) * 2 + pair for j in range(n) for r in range(2) for pair in range(2)]
        count = len(places)
        if self.by_terms:
            # [block of 8][term]: a core matrix is 8 terms, the next 8 follow it.
            across, stride, x_leading, w_leading = 1, self.depth, CHANNELS, CHANNELS
            x_step, w_step, warp_rows = depth, depth, _PIXELS // CHANNELS * self.depth
        else:
            # [8 terms][pixel or channel]
            across, stride, x_leading, w_leading = 0, CHANNELS, self.block_pixels, self.block_channels  # fmt: skip
            x_step, w_step, warp_rows = 2 * x_leading, 2 * w_leading, _PIXELS
        form = f"m64n{self.block_channels}k{depth}.{kind.sums}.{kind.left}.{kind.right}"
        # Whole numbers are read along the depth alone, and not negated.
        order = "" if kind.whole else f", 1, 1, {across}, {across}"
        body = _PRODUCT.format(
            name=self.name, instruction=_INSTRUCTION, form=form, sums=kind.c_type, warps=WARPS, warp_rows=warp_rows, steps=self.depth // depth,
            x_step=x_step, w_step=w_step, x_leading=x_leading, w_leading=w_leading, stride=stride, order=order,
            count=count, count_a=count + 1, count_b=count + 2,
            registers=", ".join(f"%{i}" for i in range(count)),
            outputs=", ".join(f'"+{kind.constraint}"(sums[{place}])' for place in places),
        )  # fmt: skip
        return once(self.name, once("convc_core_matrices", _DESCRIPTOR) + body)
