"""Facts about a CUDA device: what kernels may use, and what the analytic model divides by.

Limits are those of a compute capability; counts, clocks and bandwidths are one product's of that capability, unless they are
read from a device that is there. Peaks are dense and without sparsity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from convc.errors import ToolchainError, unknown_name
from convc.runtime.driver import look

__all__ = ["CAPABILITIES", "EARLY", "Gpu", "gpu_of", "parse_early", "parse_sm", "present_gpu"]

# Compute capability from which on kernels may begin while the one before ends (programmatic dependent launch).
EARLY: Final = 90
# How a target says whether they do.
_EARLY_WORDS: Final = {"auto": None, "on": True, "off": False}


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device.

    Attributes:
        sm: compute capability, 90 for 9.0.
        name: the product that the counts are of.
        sms: multiprocessors.
        shared_bytes: shared memory of a block, the larger size that a kernel asks for included.
        shared_sm_bytes: shared memory of a multiprocessor.
        threads_sm: threads resident on a multiprocessor.
        fp32_lanes: float32 multiply-adds of a multiprocessor in one clock.
        tf32_macs: TF32 multiply-adds of a multiprocessor in one clock by mma.sync; half precision does twice as many.
        clock_hz: under load.
        bytes_per_second: of device memory.
        l2_bytes: last-level cache.
        also: further capabilities that code is made for, into one file.
        ptx: whether code for devices yet unknown goes along.
        fast_math: whether nvcc may use approximate functions and flush denormals.
        early: whether kernels begin while the one before ends; None: where most of a row are short.
    """

    sm: int
    name: str
    sms: int
    shared_bytes: int
    shared_sm_bytes: int
    threads_sm: int
    fp32_lanes: int
    tf32_macs: int
    clock_hz: float
    bytes_per_second: float
    l2_bytes: int
    also: tuple[int, ...] = ()
    ptx: bool = False
    fast_math: bool = False
    early: bool | None = None

    # The same on every capability that CUDA 13 makes code for (programming guide, "Technical Specifications").
    warp: int = 32
    threads_block: int = 1024
    registers_sm: int = 65536
    registers_thread: int = 255
    blocks_sm: int = 32

    @property
    def every_sm(self) -> tuple[int, ...]:
        """All capabilities that code is made for, the one that is planned for first."""
        return (self.sm, *self.also)

    @property
    def code(self) -> tuple[str, ...]:
        """What code is made: machine code by capability, and PTX, which drivers of all later devices translate.

        Example:
            >>> replace(gpu_of(90), also=(80,), ptx=True).code
            ('sm_90', 'sm_80', 'ptx_80')
        """
        ptx = (f"ptx_{min(self.every_sm)}",) if self.ptx else ()
        return (*(f"sm_{sm}" for sm in self.every_sm), *ptx)

    @property
    def options(self) -> tuple[str, ...]:
        """What else was asked of the code, as `convc.target.parse_target` takes it.

        Example:
            >>> replace(gpu_of(90), fast_math=True, early=False).options
            ('-fast-math', '-early=off')
        """
        early = next(word for word, value in _EARLY_WORDS.items() if value is self.early)
        asked = {"-fast-math": self.fast_math, f"-early={early}": self.early is not None}
        return tuple(word for word, is_asked in asked.items() if is_asked)

    @property
    def warpgroups(self) -> bool:
        """Whether kernels may use wgmma: code for 9.0 alone, which no other capability runs and no PTX stands for."""
        return self.every_sm == (90,) and not self.ptx

    @property
    def may_begin_early(self) -> bool:
        """Whether kernels may begin while the one before ends, on all devices that code is made for."""
        return min(self.every_sm) >= EARLY

    @property
    def fp32_flops(self) -> float:
        """Float32 FLOP/s without tensor cores."""
        return 2.0 * self.sms * self.fp32_lanes * self.clock_hz

    @property
    def tf32_flops(self) -> float:
        """TF32 FLOP/s of the tensor cores through mma.sync."""
        return 2.0 * self.sms * self.tf32_macs * self.clock_hz


def _row(
    sm: int, name: str, sms: int, shared_kib: int, sm_kib: int, threads: int, lanes: int, tf32: int,
    ghz: float, gbs: float, l2_mib: int,
) -> Gpu:  # fmt: skip
    return Gpu(sm, name, sms, shared_kib << 10, sm_kib << 10, threads, lanes, tf32, ghz * 1e9, gbs * 1e9, l2_mib << 20)  # fmt: skip


# Source: CUDA C++ programming guide (limits) and the products' data sheets. mma.sync on 9.0 reaches 62 % of the peak that only
# wgmma has (Luo et al., arXiv:2402.13499): 634 of 1024 TF32 multiply-adds a clock.
CAPABILITIES: Final[dict[int, Gpu]] = {
    gpu.sm: gpu
    for gpu in (
        _row(75, "T4", 40, 64, 64, 1024, 64, 0, 1.35, 320, 4),
        _row(80, "A100", 108, 163, 164, 2048, 64, 512, 1.41, 1935, 40),
        _row(86, "A10", 72, 99, 100, 1536, 128, 256, 1.5, 600, 6),
        _row(89, "L40S", 142, 99, 100, 1536, 128, 256, 2.2, 864, 96),
        _row(90, "H200", 132, 227, 228, 2048, 128, 634, 1.755, 4800, 50),
        _row(100, "B200", 148, 227, 228, 2048, 128, 634, 1.8, 8000, 126),
        _row(120, "RTX 5090", 170, 99, 100, 1536, 128, 256, 2.4, 1792, 96),
    )
}


def gpu_of(sm: int) -> Gpu:
    """Return the facts of a compute capability.

    Raises:
        UnknownNameError: if convc has no row for it.

    Example:
        >>> gpu_of(90).sms
        132
    """
    if sm not in CAPABILITIES:
        raise unknown_name("compute capability", str(sm), map(str, CAPABILITIES))
    return CAPABILITIES[sm]


def parse_early(word: str) -> bool | None:
    """Return what a word says of early launches: "on", "off", or "auto" (None).

    Raises:
        UnknownNameError: for another word.

    Example:
        >>> [parse_early(word) for word in ("auto", "on", "off")]
        [None, True, False]
    """
    if word not in _EARLY_WORDS:
        raise unknown_name("value of -early", word, list(_EARLY_WORDS))
    return _EARLY_WORDS[word]


def parse_sm(text: str) -> tuple[int, ...]:
    """Return capabilities in order, each once: "90", "sm_90", "80,90".

    Raises:
        ToolchainError: if the text is no list of numbers.

    Example:
        >>> parse_sm("sm_90,80")
        (90, 80)
    """
    if not re.fullmatch(r"(sm_)?\d{2,3}(,(sm_)?\d{2,3})*", text):
        raise ToolchainError(
            f"sm must be compute capabilities joined by commas, as in 90 or 80,90; got '{text}'."
        )
    return tuple(dict.fromkeys(int(part.removeprefix("sm_")) for part in text.split(",")))


def present_gpu() -> Gpu | None:
    """Return the first CUDA device of this machine, or None without a driver or device; runs nothing on it."""
    devices = look().devices
    if not devices:
        return None
    name, sm, ask = devices[0].name, devices[0].sm, devices[0].facts
    # A capability without a row is taken for the greatest one below it: its limits hold there too.
    known = [row for row in CAPABILITIES if row <= sm]
    if not known:
        return None
    row = CAPABILITIES[max(known)]
    # Newer drivers answer 0 for clocks; memory transfers twice a clock.
    bandwidth = 2e3 * ask["memory_khz"] * ask["bus_bits"] / 8
    return replace(
        row,
        sm=sm,
        name=name,
        sms=ask["multiprocessors"] or row.sms,
        shared_bytes=ask["shared_bytes"] or row.shared_bytes,
        shared_sm_bytes=ask["shared_sm_bytes"] or row.shared_sm_bytes,
        threads_sm=ask["threads_sm"] or row.threads_sm,
        clock_hz=1e3 * ask["clock_khz"] or row.clock_hz,
        bytes_per_second=bandwidth or row.bytes_per_second,
        l2_bytes=ask["l2_bytes"] or row.l2_bytes,
    )
