"""What this machine's cores can do at most: the measured float32 peak, against which every benchmark is a percentage.

The kernel is a loop over independent chains of fused multiply-adds that live in registers: chain = chain * x + y. It is
compiled by TVM for the host CPU and not by the system's C compiler, because TVM is always there when convc is, uses the
same LLVM as the kernels it is compared with, and resolves the CPU's vector width; g++ may be missing on a machine that only
benchmarks. LLVM cannot fold the loop: x, y and the trip count are run-time values, the product depends on the loop, and
floating-point sums may not be reordered.

Measured on a 2-core Zen 4 (AVX-512 on 256-bit units): 116.8 GFLOP/s a core; the same loop in C with intrinsics gives 115 to 118.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import ToolchainError

__all__ = ["Peak", "measure_peak", "remeasure_peak"]

# (vector bits, architecture prefix) -> independent chains. Each needs a register beside x and y: AVX-512 and AArch64 have
# 32, AVX2 has 16. 8 chains hide a latency of 4 on two units, 16 on four.
_CHAINS: Final = (
    (512, "x86_64", 24),
    (256, "x86_64", 12),
    (128, "x86_64", 12),
    (128, "aarch64", 24),
    (256, "aarch64", 24),
)


# With 0.3 s, 10 ms a round: short enough that some rounds pass undisturbed on a busy machine, long against the 50 us by
# which threads may start apart.
_ROUNDS: Final = 30


@dataclass(frozen=True, slots=True)
class Peak:
    """A measured peak: float32 GFLOP/s of `threads` threads together, and the seconds it took to measure."""

    gflops_per_second: float
    threads: int
    seconds: float


def _chains(vector_bits: int, triple: str) -> int:
    for bits, architecture, chains in _CHAINS:
        if bits == vector_bits and triple.startswith(architecture):
            return chains
    # Unknown hardware: 8 chains fit every register file and saturate all but the widest cores.
    return 8


@functools.cache
def _compile_kernel() -> tuple[Callable[..., object], int, int]:
    """Return (kernel(chains, operands, iterations), chains, lanes) for the host CPU."""
    import tvm
    from tvm.script import tirx
    from tvm.target import codegen

    cpu, triple = str(codegen.llvm_get_system_cpu()), str(codegen.llvm_get_system_triple())
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu, "mtriple": triple})
    vector_bits = int(codegen.llvm_get_vector_width(target))
    chains, lanes = _chains(vector_bits, triple), max(4, vector_bits // 32)

    @tirx.prim_func
    def multiply_add(
        chain: tirx.Buffer((chains, lanes), "float32"),  # type: ignore
        operand: tirx.Buffer((2, lanes), "float32"),  # type: ignore
        iterations: tirx.int64,
    ):
        tirx.func_attr({"tirx.noalias": True, "global_symbol": "multiply_add"})
        for _ in tirx.serial(iterations):
            for c in tirx.unroll(chains):
                for v in tirx.vectorized(lanes):
                    chain[c, v] = chain[c, v] * operand[0, v] + operand[1, v]

    library = tvm.compile(tvm.IRModule({"multiply_add": multiply_add}), target=target)
    return library["multiply_add"], chains, lanes


def _operands(chains: int, lanes: int) -> tuple[object, object]:
    import tvm

    # x = 0.5, y = 1: every chain converges to 2, so no value is ever denormal or infinite.
    start = np.random.default_rng(0).random((chains, lanes), np.float32)
    pair = np.stack([np.full(lanes, 0.5, np.float32), np.ones(lanes, np.float32)])
    return tvm.runtime.tensor(start), tvm.runtime.tensor(pair)


@functools.cache
def measure_peak(threads: int = 1, seconds: float = 0.3) -> Peak:
    """Return the float32 peak of `threads` cores running at once; measured once a process.

    Units:
        a multiply-add counts as two FLOPs.

    Raises:
        ToolchainError: if TVM is missing or wrong.
    """
    return remeasure_peak(threads, seconds)


def remeasure_peak(threads: int = 1, seconds: float = 0.3) -> Peak:
    """Return the peak measured now; comparing it with `measure_peak` shows whether the machine's clock has changed.

    The best of `_ROUNDS` is kept: the peak is what the machine can do, not what it did while disturbed.
    """
    if threads < 1:
        raise ToolchainError(f"peak measurement must have at least 1 thread; got {threads}.")
    began = time.perf_counter()
    kernel, chains, lanes = _compile_kernel()
    flops = 2 * chains * lanes
    # The count is taken from a short run, so that slow and fast machines measure equally long.
    probe = 100_000
    first = time.perf_counter()
    kernel(*_operands(chains, lanes), probe)
    iterations = max(probe, int(probe * seconds / _ROUNDS / (time.perf_counter() - first)))
    best = max(_round(kernel, chains, lanes, iterations, threads) for _ in range(_ROUNDS))
    return Peak(best * flops / 1e9, threads, time.perf_counter() - began)


def _round(
    kernel: Callable[..., object], chains: int, lanes: int, iterations: int, threads: int
) -> float:
    """Return loop iterations per second of all threads together, each timed from the common start to its own end."""
    # Python threads, not TVM's pool: the call releases the interpreter lock, and the pool's size belongs to the runtime.
    barrier = threading.Barrier(threads)
    spans: list[tuple[float, float]] = []

    def work() -> None:
        chain, operand = _operands(chains, lanes)
        barrier.wait()
        start = time.perf_counter()
        kernel(chain, operand, iterations)
        spans.append((start, time.perf_counter()))

    if threads == 1:
        work()
    else:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    return threads * iterations / wall
