"""How fast one core issues and loads: the numbers that cost models count with. Every row says where it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["NARROW_TILE", "Microarchitecture", "microarchitecture"]

# Sums that a register tile of one vector may have for `wide_tiles` not to count.
NARROW_TILE: Final = 14


@dataclass(frozen=True, slots=True)
class Microarchitecture:
    """One core.

    Attributes:
        name: what people call it.
        fmas: fused multiply-adds of whole vectors issued a cycle.
        half_fmas: of half vectors (256 bits on AVX-512 machines).
        loads: whole vectors loaded from L1 a cycle.
        half_loads: half vectors, or scalars to broadcast to them.
        scalars: scalars loaded a cycle and broadcast to whole vectors, as operands of multiply-adds.
        latency: cycles of a fused multiply-add.
        l2: bytes a cycle from the L2 cache.
        l3: bytes a cycle from the L3 cache.
        memory: bytes a cycle of weights that are read once, in order.
        data: bytes a cycle of a layer's data and results, which the layer before has left in L3 or L2.
        crowding: times as long as that takes with two cores reading.
        transforms: times as long as on Zen 4 as Winograd's transforms take, see `schedules.winograd`.
        by_planes: times as long as Winograd's products take plane by plane, beside group by group of output channels.
        wide_tiles: times as long as its multiply-adds a register tile of several whole vectors or more than `NARROW_TILE` sums takes.
        uncovered: of two streams, work and loads from memory, the part of the shorter that the longer one does not hide.
        data_uncovered: the same of work and a layer's data and results.
        ends: of a register tile's way through its epilogue to L2, the part that the next tile's multiply-adds do not hide.
        across: cycles of a vector's sum over its lanes and of storing that.
        border: seconds of a kernel that writes zeros around a layer's data, on one thread.
        bf16_dots: whole vectors of pairs of bfloat16 products added a cycle, by vdpbf16ps.
        hertz: cycles a second under load; only ratios of estimates decide, this turns them into the seconds that reports show.
    """

    name: str
    fmas: float
    half_fmas: float
    loads: float
    half_loads: float
    scalars: float
    latency: float
    l2: float
    l3: float
    memory: float
    data: float
    crowding: float
    transforms: float
    by_planes: float
    uncovered: float
    hertz: float
    wide_tiles: float = 1.0
    data_uncovered: float = 0.5
    ends: float = 1.0
    across: float = 6.0
    border: float = 5e-6
    bf16_dots: float = 1.0

    def fmas_of(self, lanes: int, block: int) -> float:
        """Return how many vectors of `block` elements are multiplied and added a cycle, `lanes` being a whole one."""
        return self.half_fmas if block < lanes else self.fmas

    def loads_of(self, lanes: int, block: int) -> float:
        """Return how many vectors of `block` elements are loaded a cycle."""
        return self.half_loads if block < lanes else self.loads

    def scalars_of(self, lanes: int, block: int) -> float:
        """Return how many scalars are loaded a cycle and broadcast to vectors of `block` elements."""
        return self.half_loads if block < lanes else self.scalars

    def tile_factor(self, points: int, vectors: int, whole: bool) -> float:
        """Return how much longer than its multiply-adds a register tile of whole vectors takes."""
        narrow = vectors == 1 and points <= NARROW_TILE
        return self.wide_tiles if whole and not narrow else 1.0

    def memory_of(self, cores: int) -> float:
        """Return the bytes a cycle of each of `cores` that all read from memory."""
        return self.memory / (1 if cores == 1 else self.crowding * cores / 2)

    def together(self, work: float, stream: float) -> float:
        """Return the cycles of work and of a stream from memory that partly hide each other."""
        return max(work, stream) + self.uncovered * min(work, stream)


# Two FMAs of 512 bits a cycle. Intel Xeon (Emerald Rapids, virtual machine, 2026-11-26): peak 178 GFLOP/s a core at 2.8 GHz; 141 GB/s
# from L2; 30 up to 100 MB and 17 from 200 MB on, which is where a ResNet-50's packed weights are; 24 and 14 each with two cores. Hardly
# any of it is hidden behind FMAs: Winograd F(2, 3), 512 channels at 7 x 7: products 0.75 ms, 16.8 MB of U, together 1.6 ms.
# Depthwise 3x3 layers of MobileNetV2 move 9 to 11 bytes a cycle. Winograd plane by plane, where U is read in order: 128 channels at 28 x 28
# 479 -> 446 us, 64 at 56 x 56 490 -> 442, 512 at 7 x 7 1398 -> 1156.
_INTEL_SERVER: Final = Microarchitecture(
    "Intel server",
    fmas=2,
    half_fmas=2,
    loads=2,
    half_loads=3,
    scalars=2,
    latency=4,
    l2=48,
    l3=10.7,
    memory=6.0,
    data=10.0,
    crowding=1.25,
    transforms=0.45,
    by_planes=0.96,
    uncovered=0.9,
    hertz=2.8e9,
    # Measured 0.48, beside two FMAs of float32: a quarter of the instructions, half of the products. These CPUs' bfloat16 is in AMX.
    bf16_dots=0.5,
)

# One FMA of 512 bits or two of 256 a cycle; one load of 512 bits, but two of scalars that are broadcast. AMD EPYC (Zen 4, virtual machine):
# 118 GFLOP/s a core; 33 GB/s on VGG's dense layers; two cores together 1.5 x as much; 512 channels at 7 x 7 took 1194 us where the stream
# alone takes 1004 (2026-11-21). Data of the layer before come from L3 at 17 to 22 bytes a cycle (depthwise 3x3 stride 2, 96 and 144
# channels). Since 14 sums cover four cycles of latency and loads do not bind, tiles of one vector are the best: of 32 layers of ResNet-50
# and MobileNetV2 14 x 1 takes 0.94 to 1.01 of 14 x 2's time, 28 x 1 0.99 to 1.06 (2026-11-27). Winograd's products with them, by groups
# of channels instead of planes: 512 channels at 7 x 7 1379 -> 1170 us, 256 at 14 x 14 662 -> 583, 128 at 64 x 64 2877 -> 2793.
# Between multiply-adds other pipes have room: 24 -> 144 channels at 56 x 56 take 191 us, of which products 184 at the peak, in spite of
# 28224 vectors that are clipped and stored and of 2.1 MB moved; depthwise 3x3 of 144 there 77, products 69, 3.6 MB. MobileNetV2's 17
# borders take 48 us, of which a microsecond each is the profile's. `across`: 1x1, 32 -> 12 channels at 56 x 56 as inner products 51 us, of
# which multiply-adds 20.
_ZEN4: Final = Microarchitecture(
    "Zen 4",
    fmas=1,
    half_fmas=2,
    loads=1,
    half_loads=2,
    scalars=2,
    latency=4,
    l2=32,
    l3=14,
    memory=9.2,
    data=18.0,
    crowding=4 / 3,
    transforms=1.0,
    by_planes=1.03,
    uncovered=0.2,
    hertz=3.69e9,
    # As many as float32's multiply-adds, each of twice the products: 3.66e9 a second of either (2026-11-27).
    bf16_dots=1.0,
    wide_tiles=1.02,
    data_uncovered=0.05,
    ends=0.25,
    across=3.0,
    border=2e-6,
)

# As Zen 4 with vectors of 256 bits as the whole ones; not measured.
_AVX2: Final = Microarchitecture(
    "AVX2",
    fmas=2,
    half_fmas=2,
    loads=2,
    half_loads=2,
    scalars=2,
    latency=4,
    l2=32,
    l3=14,
    memory=9.2,
    data=8.0,
    crowding=4 / 3,
    transforms=1.0,
    by_planes=0.96,
    uncovered=0.2,
    hertz=3.6e9,
)

# No fused multiply-add: a product and a sum are two instructions. Also AArch64's NEON; not measured.
_NARROW: Final = Microarchitecture(
    "128-bit vectors",
    fmas=1,
    half_fmas=1,
    loads=2,
    half_loads=2,
    scalars=2,
    latency=4,
    l2=32,
    l3=14,
    memory=9.2,
    data=8.0,
    crowding=4 / 3,
    transforms=1.0,
    by_planes=0.96,
    uncovered=0.2,
    hertz=3.6e9,
)

# LLVM's CPU name -> row; what is not here goes by its vectors.
_BY_CPU: Final = dict.fromkeys(
    ("skylake-avx512", "cascadelake", "cooperlake", "icelake-server", "sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d"),
    _INTEL_SERVER,
)  # fmt: skip


def microarchitecture(mcpu: str, lanes: int) -> Microarchitecture:
    """Return the row of a CPU.

    Args:
        mcpu: LLVM's name.
        lanes: 32-bit floats in one of its vectors.

    Example:
        >>> microarchitecture("sapphirerapids", 16).fmas, microarchitecture("znver4", 16).fmas
        (2, 1)
    """
    if mcpu in _BY_CPU:
        return _BY_CPU[mcpu]
    return {16: _ZEN4, 8: _AVX2}.get(lanes, _NARROW)
