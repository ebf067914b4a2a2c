"""A warp's product in CUDA C: mma.sync on fragments that lie in shared memory as `fragments` packs them.

float16, bfloat16   m16n8k16, sums in float32
uint8 by int8       m16n8k32, sums in int32: a register has four numbers where it has two halves, and lanes' registers are the same
float32             m16n8k8 on TF32, three times: each operand x is big + small, big = x rounded to 11 bits, small = x - big, of which
                    the unit reads 11 of at most 12 bits; a b = big big + big small + small big, and what is left out is at most
                    2^-21 |a b|: 2^-23 for the last bit of each small, 2^-22 for small small. Tensor cores cut sums off, so that long
                    chains on them drift: each instruction's sum of 8 terms starts at zero and is added to the thread's own by the float32
                    units, which round to nearest. An infinity is no sum of two numbers: results are NaN where direct's are infinite.
tf32                m16n8k8 once: operands are rounded to 11 bits, |error| <= 2^-10 |a b|

SOURCE  Ootomo and Yokota, Recovering single precision accuracy from Tensor Cores, IJHPCA 36(4), 2022 (arXiv:2203.03341): the split, and
        why sums leave the tensor core; PTX ISA, mma.m16n8k8 and mma.m16n8k16 (the fragments' layouts)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from convc.schedules.cuda.fragments import CHANNELS, PIXELS, WORDS
from convc.schedules.plan import Unsupported
from convc.target import Target

__all__ = ["KINDS", "Instruction", "WarpProduct", "instruction", "once", "row_words", "too_old"]

# All instructions are there from 8.0 on.
_LEAST_SM: Final = 80


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: element types as PTX names them.

    Attributes:
        shape: of a product.
        left, right: the operands' types.
        sums: their type.
    """

    shape: str
    left: str
    right: str
    sums: str = "f32"

    @property
    def whole(self) -> bool:
        """Whether sums are whole numbers."""
        return self.sums == "s32"

    @property
    def c_type(self) -> str:
        """The sums' type in CUDA C."""
        return "int" if self.whole else "float"

    @property
    def constraint(self) -> str:
        """How inline assembly names a register of sums."""
        return "r" if self.whole else "f"


KINDS: Final = {
    "float16": Instruction("m16n8k16", "f16", "f16"),
    "bfloat16": Instruction("m16n8k16", "bf16", "bf16"),
    "float32": Instruction("m16n8k8", "tf32", "tf32"),
    "tf32": Instruction("m16n8k8", "tf32", "tf32"),
    "uint8": Instruction("m16n8k32", "u8", "s8", "s32"),
}

# Four rows of patches are read at once, 8 words of each: 8 words of padding put them into different banks.
_PADDING: Final = 8

_MMA: Final = """\
static __device__ __forceinline__ void convc_mma_{left}({c_type}* d, const unsigned* a, const unsigned* b) {{
  asm("mma.sync.aligned.{shape}.row.col.{sums}.{left}.{right}.{sums} {{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%0, %1, %2, %3}};"
      : "+{r}"(d[0]), "+{r}"(d[1]), "+{r}"(d[2]), "+{r}"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}}
"""

_ROUND: Final = """\
static __device__ __forceinline__ unsigned convc_tf32(float x) {
  unsigned y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}
"""

# The tile's sums lie as [8 channels][8 pixels][pair]; an instruction takes two blocks of 8 channels.
_PRODUCT: Final = """\
static __device__ __forceinline__ void {name}(float* sums, const void* weights, const void* patches) {{
  const int lane = threadIdx.x % 32;
  const uint4* w = static_cast<const uint4*>(weights) + lane;
  const unsigned* x = static_cast<const unsigned*>(patches) + lane % 4 * {row} + lane / 4;
#pragma unroll
  for (int s = 0; s < {steps}; ++s) {{
    unsigned a[{m}][4], b[{n}][2];
#pragma unroll
    for (int i = 0; i < {m}; ++i) {{
      const uint4 four = w[(s * {block_m} + i) * 32];
      a[i][0] = four.x; a[i][1] = four.y; a[i][2] = four.z; a[i][3] = four.w;
    }}
#pragma unroll
    for (int j = 0; j < {n}; ++j) {{
      b[j][0] = x[s * 8 * {row} + j * 8];
      b[j][1] = x[(s * 8 + 4) * {row} + j * 8];
    }}
{split}#pragma unroll
    for (int i = 0; i < {m}; ++i)
#pragma unroll
      for (int j = 0; j < {n}; ++j) {{
        float* low = sums + (2 * i * {n} + j) * 2;
        float* high = low + {n} * 2;
{multiply}      }}
  }}
}}
"""

_INTO_SUMS: Final = """\
        float d[4] = {{low[0], low[1], high[0], high[1]}};
        convc_mma_{type}(d, a[i], b[j]);
        low[0] = d[0]; low[1] = d[1]; high[0] = d[2]; high[1] = d[3];
"""

_BESIDE_SUMS: Final = """\
        float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        convc_mma_tf32(d, a_small[i], b[j]);
        convc_mma_tf32(d, a[i], b_small[j]);
        convc_mma_tf32(d, a[i], b[j]);
        low[0] += d[0]; low[1] += d[1]; high[0] += d[2]; high[1] += d[3];
"""

_ROUNDED: Final = """\
#pragma unroll
    for (int i = 0; i < {n}; ++i)
#pragma unroll
      for (int r = 0; r < {r}; ++r) {v}[i][r] = convc_tf32(__uint_as_float({v}[i][r]));
"""

_SPLIT: Final = """\
    unsigned {v}_small[{n}][{r}];
#pragma unroll
    for (int i = 0; i < {n}; ++i)
#pragma unroll
      for (int r = 0; r < {r}; ++r) {{
        const float whole = __uint_as_float({v}[i][r]);
        {v}[i][r] = ({v}[i][r] + 0x1000u) & 0xffffe000u;  // cvt.rna.tf32 takes five times as many instructions
        {v}_small[i][r] = __float_as_uint(whole - __uint_as_float({v}[i][r]));
      }}
"""


def row_words(pixels: int) -> int:
    """Return words from one row of a block's patches to the next.

    Example:
        >>> row_words(64), row_words(16)
        (72, 24)
    """
    return pixels + _PADDING


def too_old(target: Target) -> Unsupported | None:
    """Return why a device cannot run these products, or None."""
    if target.gpu.sm >= _LEAST_SM:
        return None
    return Unsupported(f"sm must be at least {_LEAST_SM} for tensor cores; got {target.gpu.sm}")


@dataclass(frozen=True, slots=True)
class WarpProduct:
    """One warp's step of a product.

    Attributes:
        kind: a row of `KINDS`.
        channels, pixels: of the warp's tile, whole instructions.
        words: of the sum in a step, whole instructions.
        block_channels, block_pixels: of the tile in shared memory.
    """

    kind: str
    channels: int
    pixels: int
    words: int
    block_channels: int
    block_pixels: int

    @property
    def name(self) -> str:
        return (
            f"convc_product_{self.kind}_{self.channels}x{self.pixels}x{self.words}"
            f"_of_{self.block_channels}x{self.block_pixels}"
        )

    @property
    def source(self) -> str:
        """CUDA C of `void name(float* sums, const void* weights, const void* patches)`: sums += weights patches."""
        element = KINDS[self.kind].left
        m, n = self.channels // CHANNELS, self.pixels // PIXELS
        parts = (("a", m, 4), ("b", n, 2))
        split, multiply = "", _INTO_SUMS.format(type=element)
        if self.kind == "tf32":
            split = "".join(_ROUNDED.format(v=v, n=count, r=r) for v, count, r in parts)
        elif self.kind == "float32":
            split = "".join(_SPLIT.format(v=v, n=count, r=r) for v, count, r in parts)
            multiply = _BESIDE_SUMS
        body = _PRODUCT.format(
            name=self.name, m=m, n=n, steps=self.words // WORDS, row=row_words(self.block_pixels),
            block_m=self.block_channels // CHANNELS, split=split, multiply=multiply,
        )  # fmt: skip
        rounding = once("convc_tf32", _ROUND) if self.kind == "tf32" else ""
        return once(self.name, instruction(self.kind) + rounding + body)


def instruction(kind: str) -> str:
    """Return CUDA C of the instruction of a row of `KINDS`, `convc_mma_<type of the left side>`, defined once in a file."""
    i = KINDS[kind]
    text = _MMA.format(
        shape=i.shape, left=i.left, right=i.right, sums=i.sums, c_type=i.c_type, r=i.constraint
    )
    return once(f"convc_mma_{i.left}", text)


def once(name: str, text: str) -> str:
    """Return CUDA C that defines `name`, wherever it is repeated."""
    return f"#ifndef {name}_defined\n#define {name}_defined\n{text}#endif\n"
