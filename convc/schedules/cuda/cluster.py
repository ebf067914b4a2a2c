"""Parts of sums that meet in the shared memory of a cluster: blocks that run together on neighbouring multiprocessors and see each other's.

Each block of a cluster has multiplied its part of the sum for the whole tile of the cluster. Of every other block's share of the tile's
channels it writes its sums into that block's shared memory, then adds to its own share what the others wrote there, and only that is
stored: no part goes through global memory, no second kernel adds them up.

    arrive, wait                all blocks have begun and none reads its steps any more, so that others may write where they lay
    shared memory of block q, of each q but this one = sums of q's channels
    arrive, wait                what all wrote is there; behind it nobody touches another's memory, so that each may leave
    met = own sums + those of the others, in the order of their ranks

The barrier's arrival is a release and its wait an acquire of the cluster. Whoever waits behind the products by wgmma
(`wgmma.WarpgroupProduct`) has nothing of them in flight, and no product follows, so that no fence of the async proxy is needed.

A kernel's text says how many blocks are a cluster (`__cluster_dims__`), so that a launch is like any other, early ones
(`dependent_launch`) among them: those wait before anything else.

SOURCE  PTX ISA, "barrier.cluster", "mapa", "st" (.shared::cluster); CUDA C++ Programming Guide 13.0, "Distributed Shared Memory": a block
        must have begun before its memory is touched, and must not leave while it is; CUTLASS, cute/arch/cluster_sm90.hpp
        (cluster_arrive, cluster_wait, set_block_rank, store_shared_remote)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from convc.schedules.cuda.mma import once

__all__ = ["ClusterSum", "clustered"]

# Sums that are written and read at once.
_VECTOR: Final = 4
_SUM_BYTES: Final = 4

_PREFIX: Final = "convc_cluster_sum"
# How TVM prints a kernel's head; the body of one ends where the next begins.
_HEAD: Final = re.compile(r"__global__ void (?=(?:__launch_bounds__\(\d+\) )?(\w+)\()")
_CALL: Final = re.compile(rf"\b{_PREFIX}_(\d+)_\w+\(\(?")

_BARRIER: Final = """\
static __device__ __forceinline__ void convc_cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
"""

# Neighbouring threads write and read neighbouring 16 bytes; the thread of the same number is who wants them. All indices of sums are known
# at compile time, or they would lie in memory.
_SUM: Final = """\
static __device__ __forceinline__ void {name}(float* met, const float* sums, void* room) {{
  const int rank = blockIdx.z;
  const unsigned here = static_cast<unsigned>(__cvta_generic_to_shared(room)) + threadIdx.x * 16;
  convc_cluster_barrier();
#pragma unroll
  for (int q = 0; q < {blocks}; ++q) {{
    float share[{count}];
#pragma unroll
    for (int i = 0; i < {count}; ++i) share[i] = sums[(i / {half} * {blocks} + q) * {half} + i % {half}];
    if (q == rank) {{
#pragma unroll
      for (int i = 0; i < {count}; ++i) met[i] = share[i];
    }} else {{
      unsigned there;
      asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(q));
      there += (rank - (rank > q)) * {slot};
#pragma unroll
      for (int i = 0; i < {count}; i += 4)
        asm volatile("st.shared::cluster.v4.f32 [%0], {{%1, %2, %3, %4}};"
            :: "r"(there + i / 4 * {row}), "f"(share[i]), "f"(share[i + 1]), "f"(share[i + 2]), "f"(share[i + 3]) : "memory");
    }}
  }}
  convc_cluster_barrier();
  const float4* others = static_cast<const float4*>(room) + threadIdx.x;
#pragma unroll
  for (int q = 0; q < {blocks} - 1; ++q)
#pragma unroll
    for (int i = 0; i < {count}; i += 4) {{
      const float4 more = others[(q * {count} + i) / 4 * {threads}];
      met[i] += more.x; met[i + 1] += more.y; met[i + 2] += more.z; met[i + 3] += more.w;
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class ClusterSum:
    """How the blocks of a cluster add up their parts; a thread has [8 pixels][8 channels][pair] of a part, as of an instruction's.

    Attributes:
        blocks: of the cluster, which are those of blockIdx.z, and parts of a sum.
        threads: of a block.
        sums: of a thread, for the channels of the whole tile and two blocks of 8 pixels.

    Example:
        >>> made = ClusterSum(blocks=2, threads=256, sums=64)
        >>> made.name, made.room, made.room_bytes
        ('convc_cluster_sum_2_256x64', 8192, 32768)
    """

    blocks: int
    threads: int
    sums: int

    @property
    def name(self) -> str:
        return f"{_PREFIX}_{self.blocks}_{self.threads}x{self.sums}"

    @property
    def room(self) -> int:
        """Sums that others write into a block's shared memory."""
        return (self.blocks - 1) * self._count * self.threads

    @property
    def room_bytes(self) -> int:
        return self.room * _SUM_BYTES

    @property
    def source(self) -> str:
        """CUDA C of `void name(float* met, const float* sums, void* room)`: met = this block's share of all blocks' sums."""
        row = self.threads * _VECTOR * _SUM_BYTES
        body = _SUM.format(
            name=self.name, blocks=self.blocks, count=self._count, half=self._count // 2, threads=self.threads,
            row=row, slot=self._count // _VECTOR * row,
        )  # fmt: skip
        return once(self.name, once("convc_cluster_barrier", _BARRIER) + body)

    @property
    def _count(self) -> int:
        return self.sums // self.blocks


def clustered(source: str) -> str:
    """Return CUDA C whose kernels that add up in a cluster are launched in such.

    Example:
        >>> head = 'extern "C" __global__ void __launch_bounds__(128) k(float* y)'
        >>> body = "{ convc_cluster_sum_2_128x32(met, sums, room); }"
        >>> clustered(head + body).removesuffix(body)
        'extern "C" __global__ void __cluster_dims__(1, 1, 2) __launch_bounds__(128) k(float* y)'
        >>> clustered("// a library's calls alone")
        "// a library's calls alone"
    """
    heads = list(_HEAD.finditer(source))
    ends = [*(head.start() for head in heads), len(source)][1:]
    blocks: dict[str, str] = {}
    for head, end in zip(heads, ends, strict=True):
        if call := _CALL.search(source, head.end(), end):
            blocks[head[1]] = call[1]

    def dims(head: re.Match[str]) -> str:
        count = blocks.get(head[1])
        return head[0] + (f"__cluster_dims__(1, 1, {count}) " if count else "")

    return _HEAD.sub(dims, source)
